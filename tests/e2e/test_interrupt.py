"""Ctrl-C, SIGTERM and kill -9: stopped in time, nothing left behind, and the same command goes on.

With the machine to itself a command ends within 5 s; beside other tests it is given more.
"""

import json
import signal
import time

import httpx
import psutil
import pytest

from cluster.connect import end_processes
from cluster.ports import free_port
from support.commands import RunningCommand, run_raymill, still_running
from support.tiny_text import tiny_spec, write_spec

ENDS_WITHIN_S, GONE_WITHIN_S = 20.0, 10.0


def wait_until_gone(processes, timeout_s):
    end = time.monotonic() + timeout_s
    while still_running(processes) and time.monotonic() < end:
        time.sleep(0.1)
    return still_running(processes)


def wait_until_training(command, tmp_path):
    end = time.monotonic() + 240
    while not list((tmp_path / "storage" / "runs").rglob("progress/train.json")):
        assert time.monotonic() < end and command.process.poll() is None, command.text
        time.sleep(0.1)


@pytest.fixture()
def long_spec(tiny_base, tiny_data, tmp_path):
    train = {"epochs": 5000, "batch_size": 16, "learning_rate": 1e-3}
    return write_spec(tmp_path / "run.yaml", tiny_spec(tiny_base, tiny_data, tmp_path / "storage", train=train))


@pytest.mark.parametrize("how", ["train", "tune"])
def test_ctrl_c_stops_soon_and_leaves_nothing(long_spec, tmp_path, how):
    words = ["-m", "raymill", how, long_spec, "--json"]
    if how == "tune":
        words += ["--set", "tune={trials: 4, scheduler: none, space: {train.learning_rate: {uniform: [0.001, 0.002]}}}"]
    command = RunningCommand(*words)
    try:
        wait_until_training(command, tmp_path)
        family = command.family()
        assert len(family) > 3
        code, seconds = command.interrupt()
        assert code == 130, command.text
        assert seconds < ENDS_WITHIN_S
        assert wait_until_gone(family, GONE_WITHIN_S) == []
        assert "stopped" in command.text and "finds rows that were prepared" in command.text
    finally:
        command.end()


def test_kill_9_of_the_driver_takes_its_work_along_and_the_next_run_works(long_spec, tmp_path):
    command = RunningCommand("-m", "raymill", "train", long_spec)
    try:
        wait_until_training(command, tmp_path)
        family = command.family()
        agents = [*command.parts("ray::DashboardAgent"), *command.parts("ray::RuntimeEnvAgent")]
        command.process.send_signal(signal.SIGKILL)
        command.process.wait(20)
        # Two of Ray's own agents look for their raylet only once a minute; they hold nothing that a next run needs.
        working = [process for process in family if process not in agents]
        assert wait_until_gone(working, ENDS_WITHIN_S) == []
        done = run_raymill("prepare", long_spec, "--set", "data.max_length=8", "--json")
        assert done.code == 0 and json.loads(done.stdout)["fingerprint"], done
    finally:
        end_processes(still_running(family))


@pytest.mark.parametrize("proxy", ["haproxy", "python"])
def test_sigterm_ends_an_endpoint_cleanly(first_run, storage, proxy):
    words = ["serve", "tiny", "--storage", storage, "--port", free_port(), "--set", f"serve.proxy={proxy}"]
    server = RunningCommand("-m", "raymill", *words)
    try:
        url = server.wait_for("listening on").split()[-1]
        assert bool(server.parts("haproxy")) == (proxy == "haproxy")
        answer = httpx.post(f"{url}/predict", json={"inputs": ["cat dog"]}, timeout=60)
        assert answer.status_code == 200 and answer.json()["predictions"][0]["label"] == "animal"
        for path in ("/healthz", "/metrics", "/v2/health/ready"):
            assert httpx.get(f"{url}{path}", timeout=60).status_code == 200
        family = server.family()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(ENDS_WITHIN_S) == 0, server.text
        assert wait_until_gone(family, GONE_WITHIN_S) == []
        assert not [p for p in psutil.process_iter() if p.pid in {f.pid for f in family} and still_running([p])]
    finally:
        server.end()
