"""The number of cores, within the limits of affinity and of a container."""

import os

import pytest

from cluster.machine import available_memory, count_cores


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


@pytest.mark.parametrize(
    ("membership", "group"),
    [
        ("0::/system.slice/job.service\n", "system.slice/job.service"),
        ("0::/system.slice/job.service\n", "system.slice"),
        ("0::/a:b/c\n", "a:b"),
        ("4:cpu,cpuacct:/docker/1\n0::/\n", "cpu/docker/1"),
        ("4:cpu,cpuacct:/docker/1\n0::/\n", "cpu/docker"),
        ("4:cpu,cpuacct:/docker/1\n", "cpu"),
        ("", ""),
        ("nonsense\n", ""),
    ],
)
def test_limits_of_the_groups_that_a_process_is_in(membership, group, two_cores, tmp_path):
    (tmp_path / "own").write_text(membership)
    folder = tmp_path / "cgroup" / group
    write(folder, cpu_max="100000 100000") if not group.startswith("cpu") else write(
        folder, cpu_cfs_quota_us="100000", cpu_cfs_period_us="100000"
    )
    assert count_cores(tmp_path / "cgroup", tmp_path / "own") == 1
    assert count_cores(tmp_path / "cgroup", tmp_path / "absent") == (1 if group in ("", "cpu") else 2)


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({"memory.max": "max\n", "memory.current": "5\n"}, None),
        ({"memory.max": "1000\n", "memory.current": "400\n"}, 600),
        ({"memory.max": "1000\n", "memory.current": "400\n", "memory.stat": "anon 1\ninactive_file 300\n"}, 900),
        ({"memory.max": "1000\n", "memory.current": "1400\n"}, 0),
        ({"memory.max": "1000\n"}, None),
        ({"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "1"}, None),
        ({"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "100"}, 900),
    ],
)
def test_memory_within_the_limit_of_a_container(files, available, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    answer = available_memory(tmp_path, tmp_path / "absent")
    assert answer == available if available is not None else answer > 1_000_000
