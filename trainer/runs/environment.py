"""The environment of a run: versions, code revision and machine, written to its folder so that runs can be compared."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from cluster.files import read_json, write_json
from cluster.text import utc_now
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.spec.evaluate import METRICS_VERSION

ENVIRONMENT_FILE = "environment.json"
#: The first worker's processor, threads, GPU and precision.
HARDWARE_FILE = "hardware.json"


def write_environment(folder: Path) -> None:
    """Write environment.json: every installed package, Python, the code's git revision, what metrics mean, the command."""
    write_json(
        folder / ENVIRONMENT_FILE,
        {
            "started": utc_now(),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "python": platform.python_version(),
            "system": platform.platform(),
            "git": _git_revision(Path.cwd()),
            "metrics_version": METRICS_VERSION,
            "packages": installed_packages(),
        },
    )


def installed_packages() -> dict[str, str]:
    """Return the version of every installed package by its name in lower case, sorted by name."""
    folders = [Path(folder) for folder in sys.path]
    return dict(_read_versions(tuple((folder, folder.stat().st_mtime_ns) for folder in folders if folder.is_dir())))


@functools.lru_cache(maxsize=1)
def _read_versions(folders: tuple[tuple[Path, int], ...]) -> list[tuple[str, str]]:
    """Return the packages in `folders` and their versions, which takes half a second. An installation changes a folder's
    time, so they are read again."""
    about = [package.metadata for package in distributions(path=[str(folder) for folder, _ in folders])]
    return sorted((str(metadata["Name"]).lower(), str(metadata["Version"])) for metadata in about if metadata["Name"])


def write_hardware(folder: Path, worker: WorkerContext, precision: str | None = None) -> None:
    """Write hardware.json: what the first worker runs on, and the precision that `precision: auto` chose there."""
    import psutil

    write_json(
        folder / HARDWARE_FILE,
        {
            "processor": _processor_name(),
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "gpu": _gpu_name() if worker.device_type == "cuda" else None,
            "workers": worker.workers,
            "threads": worker.threads,
            "precision": precision,
        },
    )


def _gpu_name() -> str:
    import torch

    return str(torch.cuda.get_device_name())


def read_precision(folder: Path) -> str | None:
    """Return the precision that the run in `folder` trained in; None if it did not get that far."""
    try:
        precision: str | None = read_json(folder / HARDWARE_FILE)["precision"]
    except (OSError, ValueError, KeyError):
        return None
    return precision


def list_differences(earlier_run: Path) -> list[str]:
    """Return one phrase for each difference between an earlier run's environment.json and this process."""
    try:
        earlier = read_json(earlier_run / ENVIRONMENT_FILE)
    except (OSError, ValueError):
        return ["the earlier run has no environment.json"]
    differences = []
    if earlier["python"] != platform.python_version():
        differences.append(f"Python {platform.python_version()} instead of {earlier['python']}")
    packages = installed_packages()
    for name, version in earlier["packages"].items():
        if packages.get(name) != version:
            differences.append(f"{name} {packages.get(name, 'missing')} instead of {version}")
    revision = _git_revision(Path.cwd())
    if earlier["git"] and revision and earlier["git"] != revision:
        differences.append(f"git revision {revision} instead of {earlier['git']}")
    return differences


def _git_revision(folder: Path) -> str | None:
    """Return the git revision of `folder`, with `+` appended if tracked files are modified; None outside a repository."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    revision = git("rev-parse", "HEAD")
    if not revision:
        return None
    is_modified = git("status", "--porcelain", "--untracked-files=no")
    return f"{revision}+" if is_modified else revision


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
