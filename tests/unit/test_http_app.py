"""The HTTP side of a replica without Ray around it: paths, several models, what fails, who hangs up."""

import asyncio
import json

import httpx
import pytest

from serve.asgi.access_log import AccessLog
from serve.asgi.app import HttpApp
from serve.asgi.auth import Guard
from serve.model.metrics import ReplicaMetrics
from serve.model.served_model import ModelSettings, Served
from support.timing import wait_until

TEXT = {"inputs": ["cat dog i want"]}


@pytest.fixture(scope="module")
def served(tiny_version):
    metrics = ReplicaMetrics()
    told = {"version": tiny_version.number, "folder": str(tiny_version.folder), "max_inputs": 10}
    models = [Served(ModelSettings(name="tiny", **told), metrics)]
    models.append(Served(ModelSettings(name="tiny", **told), metrics))
    models[1].model["name"] = "other"
    yield models, metrics
    for one in models:
        one.batcher.close()


def app_of(served, **changes):
    models, metrics = served

    async def page():
        return metrics.text()

    return HttpApp(models, **{"guard": Guard([]), "timeout_s": 20, "metrics_page": page, **changes})


def ask(app, *requests):
    """Send requests (method, path, keywords) in turn; returns the answers."""

    async def all_of_them():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return [await client.request(method, path, **how) for method, path, how in requests]

    return asyncio.run(all_of_them())


def test_each_model_answers_under_its_name_and_the_first_without_one(served):
    replies = ask(
        app_of(served), ("POST", "/predict", {"json": TEXT}), ("POST", "/predict?model=other", {"json": TEXT}),
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
    (reply,) = ask(app_of(served), (method, path, {}))
    assert reply.status_code == status, reply.text[:200]


def test_a_model_that_fails_is_a_500_that_names_the_request_and_says_nothing_else(served, monkeypatch):
    def fails(inputs):
        raise ValueError("secret of the inside")

    monkeypatch.setattr(served[0][0], "compute", fails)
    (reply,) = ask(app_of(served), ("POST", "/predict", {"json": TEXT, "headers": {"x-request-id": "r-1"}}))
    assert reply.status_code == 500 and "r-1" in reply.text and "secret" not in reply.text
    assert 'status="500"' in served[1].text()


def test_who_waits_too_long_is_told_and_leaves_the_batches(served, monkeypatch):
    import threading

    gate = threading.Event()
    real = served[0][0].compute
    monkeypatch.setattr(served[0][0], "compute", lambda inputs: gate.wait(20) and real(inputs))
    try:
        (reply,) = ask(app_of(served, timeout_s=0.2), ("POST", "/predict", {"json": TEXT}))
    finally:
        gate.set()
    assert reply.status_code == 504
    wait_until(lambda: served[0][0].batcher.waiting == 0)


def test_who_hangs_up_leaves_the_batches(served, monkeypatch):
    import threading

    gate = threading.Event()
    real = served[0][0].compute
    monkeypatch.setattr(served[0][0], "compute", lambda inputs: gate.wait(20) and real(inputs))
    app = app_of(served)

    async def hang_up():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            first = asyncio.create_task(client.post("/predict", json=TEXT))
            while not served[0][0].batcher.waiting:
                await asyncio.sleep(0.01)
            second = asyncio.create_task(client.post("/predict", json={"inputs": ["cat"] * 10}))
            while served[0][0].batcher.waiting < 11:
                await asyncio.sleep(0.01)
            second.cancel()
            gate.set()
            return (await first).status_code, await asyncio.gather(second, return_exceptions=True)

    status, (gone,) = asyncio.run(hang_up())
    assert status == 200 and isinstance(gone, asyncio.CancelledError)
    wait_until(lambda: served[0][0].batcher.waiting == 0)
    assert 'reason="client_gone",status="499"' in served[1].text()


def test_the_access_log_has_a_line_a_request_and_bodies_only_if_asked_to(served, tmp_path):
    for bodies in (False, True):
        app = app_of(served, access_log=AccessLog(tmp_path, f"r{bodies}", bodies=bodies))
        ask(
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
