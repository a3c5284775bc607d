"""This machine's cores and memory, within the limits that apply to this process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
# Version 1 of control groups writes a number of about this size for "no limit".
_NO_LIMIT = 1 << 60


def count_cores(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Return the number of cores that this process may use: its affinity, or the limit of its container if lower.

    `cgroup` is the folder with the limits of Linux's control groups, in version 1 or 2. `membership` is the file that
    says in which of them this process is.
    """
    limits = [float(_available_cores())]
    for folder in _groups(cgroup, membership, "cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()  # "max" means no limit
            limits.append(float(quota) / float(period))
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota_us = _read_number(folder / "cpu.cfs_quota_us")  # -1 means no limit
            if quota_us > 0:
                limits.append(quota_us / _read_number(folder / "cpu.cfs_period_us"))
    return max(1, int(min(limits)))


def available_memory(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Return how many bytes of memory this process may still use: the machine's, or its container's if that is less.

    Memory that holds cached files counts as available.
    """
    import psutil

    limits = [int(psutil.virtual_memory().available)]
    for folder in _groups(cgroup, membership, "memory"):
        for limit, usage, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError):
                total = _read_number(folder / limit)  # "max" is no number
                if total < _NO_LIMIT:
                    used = _read_number(folder / usage) - _read_field(folder / "memory.stat", cached)
                    limits.append(max(0, total - max(0, used)))
    return min(limits)


def memory_limit(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Return how many bytes of memory all processes here may use together: the machine's, or its container's."""
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for folder in _groups(cgroup, membership, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                limits.append(_read_number(folder / name))  # "max" is no number, and version 1 has a huge one
    return min(limits)


def _groups(cgroup: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's groups that limit `controller`, and of those that they are in."""
    paths = {("", ""), (controller, "")}  # a container sees its own group as the root
    with contextlib.suppress(OSError):
        for line in membership.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            _, controllers, path = (*line.split(":", 2), "", "")[:3]
            if not controllers:
                paths.add(("", path.strip("/")))
            elif controller in controllers.split(","):
                paths.add((controller, path.strip("/")))
    for name, path in sorted(paths):
        group = cgroup / name / path
        while group.is_relative_to(cgroup / name):
            yield group
            group = group.parent


def _read_number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _read_field(path: Path, name: str) -> int:
    """Return a number of a file with lines `name number`; 0 if there is none."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            field, _, value = line.partition(" ")
            if field == name:
                return int(value)
    return 0


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux; it includes a container's cpuset
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
