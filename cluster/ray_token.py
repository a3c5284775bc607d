"""The token with which the processes of a local Ray know each other.

Ray writes one to `~/.ray/auth_token` when it first starts on a machine, and does not start if it cannot. A user without a
home folder, or with one that can only be read, gets a token that lives as long as this process and what it starts.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_TOKEN = "RAY_AUTH_TOKEN"
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"


def provide_token() -> None:
    """Set RAY_AUTH_TOKEN for the Ray that starts here, if it would find no token and could write none."""
    if not os.environ.get(_TOKEN) and not os.environ.get(_TOKEN_PATH) and not _home_has_token():
        os.environ[_TOKEN] = secrets.token_hex(32)


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
