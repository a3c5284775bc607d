"""An endpoint in one serving process, without Ray: it answers, survives the death of that process, and ends cleanly."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.errors import ModelError, RaymillError, ResourceError
from cluster.files import write_json
from cluster.ports import free_port
from serve.engines import engine_store
from serve.engines.choose import optimize_engine
from serve.engines.selection import SelectedEngine, hardware_of
from serve.local import endpoint as local_endpoint
from serve.local.endpoint import LocalEndpoint, fits_one_process
from serve.replica_settings import build_replica_settings
from support.commands import ROOT, RunningCommand, run_raymill, still_running
from support.timing import wait_until
from trainer.registry.registry import Registry
from trainer.spec.serve import ServeSpec

TEXT = {"inputs": ["cat dog i want"]}


def create(version, lines=None, **changes):
    """Return an endpoint that is not started yet."""
    spec = ServeSpec(port=free_port(), **changes)
    settings = build_replica_settings([version], spec, [SelectedEngine("native")])
    return LocalEndpoint(version, spec, settings, (lines if lines is not None else []).append)


@pytest.fixture(scope="module")
def running_and_second(tiny_version):
    """A running endpoint, the lines that it prints, and an endpoint that bound the same port before that one listened."""
    lines = []
    spec = ServeSpec(port=free_port())
    settings = build_replica_settings([tiny_version], spec, [SelectedEngine("native")])
    endpoint, second = LocalEndpoint(tiny_version, spec, settings, lines.append), None
    try:
        second = LocalEndpoint(tiny_version, spec, settings)
        endpoint.start()
        yield endpoint, lines, second
    finally:
        endpoint.stop()
        if second:
            second.stop()


@pytest.fixture(scope="module")
def running(running_and_second):
    """The running endpoint and the lines that it prints."""
    return running_and_second[:2]


def is_refused(endpoint):
    """Return whether a connection is refused. A process whose main thread has ended may keep its sockets a moment longer."""
    try:
        predict(endpoint)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        pass
    return False


def predict(endpoint, **keywords):
    return httpx.post(f"{endpoint.url}/predict", json=TEXT, timeout=60, **keywords)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"engine": "onnx-int8", "host": "0.0.0.0", "insecure": True}, True),
        ({"replicas": 2}, False),
        ({"replicas": (1, 1)}, False),
        ({"proxy": "python"}, False),
        ({"proxy": "haproxy"}, False),
        ({"gpus_per_replica": 1}, False),
    ],
)
def test_which_endpoints_need_no_ray_serve(changes, fits):
    assert fits_one_process(ServeSpec(**changes)) is fits


def test_a_serving_process_loads_no_ray(tiny_version):
    settings = build_replica_settings([tiny_version], ServeSpec(), [SelectedEngine("native")])
    code = (
        "import sys, serve.local.server\n"
        "from serve.model.settings import ReplicaSettings\n"
        "from serve.replica import Replica\n"
        "replica = Replica(ReplicaSettings.model_validate_json(sys.argv[1]), 'r')\n"
        "assert replica.metrics.page('r') and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, settings.model_dump_json()], check=True, cwd=ROOT)


def test_it_answers_as_an_endpoint_on_ray_serve_does(running):
    endpoint, _ = running
    reply = predict(endpoint, headers={"x-request-id": "r-1"})
    assert reply.status_code == 200 and reply.json()["predictions"][0]["label"] == "animal"
    assert reply.headers["x-request-id"] == "r-1" and "server-timing" in reply.headers
    assert len(predict(endpoint).headers["x-request-id"]) == 32  # a new one
    page = httpx.get(f"{endpoint.url}/metrics", timeout=60).text
    assert f'raymill_inputs_total{{replica="{endpoint._child.pid}",model="tiny",version="1"}} 2.0' in page
    assert httpx.get(f"{endpoint.url}/readyz", timeout=60).json()["golden_rows"] == 8
    assert "ray/_raylet" not in Path(f"/proc/{endpoint._child.pid}/maps").read_text()


def test_requests_wait_while_a_killed_process_is_replaced(running):
    endpoint, lines = running
    first = endpoint._child.pid
    statuses = []

    def client():
        for _ in range(10):
            statuses.append(predict(endpoint).status_code)

    predict(endpoint)
    os.kill(first, signal.SIGKILL)
    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(120)
    assert statuses == [200] * 40
    assert endpoint._child.pid != first and lines == ["the serving process was killed by SIGKILL; starting another one"]


def test_requests_in_flight_are_answered_at_the_end(tiny_version):
    endpoint = create(tiny_version, host="::1", max_inputs=600, max_batch_size=1)  # takes a second
    endpoint.start()
    child = psutil.Process(endpoint._child.pid)
    replies = []

    def client():
        replies.append(httpx.post(f"{endpoint.url}/predict", json={"inputs": ["a good dog"] * 600}, timeout=60))

    def is_in_flight():
        page = httpx.get(f"{endpoint.url}/metrics", timeout=60).text
        return any(
            line.startswith("raymill_requests_in_flight") and line.endswith(" 1.0") for line in page.splitlines()
        )

    sending = threading.Thread(target=client)
    try:
        sending.start()
        wait_until(is_in_flight, what="the request is in flight")
    finally:
        endpoint.stop()
    sending.join(60)
    assert [reply.status_code for reply in replies] == [200] and len(replies[0].json()["predictions"]) == 600
    assert not still_running([child])
    wait_until(lambda: is_refused(endpoint), what="the port is closed")


def test_a_rejected_model_ends_the_start_with_the_reason(tiny_version, tmp_path):
    shutil.copytree(tiny_version.folder, tmp_path / "1", ignore=shutil.ignore_patterns("*.safetensors"))
    endpoint = create(tiny_version._replace(folder=tmp_path / "1"))
    with pytest.raises(ModelError, match="tiny@1 cannot be served: ") as caught:
        endpoint.start()
    assert caught.value.fix
    endpoint.stop()
    with pytest.raises(ModelError):
        endpoint.raise_failure()


def test_a_taken_port_is_reported_before_and_after_the_models_are_loaded(tiny_version, running_and_second):
    with socket.create_server(("127.0.0.1", 0)) as other:
        spec = ServeSpec(port=other.getsockname()[1])
        settings = build_replica_settings([tiny_version], spec, [SelectedEngine("native")])
        with pytest.raises(ResourceError, match="another program uses the port"):
            LocalEndpoint(tiny_version, spec, settings)
    first, _, second = running_and_second
    with pytest.raises(ResourceError, match="another program uses the port"):
        second.start()
    assert predict(first).status_code == 200


def test_a_process_that_dies_again_and_again_ends_the_endpoint(tiny_version, tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text("import os\ndef run(argument, channel):\n    os.kill(os.getpid(), 9)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(local_endpoint, "_ENTRY", "dying:run")
    monkeypatch.setattr(local_endpoint, "_PAUSE_S", 0.01)
    lines = []
    endpoint = create(tiny_version, lines)
    with pytest.raises(ResourceError, match=r"the serving process was killed by SIGKILL 5 times before it was ready"):
        endpoint.start()
    assert len(lines) == 4
    endpoint.stop()


def test_an_unexpected_error_is_reported_with_its_type(tiny_version, tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(
        "def run(argument, channel):\n    channel.send({'error': {'kind': '', 'problem': 'OSError: no', 'fix': ''}})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(local_endpoint, "_ENTRY", "failing:run")
    endpoint = create(tiny_version)
    with pytest.raises(RaymillError, match="tiny@1 could not be started: OSError: no"):
        endpoint.start()
    endpoint.stop()


def test_a_start_that_is_interrupted_leaves_no_process(tiny_version):
    endpoint = create(tiny_version)
    starting = threading.Thread(target=lambda: endpoint.start(), daemon=True)
    starting.start()
    wait_until(lambda: endpoint._child is not None)
    child = psutil.Process(endpoint._child.pid)
    endpoint.stop()
    starting.join(30)
    assert not starting.is_alive() and not still_running([child])


# -- the command


@pytest.fixture
def command(first_run, storage):
    """`raymill serve` of the champion; `url` is its address."""
    port = free_port()
    running = RunningCommand("-m", "raymill", "serve", "tiny", "--storage", storage, "--port", port)
    try:
        running.url = running.wait_for_line("listening on").split()[-1]
        yield running
    finally:
        running.terminate()


def test_ctrl_c_ends_the_command_and_a_second_one_finds_the_port_taken(command, storage):
    assert predict(command).json()["predictions"][0]["label"] == "animal"
    processes = command.descendants()
    assert len(processes) == 1 and "raymill serve tiny@1" in processes[0].cmdline()
    second = run_raymill("serve", "tiny", "--storage", storage, "--port", command.url.rpartition(":")[2])
    assert second.code == 2 and "another program uses the port" in second.stderr
    code, seconds = command.interrupt()
    assert code == 0 and seconds < 20, command.output
    assert not still_running(processes)
    assert "stopping; the same command starts the endpoint again" in command.output
    assert "ray    " not in command.output  # no stage in which Ray starts


def test_kill_9_of_the_command_leaves_nothing(command):
    processes = command.descendants()
    command.process.send_signal(signal.SIGKILL)
    command.process.wait(20)
    wait_until(lambda: not still_running(processes), what="the serving process ends")
    wait_until(lambda: is_refused(command), what="the port is closed")


def test_an_engine_is_taken_over_while_the_endpoint_answers(first_run, storage):
    """The endpoint answers with the model itself while another process chooses; then with the engine of the choice."""
    spec = ServeSpec(engine="torch-packed")
    version = Registry(storage).find("tiny@1")
    command = RunningCommand(
        *("-m", "raymill", "serve", "tiny", "--storage", storage, "--port", free_port(), "--engine", "auto-latency")
    )
    try:
        command.url = command.wait_for_line("listening on").split()[-1]
        assert predict(command).json()["model"]["engine"] == "native"
        assert "answers with the model itself while its engine is chosen" in command.output
        choosing = [process for process in command.descendants() if "raymill optimize tiny@1" in process.cmdline()]
        wait_until(lambda: choosing[0].nice() == 19, what="the process that chooses has the lowest priority")
        # That process may take minutes on a busy machine. This is the choice that it would store.
        choice = optimize_engine(version, spec, None, lambda line: None, timing_s=0.05)
        path = engine_store.choice_path(version, hardware_of(spec), "auto-latency")
        write_json(path, {**choice, "tolerance": ServeSpec().max_metric_drop})
        engines = []

        def is_taken_over():
            reply = predict(command)
            assert reply.status_code == 200
            engines.append(reply.json()["model"]["engine"])
            return engines[-1] != "native"

        wait_until(is_taken_over, within_s=120, what="the engine is taken over")
        assert engines[-1] == "torch-packed"
        assert "tiny now answers with the engine torch-packed" in command.output
        processes = command.descendants()
        code, _ = command.interrupt()
        assert code == 0 and not still_running(processes), command.output
    finally:
        command.terminate()
