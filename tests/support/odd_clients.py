"""Requests as odd clients send them, byte by byte, and what every kind of endpoint has to answer."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from typing import Any, NamedTuple
from urllib.parse import urlsplit

TEXT = "my good dog"
#: The paths that take inputs, with a body for each.
BODIES = {
    "/predict": json.dumps({"inputs": [TEXT]}).encode(),
    "/models/tiny/predict": json.dumps({"inputs": [TEXT]}).encode(),
    "/v2/models/tiny/infer": json.dumps(
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}]}
    ).encode(),
}
#: Paths that are read.
PAGES = ["/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/health/live", "/v2/health/ready",
         "/v2/models/tiny", "/v2/models/tiny/ready"]  # fmt: skip


class Answer(NamedTuple):
    """What came back: the status, the headers in lower case, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The message of an error in our form, whichever of the two forms its path has."""
        error = json.loads(self.body)["error"]
        return error if isinstance(error, str) else f"{error['code']}: {error['message']}"


def exchange(url: str, *parts: bytes) -> Answer:
    """Send raw bytes to an endpoint, and return its first answer. A client reads even if it cannot send everything."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as client:
        received = b""
        try:
            for part in parts:
                client.sendall(part)
        except ConnectionError:
            pass
        while more := client.recv(65536):
            received += more
    head, _, body = received.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        head, _, body = body.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1."), received[:200]
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, body)


def request(
    path: str, body: bytes = b"", *headers: str, method: str = "POST", version: str = "1.1", length: Any = None
) -> bytes:
    """Return the bytes of a request. `length` replaces its content-length."""
    lines = [f"{method} {path} HTTP/{version}", "host: x", "connection: close", *headers]
    if not any(header.startswith("content-type:") for header in headers):
        lines.append("content-type: application/json")
    if length != "none":
        lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _chunked(path: str, body: bytes, *headers: str) -> bytes:
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]))
    return request(path, b"", "transfer-encoding: chunked", *headers, length="none") + chunks + b"0\r\n\r\n"


def accepted(path: str) -> dict[str, bytes]:
    """Return odd requests to `path` that get their predictions."""
    body = BODIES[path]
    text = body.decode()
    return {
        "gzip": request(path, gzip.compress(body), "content-encoding: gzip"),
        "deflate": request(path, zlib.compress(body), "content-encoding: deflate"),
        "gzip in chunks": _chunked(path, gzip.compress(body), "content-encoding: gzip"),
        "chunks": _chunked(path, body),
        "identity": request(path, body, "content-encoding: identity"),
        "byte order mark": request(path, b"\xef\xbb\xbf" + body),
        "utf-16 with a mark": request(path, text.encode("utf-16")),
        "utf-16 by charset": request(path, text.encode("utf-16-be"), 'content-type: application/json; charset="utf-16"'),
        "latin-1": request(path, text.encode("latin-1"), "content-type: application/json; charset=iso-8859-1"),
        "slash at the end": request(path + "/", body),
        "two slashes": request("/" + path, body),
        "slashes inside": request(path.replace("/", "//") + "//", body),
        "absolute address": request(f"http://x{path}", body),
        "HTTP/1.0": request(path, body, version="1.0"),
        "no host": request(path, body).replace(b"host: x\r\n", b"", 1).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        "17 KB of headers": request(path, body, "cookie: " + "c" * 17_000),
        "120 headers": request(path, body, *[f"x-header-{number}: 1" for number in range(120)]),
        "expects 100": request(path, body, "expect: 100-continue"),
        "accepts HTML only": request(path, body, "accept: text/html", "accept-encoding: br;q=1, *;q=0"),
    }  # fmt: skip


