"""This machine's cores, within the limits that apply to this process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def count_cores(cgroup: Path = _CGROUP) -> int:
    """Return the number of cores that this process may use: its affinity, or the limit of its container if lower.

    `cgroup` is the folder with the limits of Linux's control groups, in version 1 or 2.
    """
    limits = [float(_available_cores())]
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (cgroup / "cpu.max").read_text().split()  # "max" means no limit
        limits.append(float(quota) / float(period))
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota_us = float((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())  # -1 means no limit
        if quota_us > 0:
            limits.append(quota_us / float((cgroup / "cpu" / "cpu.cfs_period_us").read_text()))
    return max(1, int(min(limits)))


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux; it includes a container's cpuset
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
