"""`raymill submit`: more kinds of runs, how jobs end, what stays here. The short tests are in tests/e2e/test_submit.py."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from support.commands import ROOT, RunningCommand, run_raymill
from support.submit_project import make_project, version_digests
from support.tiny_table import make_table_rows, table_spec, write_rows
from support.tiny_text import write_spec


@pytest.fixture
def project(tiny_base, tiny_data, tmp_path):
    return make_project(tmp_path / "project", tiny_base, tiny_data, tmp_path / "storage")


def raymill(project, *arguments, **env):
    return run_raymill(*arguments, cwd=project, **env)


def test_a_table_gives_the_same_bytes_too(head, tmp_path):
    write_rows(tmp_path / "train.csv", make_table_rows(200, 1))
    write_rows(tmp_path / "test.csv", make_table_rows(100, 2))
    spec = table_spec(tmp_path, model={"kind": "random_forest"})
    metrics = []
    for name in ("run", "submit"):
        write_spec(tmp_path / "run.yaml", {**spec, "storage": str(tmp_path / name)})
        options = ["--address", head.jobs_url] if name == "submit" else []
        done = raymill(tmp_path, name, "run.yaml", "--json", *options)
        assert done.code == 0, done
        metrics.append(json.loads(done.stdout)["metrics"])
    assert metrics[0] == metrics[1]
    run, submitted = [version_digests(tmp_path / name, "tiny-table") for name in ("run", "submit")]
    assert "model.skops" in run and run == submitted


def test_detach_then_follow_to_the_exit_code_of_a_run_that_fails(head, project):
    (project / "data" / "train.csv").write_text("text,label\nonly one row,fruit\n")
    done = raymill(project, "submit", "run.yaml", "--address", head.jobs_url, "--detach", "--json")
    assert done.code == 0, done
    job = json.loads(done.stdout)["job"]
    followed = raymill(project, "jobs", "logs", "-f", job, "--address", head.jobs_url)
    assert followed.code == 2 and "error: " in followed.stdout and "fix: " in followed.stdout, followed
    status = json.loads(raymill(project, "jobs", "status", job, "--address", head.jobs_url, "--json").stdout)
    assert (
        status["status"] == "FAILED" and status["exit_code"] == 2 and "at least 2 classes" in status["result"]["error"]
    )


def test_a_large_file_stays_here_and_is_named(head, project):
    with (project / "raw.parquet").open("wb") as file:
        file.truncate(300_000_000)
    done = raymill(project, "submit", "run.yaml", "--address", head.jobs_url, "--detach", "--set", "train.epochs=1")
    assert done.code == 0 and "left out, over 10.0 MB: raw.parquet (300 MB)" in done.stderr, done
    for number in range(15):
        with (project / f"part-{number}.bin").open("wb") as file:
            file.truncate(9_000_000)
    done = raymill(project, "submit", "run.yaml", "--address", head.jobs_url)
    assert done.code == 2 and "to send, over 100 MB" in done.stderr and ".rayignore" in done.stderr, done


def can_unshare():
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="a mount of its own for one process needs root")
def test_a_path_of_this_machine_alone_is_refused_with_the_fix(head, project, tmp_path):
    """The command sees a folder that the cluster's processes do not."""
    mine = tmp_path / "mine"
    mine.mkdir()
    text = (project / "run.yaml").read_text().replace("data/train.csv", f"{mine}/train.csv")
    (project / "run.yaml").write_text(text)
    script = f'mount -t tmpfs tmpfs {mine} && cp data/train.csv {mine} && exec "$@"'
    command = [sys.executable, "-m", "raymill", "submit", "run.yaml", "--address", head.jobs_url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2 and f"data.train={mine}/train.csv does not exist on" in done.stderr, done
    assert "copy it to a folder that all nodes see" in done.stderr and "upload" not in done.stderr
    done = raymill(project, "submit", "run.yaml", "--address", head.jobs_url, "--storage", "/no/such/folder/here")
    assert done.code == 2 and "storage=/no/such/folder/here: neither it nor" in done.stderr, done


@pytest.fixture
def long_project(project):
    """A run that takes minutes, with a checkpoint every few steps."""
    return project, ["--set", "train.epochs=5000", "--set", "train.checkpoint={every_steps: 50, keep: 2}"]


def submit_in_terminal(project, *arguments):
    """Start `raymill submit` with a terminal, and return the process, the terminal, and what it printed so far."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "raymill", "submit", "run.yaml", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, cwd=project, env=environment)
    os.close(child)
    printed = []

    def read():
        with contextlib.suppress(OSError):
            while content := os.read(parent, 4096):
                printed.append(content.decode(errors="replace"))

    threading.Thread(target=read, daemon=True).start()
    return process, parent, printed


def test_ctrl_c_asks_and_the_next_submission_resumes_the_run(head, long_project, tmp_path):
    project, settings = long_project
    process, terminal, printed = submit_in_terminal(project, "--address", head.jobs_url, *settings)
    try:

        def wait_for(condition):
            deadline = time.monotonic() + 240
            while not (value := condition()):
                assert process.poll() is None and time.monotonic() < deadline, "".join(printed)
                time.sleep(0.1)
            return value

        checkpoints = wait_for(lambda: list((tmp_path / "storage" / "runs").glob("*/checkpoints/step-*")))
        wait_for(lambda: "epoch " in "".join(printed))  # the note of the live progress line
        process.send_signal(signal.SIGINT)
        wait_for(lambda: "stop the job (s)" in "".join(printed))
        os.write(terminal, b"s\n")
        assert process.wait(120) == 130, "".join(printed)
        assert "STOPPED" in "".join(printed)
    finally:
        process.kill()
        os.close(terminal)
    run = checkpoints[0].parents[1]
    # The rest: a few steps more than so far.
    steps = max(int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*"))
    again = RunningCommand("-m", "raymill", "submit", "run.yaml", "--address", head.jobs_url, *settings, cwd=project)
    try:
        again.wait_for_line(run.name)  # the first line of the run: its folder
        again.wait_until(
            lambda: any(int(path.name.removeprefix("step-")) > steps for path in run.glob("checkpoints/step-*")),
            "goes on",
        )
        code, _ = again.interrupt()  # no terminal: the job goes on
        assert code == 130 and "the job goes on" in again.output and "raymill jobs stop" in again.output, again.output
        done = raymill(project, "submit", "run.yaml", "--address", head.jobs_url, *settings)
        assert done.code == 2 and "runs this spec already" in done.stderr, done
    finally:
        again.terminate()
        done = raymill(project, "jobs", "stop", "last", "--address", head.jobs_url)
    assert done.code == 0 and "STOPPED" in done.stdout, done
    assert len(list((tmp_path / "storage" / "runs").iterdir())) == 1
