"""An endpoint as it is put in front of people: keys, limits, protocols, its page, and what may go wrong under load."""

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

from cluster.connect import end_processes
from cluster.ports import free_port
from support.commands import RunningCommand, run_raymill, still_running
from support.timing import wait_until

TEXT = {"inputs": ["my good dog"]}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The file of keys, and two of them: one without a limit, one that may ask four times a second."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    made = [
        run_raymill("keys", "add", name, "--file", path, *rate)
        for name, rate in (("team", []), ("slow", ["--rate", 4]))
    ]
    assert all(done.code == 0 for done in made), made
    return path, *[done.stdout.strip() for done in made]


@pytest.fixture(scope="module")
def server(first_run, storage, keys):
    """Two replicas that ask each other again, for the model under two names."""
    port = free_port()
    running = RunningCommand(
        "-m", "raymill", "serve", "tiny@champion", "--storage", storage, "--port", port, "--replicas", 2,
        "--keys", keys[0], "--set", "serve.retries=1", "--set", "serve.max_queued=400",
        "--set", "serve.access_log=true", "--set", "serve.overlong=reject", "--set", "serve.timeout_s=20",
    )  # fmt: skip
    try:
        running.url = running.wait_for("listening on").split()[-1]
        yield running
    finally:
        running.end()


