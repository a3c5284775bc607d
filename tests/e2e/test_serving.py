"""An endpoint with keys, limits, protocols and pages, and its behavior under load and failures."""

import asyncio
import contextlib
import json
import random
import re
import signal
import socket
import time
from pathlib import Path

import httpx
import psutil
import pytest

from cluster.ports import free_port
from cluster.processes import end_processes
from support.commands import RunningCommand, run_raymill, still_running
from support.timing import wait_until

TEXT = {"inputs": ["my good dog"]}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The file of keys and two keys: one without a limit, one with a limit of four requests a second."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    added = [
        run_raymill("keys", "add", "team", "--file", path),
        run_raymill("keys", "add", "slow", "--file", path, "--rate", 4),
    ]
    assert all(done.code == 0 for done in added), added
    return path, *[done.stdout.strip() for done in added]


@pytest.fixture(scope="module")
def server(first_run, storage, keys):
    """An endpoint with two replicas, keys, and retries on another replica."""
    port = free_port()
    running = RunningCommand(
        "-m", "raymill", "serve", "tiny@champion", "--storage", storage, "--port", port, "--replicas", 2,
        "--keys", keys[0], "--set", "serve.retries=1", "--set", "serve.max_queued=400",
        "--set", "serve.access_log=true", "--set", "serve.overlong=reject", "--set", "serve.timeout_s=20",
    )  # fmt: skip
    try:
        running.url = running.wait_for_line("listening on").split()[-1]
        yield running
    finally:
        running.terminate()


