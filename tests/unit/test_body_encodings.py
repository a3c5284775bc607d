"""Bodies as clients send them: compressed, with a byte order mark, in another charset, and with a key twice."""

import asyncio
import gzip
import json
import random
import zlib

import pyarrow as pa
import pytest

from cluster.errors import RequestError
from serve.asgi.exchange import Exchange
from serve.model.content_encoding import ACCEPTED, list_codings, unpack
from serve.model.json_text import parse_json, to_utf8

BODY = '{"inputs": ["wo ist die Lampe für Käthe"]}'.encode()
LIMIT = 100_000


def raw_deflate(data):
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def arrow(codec):
    return lambda data: pa.Codec(codec).compress(data, asbytes=True)


def zstd(data):
    return arrow("zstd")(data)


PACK = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    " deflate ": raw_deflate,
    "br": arrow("brotli"),
    "zstd": zstd,
    "identity": bytes,
    "": bytes,
    "identity, gzip": gzip.compress,
    "gzip, zstd": lambda data: zstd(gzip.compress(data)),
    "br, deflate, gzip": lambda data: gzip.compress(zlib.compress(arrow("brotli")(data))),
}


def read(body, header):
    return unpack(body, list_codings(header), LIMIT)


def refusal(work, *arguments):
    with pytest.raises(RequestError) as caught:
        work(*arguments)
    return caught.value


