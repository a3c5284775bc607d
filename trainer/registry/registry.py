"""The registry: immutable versions with SHA-256 manifests, and aliases that move atomically.

models/<name>/versions/<n>/   weights, config, tokenizer, contract, golden rows, metrics, spec, lineage, manifest.json
models/<name>/aliases.json    every move of every alias, with its evidence
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from cluster.digests import file_digests
from cluster.errors import ModelError, suggest
from cluster.files import new_folder, read_json, remove_leftovers, write_json
from cluster.locks import file_lock
from cluster.paths import expand_home
from cluster.text import utc_now
from trainer.spec.section import NAME_PATTERN

MANIFEST_FILE = "manifest.json"
METRICS_FILE = "metrics.json"
LINEAGE_FILE = "lineage.json"
DEFAULT_ALIAS = "champion"
_ANY_VERSION = -1


class Version(NamedTuple):
    """A registered version of a model."""

    name: str
    number: int
    folder: Path

    @property
    def ref(self) -> str:
        """The version as commands accept it: `name@7`."""
        return f"{self.name}@{self.number}"

    @property
    def storage(self) -> Path:
        """The storage folder that it is in."""
        return self.folder.parents[3]

    @property
    def lineage(self) -> dict[str, Any]:
        """Its origin: run, time, library versions, contract fingerprint, digest of the held-out rows."""
        return self._json(LINEAGE_FILE)

    @property
    def metrics(self) -> dict[str, Any]:
        """Its metrics by part of the data."""
        return self._json(METRICS_FILE)

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = read_json(self.folder / name)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{self.folder / name} is missing or damaged: {error}", "restore the file, or train again"
            ) from error
        return content


class Registry:
    """All models in one storage folder."""

    def __init__(self, storage: str | Path) -> None:
        self.root = expand_home(storage).absolute() / "models"

    def names(self) -> list[str]:
        """Return the names of all models."""
        return sorted(path.name for path in self.root.glob("*") if (path / "versions").is_dir())

    def versions(self, name: str) -> list[Version]:
        """Return the versions of a model, oldest first. Raises `ModelError` for an unknown name."""
        if not re.fullmatch(NAME_PATTERN, name) or not (self.root / name / "versions").is_dir():
            raise ModelError(
                f"there is no model '{name}' in {self.root}", suggest(name, self.names(), then="Or give `--storage`")
            )
        numbers = sorted(int(p.name) for p in (self.root / name / "versions").iterdir() if p.name.isdigit())
        if not numbers:
            raise ModelError(f"the model '{name}' has no version", "train one with `raymill run`")
        return [Version(name, number, self.root / name / "versions" / str(number)) for number in numbers]

    def find(self, ref: str) -> Version:
        """Return the version of `name`, `name@alias` or `name@7`; a bare name means its champion."""
        name, separator, selector = ref.partition("@")
        versions = self.versions(name)
        if separator and not selector:
            raise ModelError(
                f"'{ref}' has no version after the @", f"write {name}@{versions[-1].number} or {name}@{DEFAULT_ALIAS}"
            )
        if selector.isdecimal() and selector.isascii():
            number = int(selector)
        else:
            aliases = self.aliases(name)
            selector = selector or DEFAULT_ALIAS
            if selector not in aliases:
                raise ModelError(
                    f"'{name}' has no alias '{selector}' (aliases: {', '.join(aliases) or 'none'}; newest version: {versions[-1].number})",
                    f"use {name}@{versions[-1].number}, or `raymill models promote {name}@{versions[-1].number}`",
                )
            number = aliases[selector]
        for version in versions:
            if version.number == number:
                return version
        numbers = ", ".join(str(version.number) for version in versions)
        raise ModelError(f"'{name}' has no version {number} (versions: {numbers})", "use one of these")

    def register(self, name: str, fill: Callable[[Path], None]) -> Version:
        """Create the next version from what `fill` writes into an empty folder. The version appears complete or not at all."""
        remove_leftovers(self.root / name / "versions")
        while True:
            existing = [int(p.name) for p in (self.root / name / "versions").glob("*") if p.name.isdigit()]
            # A number that an alias ever pointed to is not reused, even if its folder was removed.
            number = max([0, *existing, *[move["to"] for move in self.moves(name)]]) + 1
            final = self.root / name / "versions" / str(number)
            try:
                with new_folder(final) as folder:
                    fill(folder)
                    _write_manifest(folder)
            except FileExistsError:
                continue  # another run has taken this number
            return Version(name, number, final)

    def aliases(self, name: str) -> dict[str, int]:
        """Return alias -> version number."""
        stacks: dict[str, list[int]] = {}
        for move in self.moves(name):
            stack = stacks.setdefault(move["alias"], [])
            _apply_move(stack, move)
        return {alias: stack[-1] for alias, stack in stacks.items() if stack}

    def moves(self, name: str) -> list[dict[str, Any]]:
        """Return every move of every alias, oldest first."""
        path = self.root / name / "aliases.json"
        if not path.is_file():
            return []
        try:
            moves: list[dict[str, Any]] = read_json(path)["moves"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path} is damaged: {error}",
                "restore aliases.json from a backup, or delete it and promote a version again; "
                "deleting it loses the aliases and their history, but no version",
            ) from error
        return moves

    def promote(
        self,
        version: Version,
        alias: str = DEFAULT_ALIAS,
        evidence: dict[str, Any] | None = None,
        *,
        expected: int | None = _ANY_VERSION,
    ) -> bool:
        """Point `alias` to `version` and store the evidence for it. Returns whether the alias moved.

        `expected` is the version number that the alias is known to point to, or None if it is known not to be set. If
        that has changed meanwhile, the alias does not move.
        """
        if not re.fullmatch(NAME_PATTERN, alias) or alias.isdigit():
            raise ModelError(f"'{alias}' cannot be an alias", "use lowercase letters, digits, _ and -; not only digits")
        verify_files(version)
        with self._lock(version.name):
            if expected != _ANY_VERSION and self.aliases(version.name).get(alias) != expected:
                return False
            self._append(
                version.name, {"kind": "promote", "alias": alias, "to": version.number, "evidence": evidence or {}}
            )
        return True

    def rollback(self, name: str, alias: str = DEFAULT_ALIAS) -> Version:
        """Point `alias` back to its version before the last promotion, and return that version."""
        self.versions(name)
        with self._lock(name):
            stack: list[int] = []
            for move in self.moves(name):
                if move["alias"] == alias:
                    _apply_move(stack, move)
            if len(stack) < 2:
                raise ModelError(
                    f"'{name}@{alias}' has no earlier version to roll back to",
                    "promote one with `raymill models promote`",
                )
            self._append(name, {"kind": "rollback", "alias": alias, "to": stack[-2], "evidence": {"from": stack[-1]}})
        return self.find(f"{name}@{stack[-2]}")

    def _append(self, name: str, move: dict[str, Any]) -> None:
        stamped = {"at": utc_now(), **move}
        write_json(self.root / name / "aliases.json", {"moves": [*self.moves(name), stamped]})

    def _lock(self, name: str) -> AbstractContextManager[None]:
        return file_lock(self.root / name / ".aliases.lock", timeout_s=30)


def _apply_move(stack: list[int], move: dict[str, Any]) -> None:
    """Apply one move of an alias to the stack of versions it pointed to."""
    if move["kind"] == "rollback":
        stack.pop()
    elif not stack or stack[-1] != move["to"]:
        stack.append(move["to"])


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a checkpoint folder."""
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)


