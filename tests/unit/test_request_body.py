"""Request bodies: texts, or an error with the right status and a clear message."""

import asyncio
import json

import pytest

from cluster.errors import RequestError
from serve.asgi.exchange import Exchange
from serve.model.body import parse_body
from trainer.tasks import catalog as task_catalog

WRONG = [
    (b"", 400, "no_body"),
    (b"{", 400, "invalid_json"),
    (b"\xff", 400, "invalid_utf8"),
    (b"\xff\xfe", 400, "no_body"),
    (b"\xff\xfe\x00", 400, "invalid_charset"),
    (b"[" * 100_000, 400, "invalid_json"),
    (b'"text"', 422, "wrong_type"),
    (b"null", 422, "wrong_type"),
    (b"[]", 422, "wrong_type"),
    (b"{}", 422, "missing_key"),
    (b'{"input": ["a"]}', 422, "unknown_key"),
    (b'{"inputs": ["a"], "top_k": 3}', 422, "unknown_key"),
    (b'{"\\ud800": 1}', 422, "unknown_key"),
    (b'{"inputs": "a"}', 422, "wrong_type"),
    (b'{"inputs": null}', 422, "wrong_type"),
    (b'{"inputs": NaN}', 400, "invalid_json"),
    (b'{"inputs": [{"age": Infinity}]}', 400, "invalid_json"),
    (b'{"inputs": []}', 422, "no_inputs"),
    (b'{"inputs": [3]}', 422, "wrong_type"),
    (b'{"inputs": ["a", null]}', 422, "wrong_type"),
    (b'{"inputs": [["a"]]}', 422, "wrong_type"),
    (b'{"inputs": [{"text": "a"}]}', 422, "wrong_type"),
    (b'{"inputs": [true]}', 422, "wrong_type"),
    (b'{"inputs": ["  \\n"]}', 422, "empty_input"),
    (b'{"inputs": [""]}', 422, "empty_input"),
    ('{"inputs": ["a", "\u200b\u0301 \u00ad"]}'.encode(), 422, "empty_input"),
    (b'{"inputs": ["\\ud800"]}', 422, "invalid_unicode"),
    (json.dumps({"inputs": ["a"] * 11}).encode(), 413, "too_many_inputs"),
]


def parse(body, max_inputs):
    return task_catalog.get_task("text-classification").parse(None, parse_body(body, max_inputs))["text"]


@pytest.mark.parametrize(("body", "status", "code"), WRONG)
def test_invalid_bodies(body, status, code):
    with pytest.raises(RequestError) as caught:
        parse(body, max_inputs=10)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert len(str(caught.value).encode("utf-8")) > 20  # the message can always be sent


def test_the_message_names_the_invalid_input():
    with pytest.raises(RequestError, match=r"inputs\[1\] is a number"):
        parse(b'{"inputs": ["a", 3]}', 10)
    with pytest.raises(RequestError, match="did you mean 'inputs'"):
        parse(b'{"input": ["a"]}', 10)


def test_texts_are_returned_unchanged():
    texts = ["a", "!", "Zoë 🚚", "🚚", "line\nbreak", "x" * 10_000]
    assert parse(json.dumps({"inputs": texts}).encode(), 10) == texts


def exchange(*parts, headers=()):
    messages = [
        {"type": "http.request", "body": part, "more_body": index + 1 < len(parts)} for index, part in enumerate(parts)
    ]

    async def receive():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return Exchange({"method": "POST", "path": "/predict", "headers": list(headers)}, receive)


def test_bodies_are_cut_off_at_the_limit_even_without_a_declared_length():
    assert asyncio.run(exchange(b"ab", b"cd").read(4, 5.0)) == b"abcd"
    for declared, parts in [(b"5", []), (None, [b"abc", b"de"]), (b"2", [b"abcde"])]:
        headers = [(b"content-length", declared)] if declared else []
        with pytest.raises(RequestError) as caught:
            asyncio.run(exchange(*parts, headers=headers).read(4, 5.0))
        assert caught.value.status == 413


def test_ids_come_from_the_headers_or_are_new():
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    traced = exchange(headers=[(b"x-request-id", b"abc-1"), (b"traceparent", f"00-{trace}-{parent}-01".encode())])
    assert (traced.request_id, traced.trace, traced.parent, traced.sampled) == ("abc-1", trace, parent, True)
    assert traced.span != parent and len(traced.span) == 16
    for wrong in (b"", b"00-xyz", b"00-" + b"0" * 31 + b"-" + b"1" * 16 + b"-01", b"\xff" * 60):
        untraced = exchange(headers=[(b"traceparent", wrong), (b"x-request-id", wrong + b"\n")])
        assert len(untraced.trace) == 32 and untraced.parent == "" and untraced.request_id.isprintable()