@pytest.mark.parametrize("header", PACK)
def test_a_compressed_body_is_unpacked_up_to_the_limit(header):
    pack = PACK[header]
    for content in (BODY, b"x" * LIMIT, random.Random(1).randbytes(LIMIT // 2)):
        assert read(pack(content), header) == content
    assert read(b"", header) == b""
    if list_codings(header):
        for too_much in (LIMIT + 1, 50_000_000):
            error = refusal(read, pack(bytes(too_much)), header)
            assert (error.status, error.code) == (413, "body_too_large") and str(LIMIT) in str(error)


@pytest.mark.parametrize("header", [header for header in PACK if list_codings(header)])
def test_a_damaged_body_is_refused_with_400(header):
    packed = PACK[header](BODY * 20)
    for damaged in (packed[:-5], packed[: len(packed) // 2], packed + b"more", b"no such thing", BODY, b"\x00"):
        error = refusal(read, damaged, header)
        assert (error.status, error.code) == (400, "invalid_encoding"), damaged


def test_a_gzip_body_may_have_several_members_and_zeros_at_its_end():
    assert read(gzip.compress(b"one ") + gzip.compress(b"two") + bytes(20), "gzip") == b"one two"
    bombs = gzip.compress(bytes(LIMIT // 2)) * 100
    assert refusal(read, bombs, "gzip").status == 413


def test_an_unknown_coding_is_refused_with_what_is_accepted():
    for header in ("lzma", "gzip, compress", "x" * 1000, "aws-chunked", "*", "gzip,gzip,gzip,gzip"):
        error = refusal(list_codings, header)
        assert (error.status, error.code) == (415, "unknown_encoding")
        assert dict(error.headers)["accept-encoding"] == ", ".join(ACCEPTED) and "gzip" in str(error)


@pytest.mark.slow
def test_a_bomb_needs_no_more_memory_than_the_limit():
    import tracemalloc

    bomb = gzip.compress(bytes(200_000_000))
    tracemalloc.start()
    assert refusal(read, bomb, "gzip").status == 413
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_several_headers_mean_the_same_as_one_and_chunks_are_joined():
    packed = zstd(gzip.compress(BODY))
    messages = [{"type": "http.request", "body": packed[i : i + 7], "more_body": i + 7 < len(packed)}
                for i in range(0, len(packed), 7)]  # fmt: skip

    async def receive():
        return messages.pop(0)

    headers = [(b"content-encoding", b"gzip"), (b"content-encoding", b"zstd")]
    exchange = Exchange({"method": "POST", "path": "/predict", "headers": headers}, receive)
    assert asyncio.run(exchange.read(LIMIT, 5.0)) == BODY


TEXT = BODY.decode()
CHARSETS = ["utf-8", "UTF-8", "utf8", "utf-16", "utf-16le", "UTF-16BE", "utf-32", "utf-32le", "utf-32be", "iso-8859-1",
            "latin1", "iso-8859-15", "windows-1252"]  # fmt: skip


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize(
    "form", ["application/json; charset={}", 'text/plain;CHARSET="{}"', "application/json; a=b; charset={} ; c=d"]
)
def test_a_charset_is_obeyed(charset, form):
    assert to_utf8(TEXT.encode(charset), form.format(charset)) == BODY
    if charset.lower().startswith("utf"):
        assert to_utf8(("\ufeff" + TEXT).encode(charset), form.format(charset)) == BODY


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("content_type", ["", "application/json", "text/plain; charset="])
def test_without_a_charset_a_byte_order_mark_decides(encoding, content_type):
    assert to_utf8(TEXT.encode(encoding), content_type) == BODY
    big = {"utf-16": b"\xfe\xff" + TEXT.encode("utf-16-be"), "utf-32": b"\0\0\xfe\xff" + TEXT.encode("utf-32-be")}
    if encoding in big:
        assert to_utf8(big[encoding], content_type) == BODY


def test_a_charset_without_a_mark_has_the_byte_order_of_its_zeros():
    for order in ("le", "be"):
        assert to_utf8(TEXT.encode(f"utf-16-{order}"), "application/json; charset=utf-16") == BODY
        assert to_utf8(TEXT.encode(f"utf-32-{order}"), "application/json; charset=utf-32") == BODY


@pytest.mark.parametrize(
    "charset", ["ebcdic", "utf-7", "rot13", "unicode_escape", "zlib", "../../x", "shift_jis", "x" * 500]
)
def test_an_unknown_charset_is_named(charset):
    error = refusal(to_utf8, BODY, f"application/json; charset={charset}")
    assert (error.status, error.code) == (415, "unknown_charset") and charset[:40] in str(error)


def test_a_body_that_does_not_have_its_charset_is_refused():
    for charset, body in [("us-ascii", BODY), ("utf-16", b"\xff\xfe{"), ("utf-32le", b"{}"), ("windows-1252", b"\x81")]:
        error = refusal(to_utf8, body, f"application/json; charset={charset}")
        assert (error.status, error.code) == (400, "invalid_charset") and charset in str(error)


REPEATED = [
    ('{"inputs": ["a"], "inputs": ["b"]}', "inputs", ""),
    ('{"a": 1, "b": {"c": 1, "c": 1}}', "c", " in b;"),
    ('{"inputs": [{"x": 1}, {"amount": 1, "amount": 2}]}', "amount", " in inputs[1];"),
    ('{"inputs": [{"x": [[{"y": {"z": 0, "z": 0}}]]}]}', "z", " in inputs[0].x[0][0].y;"),
    ('[[{"k": {}, "k": []}]]', "k", " in [0][0];"),
    ('{"a": 1, "\\u0061": 2}', "a", ""),
    ('{"a" : 1 , "a"\t:2}', "a", ""),
    ('{"": 1, "": 2}', "", ""),
    ('{"big": 1e999999, "n": 123456789012345678901234567890, "n": 1}', "n", ""),
    ('{"a": ":", "t": "x:y \\":", "a": 2}', "a", ""),
    ('{"\\ud800": {"a": 1, "a": 1}}', "a", " in \\ud800;"),
]


@pytest.mark.parametrize(("text", "key", "inside"), REPEATED)
def test_a_key_that_occurs_twice_is_named_with_its_position(text, key, inside):
    error = refusal(parse_json, text.encode())
    assert (error.status, error.code) == (400, "repeated_key")
    assert f"the key '{key}' occurs twice{inside}" in str(error) and str(error).encode()


def test_keys_that_occur_once_in_each_object_are_accepted():
    generator = random.Random(3)

    def value(depth):
        kind = generator.randrange(6 if depth else 3)
        if kind == 0:
            return generator.choice(["", ":", '":', '" :', '{"a": 1, "a": 2}', "\\", "ü", "a:b:c", '"'])
        if kind == 1:
            return generator.choice([1, -0.5, 10**12, None, True])
        if kind < 4:
            return [value(depth - 1) for _ in range(generator.randrange(4))] if depth else "x"
        return {generator.choice(["a", "b", ":", '"', "ä", "k:"]): value(depth - 1) for _ in range(4)}

    for _ in range(500):
        made = value(4)
        for indent in (None, 1):
            for ascii_only in (False, True):
                assert parse_json(json.dumps(made, indent=indent, ensure_ascii=ascii_only).encode()) == made


def test_a_wide_and_a_deep_body_are_read_in_time():
    rows = json.dumps({"inputs": [{f"c{i}": ":" for i in range(20)} for _ in range(2000)]}).encode()
    assert len(parse_json(rows)["inputs"]) == 2000
    assert refusal(parse_json, b"[" * 100_000).code == "invalid_json"
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    assert parse_json(deep)["a"]