@pytest.fixture
def client(server, keys):
    headers = {"authorization": f"Bearer {keys[1]}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


def test_requests_without_a_key_and_above_the_rate_limit_are_rejected(server, keys, client):
    with httpx.Client(base_url=server.url, timeout=60) as without_key:
        for path in ("/healthz", "/v2/health/ready", "/"):  # the page has its own field for the key
            assert without_key.get(path).status_code == 200
        for path in ("/predict", "/v2/models/tiny/infer"):
            reply = without_key.post(path, json=TEXT)
            assert reply.status_code == 401 and "API key" in str(reply.json()["error"])
        assert without_key.get("/metrics").status_code == 401
        reply = without_key.post("/predict", json=TEXT, headers={"x-api-key": "rm_wrong"})
        assert reply.json()["error"]["code"] == "unknown_key"
        replies = [without_key.post("/predict", json=TEXT, headers={"x-api-key": keys[2]}) for _ in range(12)]
    statuses = [reply.status_code for reply in replies]
    assert statuses[0] == 200 and statuses.count(429) >= 3
    assert int(replies[statuses.index(429)].headers["retry-after"]) >= 1
    assert client.post("/predict", json=TEXT).status_code == 200
    assert keys[1] not in server.output


def test_ids_and_times_are_in_the_answer_and_in_the_log(server, client, storage):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"x-request-id": "mine-1", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    reply = client.post("/predict", json=TEXT, headers=headers)
    assert reply.headers["x-request-id"] == "mine-1"
    assert reply.headers["traceparent"].split("-")[1] == trace
    stages = dict(part.split(";dur=") for part in reply.headers["server-timing"].split(", "))
    assert set(stages) == {"queue", "preprocess", "inference", "total"}

    def log_entries():
        logs = Path(storage).glob("runs/*-serve-*/access-*.jsonl")
        entries = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
        return [entry for entry in entries if entry["request_id"] == "mine-1"]

    wait_until(log_entries, what="the request is in the access log")
    line = log_entries()[-1]
    assert line["trace_id"] == trace and line["status"] == 200 and line["key"] == "team" and line["inputs"] == 1
    assert "body" not in line  # logged only if the spec says so


def test_a_text_that_is_too_long_is_rejected_if_the_spec_says_so(client):
    reply = client.post("/predict", json={"inputs": ["dog", "dog " * 500]})
    assert reply.status_code == 422 and reply.json()["error"]["code"] == "too_long"
    assert "inputs[1] has 502 tokens" in reply.json()["error"]["message"]


def test_the_open_inference_protocol_with_tritons_client(server, client, keys):
    tritonclient = pytest.importorskip("tritonclient.http")
    import numpy as np

    headers = {"authorization": f"Bearer {keys[1]}"}
    triton = tritonclient.InferenceServerClient(server.url.removeprefix("http://"))
    assert triton.is_server_live() and triton.is_server_ready()
    assert triton.is_model_ready("tiny", headers=headers)
    metadata = triton.get_model_metadata("tiny", headers=headers)
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    texts = np.array(["my good dog", "a saw and a drill"], dtype=object)
    plain = client.post("/predict", json={"inputs": texts.tolist()}).json()["predictions"]
    for binary in (True, False):
        tensor = tritonclient.InferInput("text", [2], "BYTES")
        tensor.set_data_from_numpy(texts, binary_data=binary)
        result = triton.infer("tiny", [tensor], request_id="7", model_version="1", headers={**headers})
        assert result.get_response()["id"] == "7"
        labels = [value.decode() if isinstance(value, bytes) else value for value in result.as_numpy("label")]
        assert labels == [answer["label"] for answer in plain]
        assert result.as_numpy("score").tolist() == pytest.approx([answer["score"] for answer in plain], abs=1e-4)
    wrong = client.post(
        "/v2/models/tiny/infer", json={"inputs": [{"name": "txt", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}
    )
    assert wrong.status_code == 422 and "did you mean 'text'" in wrong.json()["error"]
    assert client.get("/v2/models/tiny/versions/9").status_code == 404


# -- under load


async def load(url, key, per_s, seconds, meanwhile=None, inputs=("my good dog",)):
    """Send `per_s` requests a second, and call `meanwhile` after a third of them.

    Returns (status or error, seconds) of each request.
    """
    results = []
    headers = {"x-api-key": key}

    async def send(session):
        started = time.perf_counter()
        try:
            reply = await session.post("/predict", json={"inputs": list(inputs)}, headers=headers)
            results.append((reply.status_code, time.perf_counter() - started))
        except httpx.HTTPError as error:
            results.append((f"{type(error).__name__}: {error}", time.perf_counter() - started))

    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as session:
        running = []
        started = time.perf_counter()
        n_requests = int(per_s * seconds)
        for number in range(n_requests):
            await asyncio.sleep(max(0.0, started + number / per_s - time.perf_counter()))
            running.append(asyncio.create_task(send(session)))
            if meanwhile is not None and number == n_requests // 3:
                meanwhile()
        await asyncio.gather(*running)
    return results


def test_a_single_client_is_answered_by_one_replica(server, client):
    """If both replicas are idle, the first one always answers: its weights are in the CPU cache."""

    def inputs_by_replica():
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("raymill_inputs_total{")]
        return {re.search(r'replica="(\w+)"', line)[1]: float(line.split()[-1]) for line in lines}

    before = inputs_by_replica()
    for _ in range(20):
        assert client.post("/predict", json=TEXT).status_code == 200
    more = {replica: count - before.get(replica, 0) for replica, count in inputs_by_replica().items()}
    assert sum(more.values()) == 20 and max(more.values()) > 15, more


def test_no_request_fails_when_a_replica_is_killed(server, keys):
    """`kill -9` of one of two replicas under load, with serve.retries: 1."""
    before = server.processes("ray::ServeReplica")
    assert len(before) == 2
    results = asyncio.run(load(server.url, keys[1], 100, 6, lambda: before[0].send_signal(signal.SIGKILL)))
    failed = [status for status, _ in results if status != 200]
    assert len(results) == 600 and not failed, failed
    wait_until(lambda: len(server.processes("ray::ServeReplica")) == 2, within_s=240, what="a new replica")
    ready = lambda: total(server, keys[1], "raymill_replicas") == 2  # noqa: E731
    wait_until(ready, within_s=240, what="both replicas answer")


def total(server, key, name):
    page = httpx.get(f"{server.url}/metrics", headers={"x-api-key": key}, timeout=30).text
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name + "{"))


