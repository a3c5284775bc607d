"""The HTTP side of a replica without Ray: paths, several models, errors, and clients that disconnect."""

import asyncio
import json
import threading

import httpx
import pytest

from serve.asgi.access_log import AccessLog
from serve.asgi.app import HttpApp
from serve.asgi.auth import ApiKeyAuth
from serve.model.metrics import ReplicaMetrics
from serve.model.served_model import ServedModel
from serve.model.settings import ModelSettings
from support.timing import wait_until

TEXT = {"inputs": ["cat dog i want"]}


@pytest.fixture(scope="module")
def served(tiny_version):
    metrics = ReplicaMetrics()
    settings = {"version": tiny_version.number, "folder": str(tiny_version.folder), "max_inputs": 10}
    models = [ServedModel(ModelSettings(name="tiny", **settings), metrics)]
    models.append(ServedModel(ModelSettings(name="tiny", **settings), metrics))
    models[1].identity["name"] = "other"
    yield models, metrics
    for model in models:
        model.close()


def make_app(served, **changes):
    models, metrics = served

    async def page():
        return metrics.text()

    return HttpApp(models, **{"auth": ApiKeyAuth([]), "timeout_s": 20, "metrics_page": page, **changes})


def send(app, *requests):
    """Send requests (method, path, keywords) in turn; return the responses."""

    async def send_all():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return [await client.request(method, path, **keywords) for method, path, keywords in requests]

    return asyncio.run(send_all())


def test_each_model_answers_under_its_name_and_the_first_by_default(served):
    replies = send(
        make_app(served), ("POST", "/predict", {"json": TEXT}), ("POST", "/predict?model=other", {"json": TEXT}),
        ("POST", "/models/other/predict", {"json": TEXT}), ("POST", "/predict?model=othr", {"json": TEXT}),
        ("POST", "/models/nobody/predict", {"json": TEXT}), ("GET", "/v2/models/other", {}), ("GET", "/readyz", {}),
    )  # fmt: skip
    assert [reply.status_code for reply in replies] == [200, 200, 200, 404, 404, 200, 200]
    assert [reply.json()["model"]["name"] for reply in replies[:3]] == ["tiny", "other", "other"]
    assert [reply.json()["predictions"][0]["label"] for reply in replies[:3]] == ["animal"] * 3
    assert "did you mean 'other'" in replies[3].json()["error"]["message"]
    assert [model["name"] for model in replies[6].json()["models"]] == ["tiny", "other"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 200), ("HEAD", "/healthz", 200), ("GET", "/docs", 200), ("GET", "/openapi.json", 200), ("GET", "/v2", 200),
     ("GET", "/v2/models/tiny/versions/1/ready", 200), ("GET", "/v2/models/tiny/versions/2", 404), ("GET", "/v2/models", 404),
     ("GET", "/v2/models/tiny/nothing", 404), ("GET", "/models", 404), ("GET", "/models/tiny", 404), ("PUT", "/", 405),
     ("GET", "/models/tiny/predict", 405), ("POST", "/v2/models/tiny", 405), ("GET", "/%0d%0ax: y", 404)],
)  # fmt: skip
def test_paths(served, method, path, status):
    (reply,) = send(make_app(served), (method, path, {}))
    assert reply.status_code == status, reply.text[:200]


def test_slashes_methods_and_repeated_words(served):
    header = {"headers": [("content-type", "text/plain"), ("content-type", "application/json")]}
    replies = send(
        make_app(served), ("POST", "/models//other/predict//", {"json": TEXT}), ("GET", "/docs/", {}), ("OPTIONS", "/predict/", {}),
        ("OPTIONS", "/nothing", {}), ("POST", "/predict?model=tiny&model=other", {"json": TEXT}),
        ("POST", "/predict?model=tiny&model=tiny", {"json": TEXT}), ("POST", "/predict", {"json": TEXT, **header}),
    )  # fmt: skip
    assert [reply.status_code for reply in replies] == [200, 200, 204, 404, 400, 200, 400]
    assert replies[0].json()["model"]["name"] == "other" and '<base href="../">' in replies[1].text
    assert replies[2].headers["allow"] == "OPTIONS, POST"
    assert [replies[index].json()["error"]["code"] for index in (4, 6)] == ["repeated_parameter", "repeated_header"]


