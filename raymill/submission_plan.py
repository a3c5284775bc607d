"""What a submitted run consists of: the files that travel, the spec with the cluster's paths, what nodes must see."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import DataError, SpecError
from cluster.files import file_sha256, json_sha256
from cluster.import_guard import ROOT
from cluster.jobs.working_files import LeftOut, list_working_files
from cluster.text import format_bytes
from trainer.contract.user_code import UserSource, find_source
from trainer.data.sources.local_pattern import match_files
from trainer.data.sources.source_files import check_source
from trainer.data.sources.walk import walk_folder
from trainer.spec.paths import change_paths
from trainer.spec.run import RunSpec

#: The file of a package that says what to run.
JOB_FILE = ".raymill-job.json"
#: The folder in the storage for the data and base models that travelled with jobs.
INPUTS_FOLDER = "inputs"

_PACKAGE = "package://"


class OutsidePath(NamedTuple):
    """A path of the spec that does not travel: the nodes must see it."""

    key: str
    path: str
    size: int | None
    """Size of the file on this machine in bytes, -1 for a folder or a pattern, None if it does not exist here."""
    is_too_large: bool
    """Whether it is in the working directory, and has files that are too large to travel."""


class SubmissionPlan(NamedTuple):
    """All that a submission needs."""

    name: str
    storage: str
    spec_digest: str
    """Of the keys of the spec and its data as far as it travels: the same run has the same one."""
    files: dict[str, Path | bytes]
    """Path in the package -> a file, or its content."""
    sizes: dict[str, int]
    left_out: list[LeftOut]
    outside: list[OutsidePath]
    packages: list[str]
    """Python packages that hold base models."""
    brings_raymill: bool
    """Whether the working directory is a checkout of raymill, whose code the job then runs."""


def plan_submission(
    spec: RunSpec, root: Path, max_file_bytes: int, *, starts_new: bool, columns: int
) -> SubmissionPlan:
    """Return what travels with `spec` from the working directory `root`.

    `starts_new`: an interrupted run of the same spec is not resumed. `columns`: width of the tables in the log. Raises
    `SpecError` and `DataError` for wrong addresses, secrets, and modules that are not the user's.
    """
    for part in ("train", "validation", "test"):
        source = getattr(spec.data, part)
        if source is not None:
            _check_addresses(source, part)
    working = list_working_files(root, storage=Path(spec.storage), max_file_bytes=max_file_bytes)
    inputs = _Inputs(root, max_file_bytes)
    raw = _without_machine_keys(spec)
    change_paths(raw, inputs.collect)
    folder = Path(spec.storage) / INPUTS_FOLDER / inputs.digest()
    raw = change_paths(raw, lambda key, path: inputs.remote_path(path, folder))
    files: dict[str, Path | bytes] = {path: root / path for path in [*working.files, *inputs.files]}
    files |= _module_files(spec, root)
    job = {
        "spec": raw,
        "inputs": {"folder": str(folder), "files": sorted(inputs.files)},
        "new": starts_new,
        "columns": columns,
    }
    files[JOB_FILE] = json.dumps(job, ensure_ascii=False, indent=1).encode()
    sizes = {path: len(item) if isinstance(item, bytes) else item.stat().st_size for path, item in files.items()}
    bases = [spec.model.base or "", *_searched_bases(raw)]
    return SubmissionPlan(
        name=spec.name,
        storage=spec.storage,
        spec_digest=json_sha256(raw)[:16],
        files=files,
        sizes=sizes,
        left_out=[item for item in working.left_out if item.path not in files],
        outside=inputs.outside,
        packages=sorted({base.removeprefix(_PACKAGE).partition("/")[0] for base in bases if base.startswith(_PACKAGE)}),
        brings_raymill=root == ROOT and "raymill/__init__.py" in working.files,
    )


def _check_addresses(source: Any, part: str) -> None:
    """Raise `DataError` for secrets and wrong addresses in a source. A local path may exist on the cluster only."""
    try:
        check_source(source, part)
    except DataError as error:
        if "no such file" not in error.problem and "matches no file" not in error.problem:
            raise


def _without_machine_keys(spec: RunSpec) -> dict[str, Any]:
    """Return the spec as a mapping without the keys that speak of this machine, or of manifests."""
    raw = spec.model_dump(mode="json", exclude_unset=True)
    raw.pop("deploy", None)
    cluster = {key: value for key, value in (raw.get("cluster") or {}).items() if key not in ("address", "cpus")}
    raw["cluster"] = cluster
    return raw


def _searched_bases(raw: Mapping[str, Any]) -> list[str]:
    space = ((raw.get("tune") or {}).get("space") or {}).get("model.base") or {}
    return list(space.get("choice") or [])


class _Inputs:
    """The data and base models of a spec: those that travel, and those that the nodes must see."""

    def __init__(self, root: Path, max_file_bytes: int) -> None:
        self._root, self._max_file_bytes = root, max_file_bytes
        self._travelling: dict[str, str] = {}  # path -> relative path
        self.files: dict[str, Path] = {}
        self.outside: list[OutsidePath] = []

    def collect(self, key: str, path: str) -> str:
        """Note a path of the spec, and return it."""
        relative = self._relative(path)
        is_inside = relative != "." and not relative.startswith("../")
        files = _files_of(Path(path)) if is_inside else []
        is_too_large = any(file.stat().st_size > self._max_file_bytes for file in files)
        if files and not is_too_large:
            self.files |= {self._relative(str(file)): file for file in files}
            self._travelling[path] = relative
        else:
            self.outside.append(OutsidePath(key, path, _size_here(Path(path)), is_too_large))
        return path

    def digest(self) -> str:
        """Return a digest of the names and the content of the files that travel."""
        return json_sha256({name: file_sha256(path) for name, path in sorted(self.files.items())})[:16]

    def remote_path(self, path: str, folder: Path) -> str:
        """Return the path of what travels as it is in `folder` of the storage; other paths as they are."""
        relative = self._travelling.get(path)
        return path if relative is None else str(folder / relative)

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self._root).replace(os.sep, "/")


def _files_of(path: Path) -> list[Path]:
    """Return the files that a path, a folder or a pattern names on this machine."""
    if path.is_file():
        return [path]
    if path.is_dir():
        return [Path(file.path) for file in walk_folder(str(path)) if not file.relative.endswith("/")]
    return match_files(str(path))


def _size_here(path: Path) -> int | None:
    if path.is_file():
        return path.stat().st_size
    return -1 if path.is_dir() or match_files(str(path)) else None


def _module_files(spec: RunSpec, root: Path) -> dict[str, Path | bytes]:
    """Return the files of the user's modules that the spec names, where the job's Python looks for them."""
    files: dict[str, Path | bytes] = {}
    for source in own_modules(spec):
        parts = source.module.split(".")
        depth = len(parts) + (source.file.name == "__init__.py")
        if source.file == root.joinpath(*source.file.parts[-depth:]):
            files[source.file.relative_to(root).as_posix()] = source.file  # even if .gitignore names it
            continue
        if len(parts) == 1 and source.file.name != "__init__.py":
            files[source.file.name] = source.file
            continue
        package = source.file.parents[depth - 2]
        for file in sorted(package.rglob("*.py")):
            files[f"{parts[0]}/{file.relative_to(package).as_posix()}"] = file
    return files


def own_modules(spec: RunSpec) -> list[UserSource]:
    """Return the sources of the user's own modules that a spec names. Raises `SpecError` if one does not exist."""
    named = [("task", spec.task)]
    named += [("data.steps", step.python.function) for step in spec.data.steps if step.python is not None]
    named += [("train.loss.function", spec.train.loss.function or ""), ("model.factory", spec.model.factory or "")]
    for key in ("train.loss.function", "model.factory"):
        domain = spec.tune.space.get(key) if spec.tune else None
        named += [(f"tune.space.{key}", str(value)) for value in (domain.choice or [] if domain else [])]
    return [find_source(path, key) for key, path in named if ":" in path]


def outside_error(missing: list[tuple[OutsidePath, str]], max_file_bytes: int) -> SpecError:
    """Return the error for paths that not all nodes see, each with what is wrong there."""
    lines = []
    for item, problem in missing:
        here = "" if item.size is not None else ", nor on this machine"
        limit = format_bytes(max_file_bytes)
        stays = f"; it does not travel with the job because it has files over {limit}" if item.is_too_large else ""
        lines.append(f"{item.key}={item.path} {problem}{here}{stays}")
    return SpecError(
        "\n  ".join(lines),
        "copy it to a folder that all nodes see and write that path, use an address (s3://, gs://, hdfs://, hf://), or "
        f"put it into the working directory: files up to {format_bytes(max_file_bytes)} travel with the job, and "
        "`--max-file-mb` raises the limit",
    )
