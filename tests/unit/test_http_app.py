"""The HTTP side of a replica without Ray: paths, several models, errors, and clients that disconnect."""

import asyncio
import json

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


def test_a_failing_model_gives_a_500_that_names_the_request_and_no_details(served, monkeypatch):
    def fails(inputs):
        raise ValueError("secret detail")

    monkeypatch.setattr(served[0][0].loaded, "compute", fails)
    (reply,) = send(make_app(served), ("POST", "/predict", {"json": TEXT, "headers": {"x-request-id": "r-1"}}))
    assert reply.status_code == 500 and "r-1" in reply.text and "secret" not in reply.text
    assert 'status="500"' in served[1].text()


def test_a_request_that_times_out_gets_504_and_leaves_the_queue(served, monkeypatch):
    import threading

    gate = threading.Event()
    real = served[0][0].loaded.compute
    monkeypatch.setattr(served[0][0].loaded, "compute", lambda inputs: gate.wait(20) and real(inputs))
    try:
        (reply,) = send(make_app(served, timeout_s=0.2), ("POST", "/predict", {"json": TEXT}))
    finally:
        gate.set()
    assert reply.status_code == 504
    wait_until(lambda: served[0][0].waiting == 0)


def test_a_client_that_disconnects_leaves_the_queue(served, monkeypatch):
    import threading

    gate = threading.Event()
    real = served[0][0].loaded.compute
    monkeypatch.setattr(served[0][0].loaded, "compute", lambda inputs: gate.wait(20) and real(inputs))
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
