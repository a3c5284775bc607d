"""A lock is held by one process; what prevents it is named."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

import raymill
from cluster.errors import ResourceError, SpecError
from cluster.locks import file_lock
from trainer.runs.folder import lock_pipeline

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "lock"
    code = (
        f"from cluster.locks import file_lock\nfrom pathlib import Path\nwith file_lock(Path({str(path)!r}), 0.1): pass"
    )
    command = [sys.executable, "-c", code]
    with file_lock(path):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert f"another process has held the lock {path} for 0.1 s" in done.stderr
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(code, tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    message = f"{tmp_path} is on a file system without file locks(?s:.*)another disk"
    with pytest.raises(ResourceError, match=message), file_lock(tmp_path / "lock"):
        pass


def test_a_folder_that_cannot_be_written_is_named():
    with (
        pytest.raises(ResourceError, match="/proc/nothing/lock cannot be written"),
        file_lock(Path("/proc/nothing/lock")),
    ):
        pass


def test_all_code_locks_in_one_way():
    """`trainer/runs/folder.py` has a message of its own for a lock that is held."""
    files = [path for top in ("cluster", "raymill", "serve", "trainer", "tune") for path in (ROOT / top).rglob("*.py")]
    users = {str(path.relative_to(ROOT)) for path in files if "import FileLock" in path.read_text()}
    assert users == {"cluster/doctor.py", "cluster/locks.py", "trainer/runs/folder.py"}


@pytest.mark.slow
def test_two_runs_of_a_pipeline_never_overlap(tmp_path):
    spec = {"name": "x", "data": {"train": str(tmp_path / "missing.csv")}, "storage": str(tmp_path)}
    message = rf"process {os.getpid()} on .* \(since .*\) still works on the pipeline nightly"
    with lock_pipeline(tmp_path, "nightly"):
        with pytest.raises(ResourceError, match=message):
            raymill.run(spec, lock="nightly")
        assert not (tmp_path / "runs").exists()
        with lock_pipeline(tmp_path, "weekly"):  # another pipeline
            pass
    with pytest.raises(Exception, match="missing.csv"):  # the lock is free: the run starts
        raymill.run(spec, lock="nightly")
    with lock_pipeline(tmp_path, "nightly"):  # and the failed run has released it
        pass


@pytest.mark.slow
def test_a_killed_run_holds_no_lock(tmp_path):
    code = (
        "import time\nfrom pathlib import Path\nfrom trainer.runs.folder import lock_pipeline\n"
        f"with lock_pipeline(Path({str(tmp_path)!r}), 'nightly'):\n    print('locked', flush=True)\n    time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(ResourceError, match=f"process {holder.pid} on"), lock_pipeline(tmp_path, "nightly"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with lock_pipeline(tmp_path, "nightly", wait_s=10):
        pass


@pytest.mark.parametrize("name", ["../x", "", "a b", "Nightly"])
def test_the_name_of_a_lock_is_no_path(name, tmp_path):
    with pytest.raises(SpecError, match="is no name of a lock"), lock_pipeline(tmp_path, name):
        pass