def verify_files(version: Version) -> None:
    """Check every file of a version against its manifest. Raises `ModelError` naming the first one that does not match."""
    path = version.folder / MANIFEST_FILE
    try:
        files: dict[str, dict[str, Any]] = read_json(path)["files"]
        expected = {name: (entry["sha256"], entry["bytes"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is missing or damaged: {error}", f"restore {version.folder}, or train again"
        ) from error
    present = {p.name for p in version.folder.iterdir() if p.name != MANIFEST_FILE}
    for extra in sorted(present - set(expected)):
        raise ModelError(
            f"{version.folder / extra} is not in the manifest of {version.ref}",
            "remove this file: a version must not change",
        )
    for name in expected:
        if name not in present:
            raise ModelError(f"{version.folder / name} is missing", f"restore {version.folder}, or train again")
    paths = [version.folder / name for name in expected]
    for path, digest, (expected_digest, size) in zip(paths, file_digests(paths), expected.values(), strict=True):
        if path.stat().st_size != size or digest != expected_digest:
            raise ModelError(
                f"{path} is damaged: its SHA-256 is not the one in the manifest",
                f"restore {version.folder}, or train again",
            )


def _write_manifest(folder: Path) -> None:
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()]
    files = {
        path.name: {"sha256": digest, "bytes": path.stat().st_size}
        for path, digest in zip(paths, file_digests(paths), strict=True)
    }
    write_json(folder / MANIFEST_FILE, {"files": files})
