"""Where built engines lie: beside the version they are of, a folder for each kind of hardware, with the evidence.

models/<name>/engines/<version>/<hardware>/choice.json            what was measured, and what was chosen
                                           choice-<engine>.json   of an engine that the user named
                                           built-<id>/<engine>/   its files, whole or not there
Versions do not change, so nothing of this is in them. A built file is used only with the digest it was built with, and only
for the checkpoint, libraries and hardware it was measured on.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from cluster.files import read_json, sha256, sha256_of, write_json
from serve.engines.catalog import AUTO
from trainer.registry.registry import MANIFEST, Version

CHOICE = "choice.json"
# Of the files of choices, and of what there is to choose from: what was chosen in another format is measured anew.
FORMAT = 3
# Folders of engines that were built before the last one: replicas that run, or come back, may still read them.
_KEPT = 3
_LIBRARIES = ("torch", "transformers", "onnxruntime", "onnxruntime-gpu", "openvino")


def hardware(device: str, threads: int) -> dict[str, Any]:
    """Return what an engine's speed depends on, as plain JSON."""
    name = platform.processor() or platform.machine()
    features = ""
    if device == "cuda":
        import torch

        name = torch.cuda.get_device_name()
    else:
        name, features = _cpu(name)
    return {"device": device, "name": name, "features": features, "threads": threads, "libraries": _libraries()}


def _cpu(name: str) -> tuple[str, str]:
    """Return a CPU's name and a digest of what it can do, as Linux tells them; elsewhere the name alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return name, ""
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", told.get("Features", ""))
    return told.get("model name", name), hashlib.sha256(flags.encode()).hexdigest()[:12]


def _libraries() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            continue
    return found


def folder_of(version: Version, found: dict[str, Any]) -> Path:
    """Return where engines of a version for that hardware lie, whether there are any or not."""
    kind = f"{found['device']}-{sha256_of(found)[:12]}"
    return version.folder.parent.parent / "engines" / str(version.number) / kind


def checkpoint_digest(version: Version) -> str:
    """Return the digest of the version's manifest: of every file it has."""
    return sha256(version.folder / MANIFEST)


def choice_of(version: Version, found: dict[str, Any], asked: str) -> dict[str, Any] | None:
    """Return what was chosen for a version on that hardware before; None if nothing was, or for another checkpoint.

    `asked` is `serve.engine`: what was measured for each value of it lies in a file of its own.
    """
    path = folder_of(version, found) / _file(asked)
    if not path.is_file():
        return None
    try:
        choice: dict[str, Any] = read_json(path)
        if choice.get("format") != FORMAT:
            return None
        same = choice["checkpoint"] == checkpoint_digest(version) and choice["hardware"] == found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is damaged: {error}", "remove its folder; `raymill optimize` makes it again"
        ) from error
    return choice if same else None


def keep(place: Path, choice: dict[str, Any], asked: str) -> None:
    """Write a choice, and remove what was built long before it."""
    write_json(place / _file(asked), choice)
    named = {read_json(path).get("folder", "").split("/")[0] for path in place.glob("choice*.json")}
    others = [path for path in place.glob("built-*") if path.name not in named]
    for old in sorted(others, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _file(asked: str) -> str:
    return CHOICE if asked == AUTO else f"choice-{asked}.json"


def digests(built: Path) -> dict[str, str]:
    """Return the digest of each file of a built engine."""
    return {path.name: sha256(path) for path in sorted(built.iterdir()) if path.is_file()} if built.is_dir() else {}


def must_be_as_built(built: Path, wanted: dict[str, str]) -> None:
    """Raise `ModelError` where a built engine's files are not those that were measured."""
    if digests(built) != wanted:
        raise ModelError(
            f"{built} is damaged: its files are not those that were measured",
            f"remove {built.parent}; `raymill optimize` makes it again",
        )
