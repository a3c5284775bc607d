"""The registry: immutable versions under a SHA-256 manifest, and aliases that move atomically.

models/<name>/versions/<n>/   weights, config, tokenizer, contract, golden rows, metrics, spec, lineage, manifest.json
models/<name>/aliases.json    which version each alias means, and every move with its evidence
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from cluster.errors import ModelError, nearest
from cluster.files import new_folder, read_json, sha256, sweep, write_json
from trainer.spec.run import NAME_PATTERN

MANIFEST = "manifest.json"
METRICS = "metrics.json"
LINEAGE = "lineage.json"
DEFAULT_ALIAS = "champion"


class Version(NamedTuple):
    """One registered version."""

    name: str
    number: int
    folder: Path

    @property
    def ref(self) -> str:
        """The version as a command takes it: `name@7`."""
        return f"{self.name}@{self.number}"

    @property
    def lineage(self) -> dict[str, Any]:
        """Where it came from: run, time, library versions, contract fingerprint, digest of the held-out rows."""
        return self._json(LINEAGE)

    @property
    def metrics(self) -> dict[str, Any]:
        """Its figures by part of the data."""
        return self._json(METRICS)

    def _json(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = read_json(self.folder / name)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{self.folder / name} is missing or damaged: {error}", "restore it, or train again"
            ) from error
        return found


class Registry:
    """All models under one storage folder."""

    def __init__(self, storage: str | Path) -> None:
        self.root = Path(storage).expanduser().absolute() / "models"

    def names(self) -> list[str]:
        """Return the names of all models."""
        return sorted(path.name for path in self.root.glob("*") if (path / "versions").is_dir())

    def versions(self, name: str) -> list[Version]:
        """Return the versions of one model, oldest first; raises `ModelError` for a name that is not there."""
        if not re.fullmatch(NAME_PATTERN, name) or not (self.root / name / "versions").is_dir():
            raise ModelError(
                f"there is no model '{name}' in {self.root}", nearest(name, self.names(), then="Or give --storage")
            )
        numbers = sorted(int(p.name) for p in (self.root / name / "versions").iterdir() if p.name.isdigit())
        if not numbers:
            raise ModelError(f"the model '{name}' has no version", "train one with `raymill run`")
        return [Version(name, number, self.root / name / "versions" / str(number)) for number in numbers]

    def find(self, ref: str) -> Version:
        """Return the version that `name`, `name@alias` or `name@7` means; a bare name means its champion."""
        name, at, which = ref.partition("@")
        versions = self.versions(name)
        if at and not which:
            raise ModelError(
                f"'{ref}' names no version after the @", f"write {name}@{versions[-1].number} or {name}@{DEFAULT_ALIAS}"
            )
        if which.isdecimal() and which.isascii():
            number = int(which)
        else:
            aliases = self.aliases(name)
            which = which or DEFAULT_ALIAS
            if which not in aliases:
                raise ModelError(
                    f"'{name}' has no alias '{which}' (aliases: {', '.join(aliases) or 'none'}; newest version: {versions[-1].number})",
                    f"use {name}@{versions[-1].number}, or `raymill models promote {name}@{versions[-1].number}`",
                )
            number = aliases[which]
        for version in versions:
            if version.number == number:
                return version
        have = ", ".join(str(version.number) for version in versions)
        raise ModelError(f"'{name}' has no version {number} (it has: {have})", "use one of these")

    def register(self, name: str, fill: Callable[[Path], None]) -> Version:
        """Make the next version from what `fill` writes into an empty folder; it appears whole or not at all."""
        sweep(self.root / name / "versions")
        while True:
            existing = [int(p.name) for p in (self.root / name / "versions").glob("*") if p.name.isdigit()]
            # A number that an alias ever meant is not given again, even if its folder was removed.
            number = max([0, *existing, *[move["to"] for move in self.moves(name)]]) + 1
            final = self.root / name / "versions" / str(number)
            try:
                with new_folder(final) as folder:
                    fill(folder)
                    _write_manifest(folder)
            except FileExistsError:
                continue  # another run took this number meanwhile
            return Version(name, number, final)

    def aliases(self, name: str) -> dict[str, int]:
        """Return alias -> version number."""
        stacks: dict[str, list[int]] = {}
        for move in self.moves(name):
            stack = stacks.setdefault(move["alias"], [])
            _apply(stack, move)
        return {alias: stack[-1] for alias, stack in stacks.items() if stack}

    def moves(self, name: str) -> list[dict[str, Any]]:
        """Return every move of every alias, oldest first."""
        path = self.root / name / "aliases.json"
        if not path.is_file():
            return []
        try:
            found: list[dict[str, Any]] = read_json(path)["moves"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path} is damaged: {error}", "restore it; versions themselves are not touched"
            ) from error
        return found

    def promote(
        self,
        version: Version,
        alias: str = DEFAULT_ALIAS,
        evidence: dict[str, Any] | None = None,
        *,
        instead_of: int | None = -1,
    ) -> bool:
        """Let `alias` mean `version` from now on, and keep the evidence for it.

        With `instead_of` (a version, or None for nobody) the alias moves only if it still means that; returns whether it
        moved.
        """
        if not re.fullmatch(NAME_PATTERN, alias) or alias.isdigit():
            raise ModelError(
                f"'{alias}' cannot be an alias", "use lower-case letters, digits, _ and -, not a number alone"
            )
        verify(version)
        with self._lock(version.name):
            if instead_of != -1 and self.aliases(version.name).get(alias) != instead_of:
                return False
            self._append(
                version.name, {"kind": "promote", "alias": alias, "to": version.number, "evidence": evidence or {}}
            )
        return True

    def rollback(self, name: str, alias: str = DEFAULT_ALIAS) -> Version:
        """Let `alias` mean the version it meant before its last promotion, and return that version."""
        self.versions(name)
        with self._lock(name):
            stack: list[int] = []
            for move in self.moves(name):
                if move["alias"] == alias:
                    _apply(stack, move)
            if len(stack) < 2:
                raise ModelError(
                    f"'{name}@{alias}' has no earlier version to go back to", "promote one: `raymill models promote`"
                )
            self._append(name, {"kind": "rollback", "alias": alias, "to": stack[-2], "evidence": {"from": stack[-1]}})
        return self.find(f"{name}@{stack[-2]}")

    def _append(self, name: str, move: dict[str, Any]) -> None:
        stamped = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **move}
        write_json(self.root / name / "aliases.json", {"moves": [*self.moves(name), stamped]})

    def _lock(self, name: str) -> FileLock:
        return FileLock(str(self.root / name / ".aliases.lock"), timeout=30)


def _apply(stack: list[int], move: dict[str, Any]) -> None:
    """Carry one move of an alias out on the stack of versions it meant."""
    if move["kind"] == "rollback":
        stack.pop()
    elif not stack or stack[-1] != move["to"]:
        stack.append(move["to"])


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a checkpoint folder."""
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)


def verify(version: Version) -> None:
    """Check every file of a version against its manifest; raises `ModelError` naming the first that does not match."""
    path = version.folder / MANIFEST
    try:
        files: dict[str, dict[str, Any]] = read_json(path)["files"]
        expected = {name: (entry["sha256"], entry["bytes"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is missing or damaged: {error}", f"restore {version.folder}, or train again"
        ) from error
    present = {p.name for p in version.folder.iterdir() if p.name != MANIFEST}
    for extra in sorted(present - set(expected)):
        raise ModelError(
            f"{version.folder / extra} is not in the manifest of {version.ref}", "remove it: versions do not change"
        )
    for name, (digest, size) in expected.items():
        file = version.folder / name
        if name not in present:
            raise ModelError(f"{file} is missing", f"restore {version.folder}, or train again")
        if file.stat().st_size != size or sha256(file) != digest:
            raise ModelError(
                f"{file} is damaged: its SHA-256 is not the manifest's", f"restore {version.folder}, or train again"
            )


def _write_manifest(folder: Path) -> None:
    files = {
        path.name: {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    write_json(folder / MANIFEST, {"files": files})