@pytest.mark.parametrize(
    ("origins", "origin", "status", "allowed"),
    [
        ([], "https://a.example", 403, None),
        (["https://a.example"], "https://A.example", 204, "https://A.example"),
        (["https://a.example"], "https://b.example", 403, None),
        (["https://a.example"], "http://a.example", 403, None),
        (["*"], "https://b.example", 204, "*"),
        (["*"], "null", 204, "*"),
    ],
)
def test_pages_of_other_origins(served, origins, origin, status, allowed):
    app = make_app(served, cors_origins=origins, auth=ApiKeyAuth([{"name": "a", "sha256": "0" * 64, "rate": None}]))
    asks = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    preflight, denied, page = send(
        app, ("OPTIONS", "/predict", {"headers": asks}), ("POST", "/predict", {"json": TEXT, "headers": {"origin": origin}}),
        ("GET", "/healthz", {}),
    )  # fmt: skip
    assert preflight.status_code == status and preflight.headers.get("access-control-allow-origin") == allowed
    assert denied.status_code == 401 and denied.headers.get("access-control-allow-origin") == allowed
    assert ("vary" in denied.headers) is (origins == ["https://a.example"])
    assert page.status_code == 200 and "access-control-allow-origin" not in page.headers


@pytest.fixture
def gate(served, monkeypatch):
    """An event; the first model computes nothing until it is set."""
    gate = threading.Event()
    real = served[0][0].loaded.compute
    monkeypatch.setattr(served[0][0].loaded, "compute", lambda inputs: gate.wait(20) and real(inputs))
    return gate


@pytest.mark.slow
def test_an_endpoint_that_stops_answers_what_it_has_and_refuses_what_is_new(served, gate):
    app = make_app(served)

    async def stop():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            ready = await client.get("/readyz")
            first = asyncio.create_task(client.post("/predict", json=TEXT))
            while not served[0][0].waiting:
                await asyncio.sleep(0.01)
            app.drain()
            not_ready = [await client.get(path) for path in ("/readyz", "/v2/health/ready", "/healthz")]
            while (late := await client.post("/models/other/predict", json=TEXT)).status_code == 200:
                await asyncio.sleep(0.05)
            assert app.n_active == 1
            app.give_up()
            replies = [ready, *not_ready, late, await first]
            gate.set()
            return replies

    replies = asyncio.run(stop())
    assert [reply.status_code for reply in replies] == [200, 503, 503, 200, 503, 503]
    assert replies[5].json()["error"]["code"] == "shutting_down" and replies[5].headers["connection"] == "close"
    wait_until(lambda: served[0][0].waiting == 0)


def test_a_body_that_comes_too_slowly_gets_408(served):
    async def slow_body():
        yield b'{"inputs": '
        await asyncio.sleep(10)

    (reply,) = send(make_app(served, client_timeout_s=0.2), ("POST", "/predict", {"content": slow_body()}))
    assert reply.status_code == 408 and reply.json()["error"]["code"] == "slow_request"


def test_a_failing_model_gives_a_500_that_names_the_request_and_no_details(served, monkeypatch):
    def fails(inputs):
        raise ValueError("secret detail")

    monkeypatch.setattr(served[0][0].loaded, "compute", fails)
    (reply,) = send(make_app(served), ("POST", "/predict", {"json": TEXT, "headers": {"x-request-id": "r-1"}}))
    assert reply.status_code == 500 and "r-1" in reply.text and "secret" not in reply.text
    assert 'status="500"' in served[1].text()


def test_a_request_that_times_out_gets_504_and_leaves_the_queue(served, gate):
    try:
        (reply,) = send(make_app(served, timeout_s=0.2), ("POST", "/predict", {"json": TEXT}))
    finally:
        gate.set()
    assert reply.status_code == 504
    wait_until(lambda: served[0][0].waiting == 0)


def test_a_client_that_disconnects_leaves_the_queue(served, gate):
    app = make_app(served)

    async def hang_up():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            first = asyncio.create_task(client.post("/predict", json=TEXT))
            while not served[0][0].waiting:
                await asyncio.sleep(0.01)
            second = asyncio.create_task(client.post("/predict", json={"inputs": ["cat"] * 10}))
            while served[0][0].waiting < 11:
                await asyncio.sleep(0.01)
            second.cancel()
            gate.set()
            return (await first).status_code, await asyncio.gather(second, return_exceptions=True)

    status, (gone,) = asyncio.run(hang_up())
    assert status == 200 and isinstance(gone, asyncio.CancelledError)
    wait_until(lambda: served[0][0].waiting == 0)
    assert 'reason="client_gone",status="499"' in served[1].text()


def test_the_access_log_has_a_line_per_request_and_bodies_only_on_request(served, tmp_path):
    for bodies in (False, True):
        app = make_app(served, access_log=AccessLog(tmp_path, f"r{bodies}", bodies=bodies))
        send(
            app,
            ("POST", "/predict", {"json": TEXT}),
            ("POST", "/predict", {"content": b"\xff"}),
            ("GET", "/nothing", {}),
        )
        path = tmp_path / f"access-r{bodies}.jsonl"
        wait_until(lambda path=path: path.is_file() and len(path.read_bytes().splitlines()) == 3)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["status"] for line in lines] == [200, 400, 404]
        assert [line["reason"] for line in lines] == ["ok", "invalid_utf8", "not_found"]
        assert ("body" in lines[0]) is bodies and lines[0]["tokens"] > 3 and lines[0]["inference_ms"] > 0
