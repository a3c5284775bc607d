"""The forms of an error's body: our own, the Open Inference Protocol's below /v2, OpenAI's below /v1."""

from __future__ import annotations

from typing import Any

from cluster.errors import RequestError


def error_body(error: RequestError, path: str) -> dict[str, Any]:
    """Return the body for an error of a request to `path`."""
    if path == "/v2" or path.startswith("/v2/"):
        return {"error": str(error)}
    if path == "/v1" or path.startswith("/v1/"):
        return openai_error(error)
    return {"error": {"code": error.code, "message": str(error)}}


def openai_error(error: RequestError) -> dict[str, Any]:
    """Return an error in OpenAI's form, as a body or as an event of a stream."""
    param = getattr(error, "param", None)
    return {"error": {"message": str(error), "type": _openai_type(error.status), "param": param, "code": error.code}}


def _openai_type(status: int) -> str:
    names = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return names.get(status, "server_error" if status >= 500 else "invalid_request_error")
