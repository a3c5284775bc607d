"""The number of cores, within the limits of affinity and of a container."""

import os

import pytest

from cluster.machine import count_cores


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cpu_cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 2),
        ({"cpu_max": "max 100000\n"}, 2),
        ({"cpu_max": "100000 100000\n"}, 1),
        ({"cpu_max": "50000 100000\n"}, 1),
        ({"cpu_max": "800000 100000\n"}, 2),
        ({"cpu_max": "nonsense"}, 2),
        ({"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, 2),
        ({"cpu__cpu_cfs_quota_us": "150000", "cpu__cpu_cfs_period_us": "100000"}, 1),
    ],
)
def test_the_lowest_limit_counts(files, cores, two_cores, tmp_path):
    assert count_cores(write(tmp_path, **files)) == cores


def test_this_machine():
    assert 1 <= count_cores() <= (os.cpu_count() or 1)