def test_overload_is_rejected_at_once_and_accepted_requests_are_answered(server, keys):
    results = asyncio.run(load(server.url, keys[1], 60, 2, inputs=["dog and cat"] * 200))
    statuses = [status for status, _ in results]
    assert set(statuses) == {200, 429}, set(statuses)
    rejected = sorted(seconds for status, seconds in results if status == 429)
    answered = sorted(seconds for status, seconds in results if status == 200)
    assert rejected[len(rejected) // 2] < answered[len(answered) // 2]
    assert httpx.post(f"{server.url}/predict", json=TEXT, headers={"x-api-key": keys[1]}, timeout=30).status_code == 200


def test_slow_and_half_open_clients_do_not_delay_others(server, keys):
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nx-api-key: {keys[1]}\r\ncontent-type: application/json\r\n"
    connections = [socket.create_connection((host, int(port))) for _ in range(60)]
    try:
        for number, connection in enumerate(connections):
            connection.sendall((head + "content-length: 100\r\n\r\n{" if number % 2 else head).encode())
        results = asyncio.run(load(server.url, keys[1], 50, 2))
        assert {status for status, _ in results} == {200}
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: total(server, keys[1], "raymill_requests_in_flight") == 0, what="nothing is left in flight")


def test_random_bodies_are_never_a_server_error(server, client):
    """2,000 bodies, made from valid ones by random edits."""
    generator = random.Random(7)
    valid = [json.dumps(TEXT).encode(), json.dumps({"inputs": ["a", "b c"]}).encode(),
             json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["dog"]}]}).encode()]  # fmt: skip
    statuses = {}
    for number in range(2000):
        body = bytearray(generator.choice(valid))
        for _ in range(generator.randint(0, 5)):
            index = generator.randrange(len(body) + 1)
            edit = generator.random()
            if edit < 0.4 and index < len(body):
                body[index] = generator.randrange(256)
            elif edit < 0.7:
                del body[index : index + generator.randint(1, 8)]
            else:
                body[index:index] = generator.choice(
                    [b'"', b"[", b"{}", b"null", b"1e999", b"\\u0000", b"\xff", b"," * 9]
                )
        path = ["/predict", "/v2/models/tiny/infer"][number % 2]
        kind = generator.choice(["application/json", "text/plain", "", "multipart/form-data"])
        reply = client.post(path, content=bytes(body), headers={"content-type": kind})
        statuses[reply.status_code] = statuses.get(reply.status_code, 0) + 1
    assert set(statuses) <= {200, 400, 413, 422}, statuses
    assert statuses[200] > 100 and statuses[400] > 100


def test_it_listens_on_loopback_only_and_ends_with_the_command(first_run, storage):
    """HAProxy listens on loopback only, and ends when the command is killed with kill -9."""
    command = ["serve", "tiny", "--storage", storage, "--port", free_port(), "--set", "serve.proxy=haproxy"]
    running = RunningCommand("-m", "raymill", *command)
    descendants = []
    try:
        running.wait_for_line("listening on")
        descendants = running.descendants()
        proxies = running.processes("haproxy")
        listening = []
        for process in proxies:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has handed over to a newer process
                connections = process.net_connections("inet")
                listening += [
                    connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN
                ]
        assert set(listening) == {"127.0.0.1"}
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(timeout=60)
        wait_until(lambda: not still_running(proxies), what="HAProxy ends with it")
    finally:
        running.terminate()
        end_processes([process for process in descendants if process.is_running()])


def test_sigterm_answers_what_was_accepted_and_refuses_what_is_new(server, keys):
    """The last test with `server`, because it ends it."""
    headers = {"x-api-key": keys[1]}

    async def stop_under_load():
        async with httpx.AsyncClient(base_url=server.url, timeout=120, headers=headers) as session:
            inputs = {"inputs": ["dog and cat " * 8] * 100}
            accepted = [asyncio.create_task(session.post("/predict", json=inputs)) for _ in range(4)]
            while total(server, keys[1], "raymill_requests_in_flight") < 4 and not all(
                map(asyncio.Task.done, accepted)
            ):
                await asyncio.sleep(0.05)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait_for_line, "stopping")
            late = []
            while server.process.poll() is None and 503 not in late:
                with contextlib.suppress(httpx.TransportError):  # refused, once HAProxy has ended
                    late.append((await session.get("/readyz")).status_code)
                await asyncio.sleep(0.1)
            return [(await task).status_code for task in accepted], late

    statuses, late = asyncio.run(stop_under_load())
    assert statuses == [200] * 4 and set(late) <= {200, 503}
    assert server.process.wait(60) == 0
