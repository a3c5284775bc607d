"""Clients as they are, to every path of every kind of endpoint: odd requests get their predictions, or an error in JSON."""

import re

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.ports import free_port
from serve.engines.selection import SelectedEngine
from serve.local.endpoint import LocalEndpoint
from serve.replica_settings import build_replica_settings
from support.commands import RunningCommand
from support.odd_clients import BODIES, PAGES, accepted, exchange, refused, request
from trainer.spec.serve import ServeSpec

ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def one_process(tiny_version):
    """The URL of an endpoint in one process, for pages of one other origin, that gives its clients two seconds."""
    spec = ServeSpec(port=free_port(), cors_origins=(ORIGIN,), client_timeout_s=2)
    settings = build_replica_settings([tiny_version], spec, [SelectedEngine("native")])
    endpoint = LocalEndpoint(tiny_version, spec, settings)
    try:
        endpoint.start()
        yield endpoint.url
    finally:
        endpoint.stop()


@pytest.fixture(scope="module")
def python_proxy(first_run, storage):
    """The URL of an endpoint behind Ray Serve's own proxy."""
    arguments = ("serve", "tiny@champion", "--storage", storage, "--port", free_port(), "--set", "serve.proxy=python")
    server = RunningCommand("-m", "raymill", *arguments)
    try:
        yield server.wait_for_line("listening on").split()[-1]
    finally:
        server.terminate()


#: Kinds of endpoints -> the fixture that has the URL.
ENDPOINTS = {"one process": "one_process", "HAProxy": "endpoint", "Python proxy": "python_proxy"}


@pytest.fixture(params=["one process", "HAProxy", pytest.param("Python proxy", marks=pytest.mark.long)])
def url(request):
    """The URL of an endpoint of each kind."""
    return request.getfixturevalue(ENDPOINTS[request.param])


def test_odd_requests_get_their_predictions(url):
    wrong = {}
    for path in BODIES:
        for name, data in accepted(path).items():
            answer = exchange(url, data)
            if answer.status != 200 or b"animal" not in answer.body:
                wrong[path, name] = answer.status, answer.body[:200]
    assert not wrong


def test_refused_requests_get_an_error_in_json(url):
    wrong = {}
    for path in BODIES:
        for name, (data, statuses, pattern) in refused(path).items():
            answer = exchange(url, data)
            is_right = answer.status in statuses and answer.headers["content-type"] == "application/json"
            if not is_right or not re.search(pattern, answer.error):
                wrong[path, name] = answer.status, answer.body[:200]
    assert not wrong


def test_every_path_has_one_rule_for_slashes(url):
    wrong = {}
    for path in PAGES:
        for written in (path, f"{path}/", f"/{path}", f"//{path.replace('/', '//')}//"):
            for method in ("GET", "HEAD"):
                answer = exchange(url, request(written, method=method))
                if answer.status != 200 or bool(answer.body) is (method == "HEAD" or "health/" in path):
                    wrong[method, written] = answer.status, answer.body[:100]
            options = exchange(url, request(written, method="OPTIONS"))
            if (options.status, options.headers.get("allow")) != (204, "GET, HEAD, OPTIONS"):
                wrong["OPTIONS", written] = options
    assert not wrong


def test_pages_link_relatively_at_every_depth(url):
    for written, root in (("/docs", "./"), ("/docs/", "../"), ("/docs//", "../../"), ("/", "./"), ("//", "../")):
        page = exchange(url, request(written, method="GET")).body.decode()
        assert f'<base href="{root}">' in page
        assert not re.search(r"""(href|src|action)=["']/|fetch\(["']/""", page)


def test_pages_elsewhere_may_use_an_endpoint_whose_spec_lists_them(one_process, endpoint):
    asks = ("access-control-request-method: POST", "access-control-request-headers: content-type,authorization")
    for path, body in BODIES.items():
        allowed = exchange(one_process, request(path, b"", f"origin: {ORIGIN}", *asks, method="OPTIONS"))
        assert allowed.status == 204 and allowed.headers["access-control-allow-origin"] == ORIGIN
        assert allowed.headers["access-control-allow-headers"] == "content-type,authorization"
        for sent, status in ((body, 200), (b"{", 400)):
            answer = exchange(one_process, request(path, sent, f"origin: {ORIGIN}"))
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
        for url in (one_process, endpoint):
            denied = exchange(url, request(path, b"", "origin: https://evil.example", *asks, method="OPTIONS"))
            assert denied.status == 403 and "https://evil.example" in denied.error
            answer = exchange(url, request(path, body, "origin: https://evil.example"))
            assert answer.status == 200 and "access-control-allow-origin" not in answer.headers


def test_slow_clients_get_408_and_idle_connections_are_closed(one_process):
    for path, body in BODIES.items():
        for data in (request(path, body, length=500), request(path, body)[:30]):
            answer = exchange(one_process, data)
            assert answer.status == 408 and "did not arrive in time" in answer.error
    with pytest.raises(AssertionError):  # no request, no answer
        exchange(one_process, b"")


def test_refused_requests_are_counted(one_process):
    def count(reason):
        page = httpx.get(f"{one_process}/metrics", timeout=60).text
        samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        return sum(sample.value for sample in samples if sample.labels.get("reason") == reason)

    wanted = {"invalid_http": b"GARBAGE\r\n\r\n", "headers_too_large": request("/predict", b"", "c: " + "c" * 99_999),
              "repeated_key": request("/predict", b'{"a": 1, "a": 1}'), "unknown_encoding": request("/predict", b"x", "content-encoding: x"),
              "not_found": request("/nothing")}  # fmt: skip
    for reason, data in wanted.items():
        before = count(reason)
        exchange(one_process, data)
        assert count(reason) == before + 1, reason