@pytest.fixture
def client(server, keys):
    headers = {"authorization": f"Bearer {keys[1]}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as found:
        yield found


def test_who_has_no_key_is_not_answered_and_who_asks_too_often_waits(server, keys, client):
    with httpx.Client(base_url=server.url, timeout=60) as anybody:
        for path in ("/healthz", "/v2/health/ready", "/"):  # the page to try it by hand has a field for the key
            assert anybody.get(path).status_code == 200
        for path in ("/predict", "/v2/models/tiny/infer"):
            reply = anybody.post(path, json=TEXT)
            assert reply.status_code == 401 and "API key" in str(reply.json()["error"])
        assert anybody.get("/metrics").status_code == 401
        assert (
            anybody.post("/predict", json=TEXT, headers={"x-api-key": "rm_wrong"}).json()["error"]["code"]
            == "unknown_key"
        )
        slow = [anybody.post("/predict", json=TEXT, headers={"x-api-key": keys[2]}) for _ in range(12)]
    statuses = [reply.status_code for reply in slow]
    assert statuses[0] == 200 and statuses.count(429) >= 3
    assert int(slow[statuses.index(429)].headers["retry-after"]) >= 1
    assert client.post("/predict", json=TEXT).status_code == 200
    assert keys[1] not in server.text


def test_ids_and_times_are_in_the_answer_and_in_the_log(server, client, storage):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = {"x-request-id": "mine-1", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    reply = client.post("/predict", json=TEXT, headers=sent)
    assert reply.headers["x-request-id"] == "mine-1"
    assert reply.headers["traceparent"].split("-")[1] == trace
    stages = dict(part.split(";dur=") for part in reply.headers["server-timing"].split(", "))
    assert set(stages) == {"queue", "preprocess", "inference", "total"}
    line = {}

    def is_logged():
        for path in Path(storage).glob("runs/*-serve-*/access-*.jsonl"):
            for found in map(json.loads, path.read_text().splitlines()):
                if found["request_id"] == "mine-1":
                    line.update(found)
        return line

    wait_until(is_logged)
    assert line["trace_id"] == trace and line["status"] == 200 and line["key"] == "team" and line["inputs"] == 1
    assert "body" not in line  # only if the spec says so


def test_a_text_that_is_too_long_is_refused_where_the_spec_says_so(client):
    reply = client.post("/predict", json={"inputs": ["dog", "dog " * 500]})
    assert reply.status_code == 422 and reply.json()["error"]["code"] == "too_long"
    assert "inputs[1] has 502 tokens" in reply.json()["error"]["message"]


def test_the_open_inference_protocol_with_a_client_of_its_own(server, client, keys):
    tritonclient = pytest.importorskip("tritonclient.http")
    import numpy as np

    headers = {"authorization": f"Bearer {keys[1]}"}
    asked = tritonclient.InferenceServerClient(server.url.removeprefix("http://"))
    assert asked.is_server_live() and asked.is_server_ready()
    assert asked.is_model_ready("tiny", headers=headers)
    told = asked.get_model_metadata("tiny", headers=headers)
    assert told["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    texts = np.array(["my good dog", "a saw and a drill"], dtype=object)
    plain = client.post("/predict", json={"inputs": texts.tolist()}).json()["predictions"]
    for binary in (True, False):
        given = tritonclient.InferInput("text", [2], "BYTES")
        given.set_data_from_numpy(texts, binary_data=binary)
        found = asked.infer("tiny", [given], request_id="7", model_version="1", headers={**headers})
        assert found.get_response()["id"] == "7"
        labels = [value.decode() if isinstance(value, bytes) else value for value in found.as_numpy("label")]
        assert labels == [one["label"] for one in plain]
        assert found.as_numpy("score").tolist() == pytest.approx([one["score"] for one in plain], abs=1e-4)
    wrong = client.post(
        "/v2/models/tiny/infer", json={"inputs": [{"name": "txt", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}
    )
    assert wrong.status_code == 422 and "did you mean 'text'" in wrong.json()["error"]
    assert client.get("/v2/models/tiny/versions/9").status_code == 404


# -- under load


async def load(url, key, per_s, seconds, meanwhile=None, inputs=("my good dog",)):
    """Ask so often, whatever comes back; returns (status or error, seconds) of each request."""
    found = []
    headers = {"x-api-key": key}

    async def one(session):
        began = time.perf_counter()
        try:
            reply = await session.post("/predict", json={"inputs": list(inputs)}, headers=headers)
            found.append((reply.status_code, time.perf_counter() - began))
        except httpx.HTTPError as error:
            found.append((f"{type(error).__name__}: {error}", time.perf_counter() - began))

    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as session:
        running = []
        started = time.perf_counter()
        n_requests = int(per_s * seconds)
        for number in range(n_requests):
            await asyncio.sleep(max(0.0, started + number / per_s - time.perf_counter()))
            running.append(asyncio.create_task(one(session)))
            if meanwhile is not None and number == n_requests // 3:
                meanwhile()
        await asyncio.gather(*running)
    return found


def test_who_asks_alone_is_answered_by_one_replica(server, client):
    """Of two with nothing to do it is always the first: its weights are in the cache."""

    def answered():
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("raymill_inputs_total{")]
        return {re.search(r'replica="(\w+)"', line)[1]: float(line.split()[-1]) for line in lines}

    before = answered()
    for _ in range(20):
        assert client.post("/predict", json=TEXT).status_code == 200
    more = {replica: count - before.get(replica, 0) for replica, count in answered().items()}
    assert sum(more.values()) == 20 and max(more.values()) > 15, more


def test_no_request_fails_when_a_replica_is_killed(server, keys):
    """`kill -9` of one of two replicas under load, with serve.retries: 1."""
    before = server.parts("ray::ServeReplica")
    assert len(before) == 2
    found = asyncio.run(load(server.url, keys[1], 100, 6, lambda: before[0].send_signal(signal.SIGKILL)))
    failed = [status for status, _ in found if status != 200]
    assert len(found) == 600 and not failed, failed
    wait_until(lambda: len(server.parts("ray::ServeReplica")) == 2, within_s=60, what="a new replica")
    ready = lambda: total(server, keys[1], "raymill_replicas") == 2  # noqa: E731
    wait_until(ready, within_s=60, what="both replicas answer")


def total(server, key, name):
    page = httpx.get(f"{server.url}/metrics", headers={"x-api-key": key}, timeout=30).text
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name + "{"))


def test_overload_is_told_at_once_and_those_accepted_are_answered(server, keys):
    found = asyncio.run(load(server.url, keys[1], 60, 2, inputs=["dog and cat"] * 200))
    statuses = [status for status, _ in found]
    assert set(statuses) == {200, 429}, set(statuses)
    refused = sorted(seconds for status, seconds in found if status == 429)
    answered = sorted(seconds for status, seconds in found if status == 200)
    assert refused[len(refused) // 2] < answered[len(answered) // 2]
    assert httpx.post(f"{server.url}/predict", json=TEXT, headers={"x-api-key": keys[1]}, timeout=30).status_code == 200


def test_slow_and_half_open_clients_hold_up_nobody(server, keys):
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nx-api-key: {keys[1]}\r\ncontent-type: application/json\r\n"
    slow = [socket.create_connection((host, int(port))) for _ in range(60)]
    try:
        for number, one in enumerate(slow):
            one.sendall((head + "content-length: 100\r\n\r\n{" if number % 2 else head).encode())
        found = asyncio.run(load(server.url, keys[1], 50, 2))
        assert {status for status, _ in found} == {200}
    finally:
        for one in slow:
            one.close()
    wait_until(lambda: total(server, keys[1], "raymill_requests_in_flight") == 0, what="nothing is left in flight")


def test_whatever_is_sent_nothing_is_a_server_error(server, client):
    """2,000 bodies: valid ones that were changed at random."""
    generator = random.Random(7)
    valid = [json.dumps(TEXT).encode(), json.dumps({"inputs": ["a", "b c"]}).encode(),
             json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["dog"]}]}).encode()]  # fmt: skip
    statuses = {}
    for number in range(2000):
        body = bytearray(generator.choice(valid))
        for _ in range(generator.randint(0, 5)):
            at = generator.randrange(len(body) + 1)
            what = generator.random()
            if what < 0.4 and at < len(body):
                body[at] = generator.randrange(256)
            elif what < 0.7:
                del body[at : at + generator.randint(1, 8)]
            else:
                body[at:at] = generator.choice([b'"', b"[", b"{}", b"null", b"1e999", b"\\u0000", b"\xff", b"," * 9])
        path = ["/predict", "/v2/models/tiny/infer"][number % 2]
        kind = generator.choice(["application/json", "text/plain", "", "multipart/form-data"])
        reply = client.post(path, content=bytes(body), headers={"content-type": kind})
        statuses[reply.status_code] = statuses.get(reply.status_code, 0) + 1
    assert set(statuses) <= {200, 400, 413, 422}, statuses
    assert statuses[200] > 100 and statuses[400] > 100


def test_it_listens_on_this_machine_alone_and_ends_with_the_command(first_run, storage):
    """What listens, and what is there after kill -9 of the command."""
    running = RunningCommand("-m", "raymill", "serve", "tiny", "--storage", storage, "--port", free_port())
    family = []
    try:
        running.wait_for("listening on")
        family = running.family()
        proxies = running.parts("haproxy")
        listening = []
        for process in proxies:
            with contextlib.suppress(psutil.NoSuchProcess):  # one that another has taken over from
                listening += [
                    one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN
                ]
        assert set(listening) == {"127.0.0.1"}
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(timeout=60)
        wait_until(lambda: not still_running(proxies), what="HAProxy ends with it")
    finally:
        running.end()
        end_processes([process for process in family if process.is_running()])
