"""The token with which the processes of a Ray know each other, and with which a cluster knows who may join it.

Ray writes one to `~/.ray/auth_token` when it first starts on a machine, and does not start if it cannot. A user without a
home folder, or with one that can only be read, gets a token that lives as long as this process and what it starts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from cluster.errors import ResourceError

_TOKEN = "RAY_AUTH_TOKEN"
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
_MODE = "RAY_AUTH_MODE"
# What Ray's errors about tokens have in common, whatever their class is.
_REFUSALS = ("AuthenticationError", "InvalidAuthToken", "Unauthenticated")


def provide_token() -> None:
    """Set RAY_AUTH_TOKEN for the Ray that starts here, if it would find no token and could write none."""
    if not os.environ.get(_TOKEN) and not os.environ.get(_TOKEN_PATH) and not _home_has_token():
        os.environ[_TOKEN] = secrets.token_hex(32)


def sent_token() -> str | None:
    """Return the token that Ray sends from this process to a cluster that it joins; None if it sends none."""
    if os.environ.get(_MODE, "").lower() == "disabled":
        return None
    if token := os.environ.get(_TOKEN, "").strip():
        return token
    named = os.environ.get(_TOKEN_PATH)
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # RuntimeError: no home
        path = Path(named) if named else Path.home() / ".ray" / "auth_token"
        return path.read_text(encoding="utf-8").strip() or None
    return None


def is_refusal(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, is Ray's about a token that is missing or wrong."""
    while error is not None:
        if any(word in f"{type(error).__name__}: {error}" for word in _REFUSALS):
            return True
        error = error.__cause__ or error.__context__
    return False


def token_error(cluster: str) -> ResourceError:
    """Return the error of a cluster that refuses what this process sends. It does not show the token."""
    problem = "refuses the token that is set here" if sent_token() else "asks for a token, and none is set here"
    return ResourceError(
        f"{cluster} {problem}",
        f"set {_MODE}=token, and {_TOKEN_PATH} to a file with the cluster's token; on the head, `ray get-auth-token` "
        "prints it",
    )


def _home_has_token() -> bool:
    """Return whether the home folder has a token that can be read, or Ray may write one."""
    try:
        file = Path.home() / ".ray" / "auth_token"
        if file.exists():
            return os.access(file, os.R_OK)
        existing = next(folder for folder in file.parents if folder.exists())
    except (RuntimeError, OSError):  # no home; one that this user may not enter
        return False
    return existing.is_dir() and existing.is_relative_to(file.parents[1]) and os.access(existing, os.W_OK | os.X_OK)
