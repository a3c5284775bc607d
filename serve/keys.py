"""API keys: a file of key hashes with names and rates. A key itself is shown once and never stored.

A key is 32 random bytes and cannot be guessed, so SHA-256 protects it as well as a slow password hash would.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import SpecError, UserError, suggest
from cluster.files import read_json, write_json
from cluster.locks import file_lock
from cluster.paths import expand_home

_PREFIX = "rm_"
#: Limits of a key on the tokens of prompts and answers, of models that write text.
QUOTAS = ("tokens_per_minute", "tokens_per_day")


def add_key(
    path: Path, name: str, rate: float | None, quotas: Mapping[str, int | None] | None = None, *, admin: bool = False
) -> str:
    """Add a key to a file and return the key. Creates the file if it does not exist.

    `rate` is in requests per second; None means no limit. `quotas` are `QUOTAS` of models that write text.
    `admin` keys may add and remove adapters. Raises `UserError` if the file already has this name.
    """
    key = _PREFIX + secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.with_name(f"{path.name}.lock"), timeout_s=30):
        entries = _parse(path) if path.is_file() else []
        if any(entry["name"] == name for entry in entries):
            raise UserError(
                f"{path} already has a key '{name}'",
                f"use another name, or remove the key with `raymill keys remove {name} --file {path}`",
            )
        limits = {field: tokens for field, tokens in (quotas or {}).items() if tokens}
        if admin:
            limits["admin"] = True
        entries.append({"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "rate": rate, **limits})
        _write(path, entries)
    return key


def remove_key(path: Path, name: str) -> None:
    """Remove a key from a file. Raises `UserError` if the file has no key with this name."""
    with file_lock(path.with_name(f"{path.name}.lock"), timeout_s=30):
        entries = _read(str(path))
        if all(entry["name"] != name for entry in entries):
            raise UserError(f"{path} has no key '{name}'", suggest(name, [entry["name"] for entry in entries]))
        _write(path, [entry for entry in entries if entry["name"] != name])


def load_keys(path: str) -> list[dict[str, Any]]:
    """Return the hashed keys in a file.

    Raises `SpecError` if the file is missing, invalid, or holds no keys: an empty file would reject every request.
    """
    entries = _read(path)
    if not entries:
        raise SpecError(f"serve.keys={path} holds no keys", f"add one with `raymill keys add NAME --file {path}`")
    return entries


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    write_json(path, {"keys": entries})
    path.chmod(0o600)


def _read(path: str) -> list[dict[str, Any]]:
    file = expand_home(path)
    if not file.is_file():
        raise SpecError(
            f"serve.keys={path}: the file does not exist", f"create it with `raymill keys add NAME --file {path}`"
        )
    return _parse(file)


def _parse(file: Path) -> list[dict[str, Any]]:
    try:
        entries = read_json(file)["keys"]
        return [
            {
                "name": str(entry["name"]),
                "sha256": str(entry["sha256"]),
                "rate": entry["rate"],
                **{field: int(entry[field]) for field in QUOTAS if entry.get(field)},
                **({"admin": True} if entry.get("admin") is True else {}),
            }
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(
            f"{file} is not a valid key file: {error}",
            "create a new file with `raymill keys add NAME --file FILE`",
        ) from error
