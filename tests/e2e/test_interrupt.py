"""Ctrl-C, SIGTERM and kill -9: the command stops in time, leaves nothing behind, and can run again.

A command ends within 5 s on an idle machine. The limits are longer because other tests run at the same time.
"""

import json
import signal
import time

import httpx
import psutil
import pytest

from cluster.ports import free_port
from cluster.processes import end_processes
from support.commands import RunningCommand, run_raymill, still_running
from support.tiny_text import tiny_spec, write_spec

ENDS_WITHIN_S, GONE_WITHIN_S = 20.0, 10.0


def wait_until_gone(processes, timeout_s):
    """Return the processes that still run when all have ended or the time is up."""
    deadline = time.monotonic() + timeout_s
    while still_running(processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    return still_running(processes)


def wait_until_training(command, tmp_path):
    runs = tmp_path / "storage" / "runs"
    command.wait_until(lambda: list(runs.rglob("progress/train.json")), "the training starts")


@pytest.fixture()
def long_spec(tiny_base, tiny_data, tmp_path):
    train = {"epochs": 5000, "batch_size": 16, "learning_rate": 1e-3}
    return write_spec(tmp_path / "run.yaml", tiny_spec(tiny_base, tiny_data, tmp_path / "storage", train=train))


ON_RAY = ["--set", "cluster.address=local"]
SEARCH = ["--set", "tune={trials: 4, scheduler: none, space: {train.learning_rate: {uniform: [0.001, 0.002]}}}"]


@pytest.mark.parametrize(
    ("stage", "options"), [("train", []), ("train", ON_RAY), ("tune", SEARCH)], ids=["without Ray", "on Ray", "tune"]
)
def test_ctrl_c_stops_soon_and_leaves_nothing(long_spec, tmp_path, stage, options):
    command = RunningCommand("-m", "raymill", stage, long_spec, "--json", *options)
    try:
        wait_until_training(command, tmp_path)
        processes = command.descendants()
        assert len(processes) > 3 if options else not processes
        code, seconds = command.interrupt()
        assert code == 130, command.output
        assert seconds < ENDS_WITHIN_S
        assert wait_until_gone(processes, GONE_WITHIN_S) == []
        assert "has stopped" in command.output and "Prepared rows are kept" in command.output
    finally:
        command.terminate()


def test_ctrl_c_in_python_stops_the_training_of_this_process(long_spec, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import threading, time
import raymill
try:
    raymill.train({str(long_spec)!r})
except KeyboardInterrupt:
    deadline = time.monotonic() + {ENDS_WITHIN_S}
    while any("raymill-work" in thread.name for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.1)
    print("left:", [thread.name for thread in threading.enumerate() if "raymill-work" in thread.name], flush=True)
"""
    )
    command = RunningCommand(str(program))
    try:
        wait_until_training(command, tmp_path)
        command.interrupt()
        assert "left: []" in command.output
    finally:
        command.terminate()


def test_kill_9_of_the_driver_ends_its_workers_and_the_next_run_works(long_spec, tmp_path):
    command = RunningCommand("-m", "raymill", "train", long_spec, *ON_RAY)
    try:
        wait_until_training(command, tmp_path)
        processes = command.descendants()
        agents = [*command.processes("ray::DashboardAgent"), *command.processes("ray::RuntimeEnvAgent")]
        command.process.send_signal(signal.SIGKILL)
        command.process.wait(20)
        # Two of Ray's agents check only once a minute whether their raylet is gone. The next run does not need them to end.
        workers = [process for process in processes if process not in agents]
        assert wait_until_gone(workers, ENDS_WITHIN_S) == []
        done = run_raymill("prepare", long_spec, "--set", "data.max_length=8", "--json")
        assert done.code == 0 and json.loads(done.stdout)["fingerprint"], done
    finally:
        end_processes(still_running(processes))


@pytest.mark.parametrize("proxy", ["haproxy", "python"])
def test_sigterm_ends_an_endpoint_cleanly(first_run, storage, proxy):
    arguments = ["serve", "tiny", "--storage", storage, "--port", free_port(), "--set", f"serve.proxy={proxy}"]
    server = RunningCommand("-m", "raymill", *arguments)
    try:
        url = server.wait_for_line("listening on").split()[-1]
        assert bool(server.processes("haproxy")) == (proxy == "haproxy")
        answer = httpx.post(f"{url}/predict", json={"inputs": ["cat dog"]}, timeout=60)
        assert answer.status_code == 200 and answer.json()["predictions"][0]["label"] == "animal"
        for path in ("/healthz", "/metrics", "/v2/health/ready"):
            assert httpx.get(f"{url}{path}", timeout=60).status_code == 200
        processes = server.descendants()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(ENDS_WITHIN_S) == 0, server.output
        assert wait_until_gone(processes, GONE_WITHIN_S) == []
        pids = {process.pid for process in processes}
        assert not still_running([process for process in psutil.process_iter() if process.pid in pids])
    finally:
        server.terminate()
