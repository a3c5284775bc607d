"""API keys: a file of hashes, and who may ask how often. The key itself is shown once and kept nowhere.

A key is 32 random bytes, so one SHA-256 is as safe as a slow hash of a password: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any

from filelock import FileLock

from cluster.errors import SpecError, UserError, nearest
from cluster.files import read_json, write_json

_PREFIX = "rm_"


def add(path: Path, name: str, rate: float | None) -> str:
    """Add a key to a file, made if it is not there, and return it. `rate` are requests a second, or None for any."""
    key = _PREFIX + secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=30):
        keys = _read(path) if path.is_file() else []
        if any(one["name"] == name for one in keys):
            raise UserError(f"{path} has a key '{name}' already", "give another name, or remove that one first")
        write_json(path, {"keys": [*keys, {"name": name, "sha256": _hash(key), "rate": rate}]})
        path.chmod(0o600)
    return key


def remove(path: Path, name: str) -> None:
    """Take a key out of a file."""
    with FileLock(f"{path}.lock", timeout=30):
        keys = _there(str(path))
        if all(one["name"] != name for one in keys):
            raise UserError(f"{path} has no key '{name}'", nearest(name, [one["name"] for one in keys]))
        write_json(path, {"keys": [one for one in keys if one["name"] != name]})
        path.chmod(0o600)


def load(path: str) -> list[dict[str, Any]]:
    """Return the keys of a file, hashed. Raises `SpecError`, also where there is none in it: nobody could ask."""
    found = _there(path)
    if not found:
        raise SpecError(f"serve.keys={path} holds no keys", f"add one with `raymill keys add NAME --file {path}`")
    return found


def _there(path: str) -> list[dict[str, Any]]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise SpecError(
            f"serve.keys={path}: there is no such file", f"make it with `raymill keys add NAME --file {path}`"
        )
    return _read(file)


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        keys = read_json(file)["keys"]
        return [{"name": str(one["name"]), "sha256": str(one["sha256"]), "rate": one["rate"]} for one in keys]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{file} is no file of keys: {error}", "make it with `raymill keys add`") from error


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
