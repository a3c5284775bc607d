"""What a run was made with: versions, code, machine. Written to its folder, so that a repetition can be compared."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from cluster.files import read_json, write_json
from trainer.optim.distributed.worker_context import Place

FILE = "environment.json"
#: Of the workers: which processor, how many threads, which GPU.
HARDWARE = "hardware.json"


def write(folder: Path) -> None:
    """Write environment.json: every installed package, Python, the code's revision, the command."""
    write_json(
        folder / FILE,
        {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "python": platform.python_version(),
            "system": platform.platform(),
            "git": _revision(Path.cwd()),
            "packages": packages(),
        },
    )


def packages() -> dict[str, str]:
    """Return the version of every installed package."""
    found = {str(each.metadata["Name"]).lower(): each.version for each in distributions() if each.metadata["Name"]}
    return dict(sorted(found.items()))


def write_hardware(folder: Path, place: Place, precision: str | None = None) -> None:
    """Write hardware.json: what the first worker runs on, and what `precision: auto` came to on it."""
    import psutil
    import torch

    gpu = torch.cuda.get_device_name() if place.device_type == "cuda" else None
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": gpu,
        "workers": place.workers,
        "threads": place.threads,
        "precision": precision,
    }
    write_json(folder / HARDWARE, found)


def precision_of(folder: Path) -> str | None:
    """Return what the run in `folder` multiplied its matrices in; None where it did not come to that."""
    try:
        found: str | None = read_json(folder / HARDWARE)["precision"]
    except (OSError, ValueError, KeyError):
        return None
    return found


def differences(before: Path) -> list[str]:
    """Return in a few words each what is another one here than in the environment.json of an earlier run."""
    try:
        old = read_json(before / FILE)
    except (OSError, ValueError):
        return ["the earlier run has no environment.json"]
    now = packages()
    found = []
    if old["python"] != platform.python_version():
        found.append(f"Python {platform.python_version()} instead of {old['python']}")
    for name, version in old["packages"].items():
        if now.get(name) != version:
            found.append(f"{name} {now.get(name, 'missing')} instead of {version}")
    git = _revision(Path.cwd())
    if old["git"] and git and old["git"] != git:
        found.append(f"git revision {git} instead of {old['git']}")
    return found


def _revision(folder: Path) -> str | None:
    """Return the git revision of the working directory, `+` after it where files differ; None outside of a repository."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    revision = git("rev-parse", "HEAD")
    return f"{revision}{'+' if git('status', '--porcelain', '--untracked-files=no') else ''}" if revision else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
