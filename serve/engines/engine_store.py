"""Storage of built engines: one folder for each kind of hardware, beside the version, with the measurements.

models/<name>/engines/<version>/<hardware>/choice.json            the measurements and the chosen engine
                                           choice-<engine>.json   the same for another value of `serve.engine`
                                           built-<id>/<engine>/   the engine's files, complete or absent

A version's folder never changes, so engines are stored outside it. Built files are used only if their digests are
unchanged, and only with the checkpoint, libraries and hardware that they were measured with.
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
from cluster.files import file_sha256, json_sha256, read_json, write_json
from serve.engines.catalog import AUTO
from trainer.registry.registry import MANIFEST_FILE, Version

CHOICE = "choice.json"
# Version of the choice file's schema and of the set of engines. A choice with another version is measured again.
FORMAT = 7
# How many unused folders of built engines to keep: replicas that run or restart may still read them.
_KEEP_BUILT = 3
_LIBRARIES = ("torch", "transformers", "onnxruntime", "onnxruntime-gpu", "openvino", "openvino-genai", "xllamacpp")


def detect_hardware(device: str, threads: int) -> dict[str, Any]:
    """Return the device, its name and features, the threads and the library versions, as plain JSON.

    An engine's speed depends on these; a choice is valid only for the same values.
    """
    name = platform.processor() or platform.machine()
    features = ""
    if device == "cuda":
        import torch

        name = torch.cuda.get_device_name()
    else:
        name, features = _cpu(name)
    return {"device": device, "name": name, "features": features, "threads": threads, "libraries": _libraries()}


def _cpu(name: str) -> tuple[str, str]:
    """Return the CPU's name and a digest of its features, as Linux reports them; on other systems `name` and ""."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return name, ""
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = info.get("flags", info.get("Features", ""))
    return info.get("model name", name), hashlib.sha256(flags.encode()).hexdigest()[:12]


def _libraries() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = installed(name)
        except PackageNotFoundError:
            continue
    return versions


def engine_folder(version: Version, hardware: dict[str, Any]) -> Path:
    """Return the folder for a version's engines on `hardware`. The folder may not exist yet."""
    kind = f"{hardware['device']}-{json_sha256(hardware)[:12]}"
    return version.folder.parent.parent / "engines" / str(version.number) / kind


def checkpoint_digest(version: Version) -> str:
    """Return the digest of the version's manifest. It identifies all files: the manifest lists their digests."""
    return file_sha256(version.folder / MANIFEST_FILE)


def choice_path(version: Version, hardware: dict[str, Any], engine: str) -> Path:
    """Return the file of the choice for `engine`, a value of `serve.engine`. The file may not exist yet."""
    return engine_folder(version, hardware) / _choice_file(engine)


def load_choice(version: Version, hardware: dict[str, Any], engine: str) -> dict[str, Any] | None:
    """Return the stored choice for a version on `hardware`; None if there is none for this checkpoint.

    `engine` is the value of `serve.engine`; each value has its own choice file. Raises `ModelError` if the file is
    damaged.
    """
    path = choice_path(version, hardware, engine)
    if not path.is_file():
        return None
    try:
        choice: dict[str, Any] = read_json(path)
        if choice.get("format") != FORMAT:
            return None
        is_current = choice["checkpoint"] == checkpoint_digest(version) and choice["hardware"] == hardware
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is damaged: {error}", f"remove {path.parent} and run `raymill optimize` again"
        ) from error
    return choice if is_current else None


def save_choice(folder: Path, choice: dict[str, Any], engine: str) -> None:
    """Write a choice, and remove old built engines that no choice refers to."""
    write_json(folder / _choice_file(engine), choice)
    in_use = {read_json(path).get("folder", "").split("/")[0] for path in folder.glob("choice*.json")}
    unused = [path for path in folder.glob("built-*") if path.name not in in_use]
    for old in sorted(unused, key=lambda path: path.stat().st_mtime)[:-_KEEP_BUILT]:
        shutil.rmtree(old, ignore_errors=True)


def _choice_file(engine: str) -> str:
    return CHOICE if engine == AUTO else f"choice-{engine}.json"


def file_digests(built: Path) -> dict[str, str]:
    """Return the digest of each file of a built engine."""
    return (
        {path.name: file_sha256(path) for path in sorted(built.iterdir()) if path.is_file()} if built.is_dir() else {}
    )


def check_built_files(built: Path, expected: dict[str, str]) -> None:
    """Raise `ModelError` if the files of a built engine have changed since it was measured."""
    if file_digests(built) != expected:
        raise ModelError(
            f"{built} is damaged: its files have changed since the engine was measured",
            f"remove {built.parent} and run `raymill optimize` again",
        )