#: name -> (statuses that are right, a word of the message). Some limits are HAProxy's own.
_REFUSALS: dict[str, tuple[tuple[int, ...], str]] = {
    "bomb": ((413,), "unpacks to over"),
    "bomb in chunks": ((413,), "unpacks to over"),
    "no gzip": ((400,), "not valid gzip"),
    "unknown coding": ((415,), "lzma"),
    "unknown charset": ((415,), "ebcdic"),
    "key twice": ((400,), "occurs twice"),
    "key twice inside": ((400,), r"occurs twice in inputs\[0\]"),
    "content type twice": ((400,), "content-type occurs twice"),
    "40 KB of headers": ((431,), "headers"),
    "300 headers": ((431,), "headers"),
    "100 KB of headers": ((431, 400), "headers"),
    "1 MB of headers": ((431, 400), "headers"),
    "2,000 headers": ((431, 400), "headers"),
    "long address": ((414,), "path"),
    "wrong method": ((405,), "accepts POST"),
    "wants a websocket": ((405, 400), "accepts POST|HTTP"),  # HAProxy misses the key of the handshake
    "unknown method": ((400,), "HTTP"),
    "no path": ((400,), "path|HTTP"),
    "two lengths": ((400,), "HTTP"),
    "length below zero": ((400,), "HTTP"),
    "length is no number": ((400,), "HTTP"),
    "wrong chunk": ((400,), "HTTP"),
    "unknown transfer coding": ((400, 501), "HTTP"),
    "wrong header": ((400,), "HTTP"),
    "no HTTP": ((400,), "HTTP"),
    "TLS": ((400,), "HTTP"),
    "too large": ((413,), "over"),
    "unknown path": ((404,), "Not Found"),
}


def refused(path: str) -> dict[str, tuple[bytes, tuple[int, ...], str]]:
    """Return odd requests to `path` that are refused, with the right statuses and a pattern for the message."""
    body = BODIES[path]
    bomb = gzip.compress(b" " * 30_000_000)
    twice = body.replace(b"{", b'{"inputs": [1], ', 1)
    inside = b'{"inputs": [{"a": 1, "a": 2}]}'
    sent = {
        "bomb": request(path, bomb, "content-encoding: gzip"),
        "bomb in chunks": _chunked(path, bomb, "content-encoding: gzip"),
        "no gzip": request(path, body, "content-encoding: gzip"),
        "unknown coding": request(path, body, "content-encoding: lzma"),
        "unknown charset": request(path, body, "content-type: application/json; charset=ebcdic"),
        "key twice": request(path, twice),
        "key twice inside": request(path, inside),
        "content type twice": request(path, body, "content-type: application/json", "content-type: text/plain"),
        "40 KB of headers": request(path, body, "cookie: " + "c" * 40_000),
        "300 headers": request(path, body, *[f"x-header-{number}: 1" for number in range(300)]),
        "100 KB of headers": request(path, body, "cookie: " + "c" * 100_000),
        "1 MB of headers": request(path, body, "cookie: " + "c" * 1_000_000),
        "2,000 headers": request(path, body, *[f"x-header-{number}: 1" for number in range(2000)]),
        "long address": request(f"{path}?{'q' * 40_000}", body),
        "wrong method": request(path, body, method="PUT"),
        "wants a websocket": request(
            path, b"", "connection: upgrade", "upgrade: websocket", method="GET", length="none"
        ),
        "unknown method": request(path, body, method="FOO"),
        "no path": request("*", b"", method="OPTIONS"),
        "two lengths": request(path, body, "content-length: 7"),
        "length below zero": request(path, body, length=-4),
        "length is no number": request(path, body, length="1x"),
        "wrong chunk": request(path, b"zz\r\nab\r\n0\r\n\r\n", "transfer-encoding: chunked", length="none"),
        "unknown transfer coding": request(path, b"ab", "transfer-encoding: foo", length="none"),
        "wrong header": request(path, body, "a b: c"),
        "no HTTP": b"GARBAGE\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 50,
        "too large": request(path, body + b" " * 3_000_000),
        "unknown path": request(path + "/nothing", body),
    }
    return {name: (data, *_REFUSALS[name]) for name, data in sent.items()}
