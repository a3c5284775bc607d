"""docs/reference/http-api.md: the paths of an endpoint, from its OpenAPI schema and its error codes in the code."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import raymill
from docs.generate.markdown import code, generated_page, one_line, table
from serve.asgi.app import _OPEN_PATHS
from serve.asgi.limits import MAX_HEADER_BYTES, MAX_HEADERS
from serve.asgi.openapi import build_openapi
from serve.model.content_encoding import ACCEPTED
from serve.model.served_model import ServedModel
from trainer.spec.serve import ServeSpec

_ROOT = Path(__file__).parents[2]
_INTRODUCTION = """
An endpoint describes itself: `GET /docs` is a page for readers, with an example of the served model's input, and
`GET /openapi.json` is the schema. This page is made from that schema.

In an answer, `model` names the version, the fingerprint of its contract, its checkpoint (the SHA-256 of `manifest.json`)
and the engine that computed it. `timing_ms` and the header `server-timing` say how long the request waited (`queue`),
how long its inputs were prepared (`preprocess`), and how long its batches were computed (`inference`: the full time of
each batch). `x-request-id` and the W3C header `traceparent` are taken from the request or generated, and returned.
"""
_INPUTS = """
An image is a base64 string in JSON, or the whole body of the request (`image/png`, `multipart/form-data`). A missing
value of a table is `null`.
"""
_PROTOCOL = """
`/v2` is the [Open Inference Protocol](https://github.com/kserve/open-inference-protocol), version 2, which clients of
KServe and Triton speak. A request has one tensor for each role (`text`, datatype `BYTES`), or one tensor called `inputs`
whose elements are inputs as in `/predict`. For a table it has one tensor for each column, of any datatype. Its tensors may
be in the protocol's binary form. An answer is JSON: the tensor `answer` holds the complete answers, and `label` and
`score`, or `value`, hold their parts.
"""
_REQUESTS = f"""
- **Paths.** Slashes at the end and several slashes in a row do not count: `//predict/` is `/predict`. `HEAD` works where
  `GET` does, and `OPTIONS` names the methods of a path.
- **Compressed bodies.** `content-encoding` may be {", ".join(map(code, ACCEPTED))}, or several of them. What a body
  unpacks to counts against `serve.max_body_bytes`. Answers are not compressed; a proxy in front can do it.
- **Character encoding.** A byte order mark is accepted. `charset` in the content type is obeyed: UTF-8, US-ASCII, UTF-16,
  UTF-32, ISO-8859-1, ISO-8859-15 or Windows-1252.
- **Keys.** An object that has a key twice is refused, at every depth; JSON does not say which value counts.
- **Headers.** At most {MAX_HEADER_BYTES // 1024} KiB and {MAX_HEADERS} in number. `accept` is not looked at: an answer is
  always JSON, except for pages and metrics.
- **Time.** Headers must arrive within `serve.client_timeout_s`, and then the body; each 64 KiB of it add a second.
- **Other origins.** Pages elsewhere may send requests if `serve.cors_origins` lists them:
  [Allow web pages elsewhere](../how-to/secure-an-endpoint.md#allow-web-pages-elsewhere).
"""
_OTHER_ERRORS = """
What is not HTTP at all gets a 400 with the code `invalid_http`. On an endpoint on Ray Serve, HAProxy or Ray answers a few
requests that no replica sees, in the same form: 400, 408, 502 (`replica_failed`), 503 (`unavailable`, while no replica
runs) and 504 (`timeout`). HAProxy refuses headers of more than 64 KiB with a 400 instead of a 431.
"""


def build_page() -> str:
    """Return the page."""
    schema = _schema()
    parts = [
        "## Paths\n\n" + _paths(schema),
        "## Predict\n\n" + _predict(schema),
        "## Inputs and answers of each task\n\n" + _tasks() + "\n\n" + _INPUTS.strip(),
        "## What a request may look like\n\n" + _REQUESTS.strip(),
        "## Open Inference Protocol\n\n" + _PROTOCOL.strip() + "\n\n" + _v2_example(),
        "## Errors\n\n" + _errors(schema),
        "## Objects\n\n" + _objects(schema),
    ]
    return generated_page("HTTP API", "serve/asgi/", _INTRODUCTION, *parts)


def _schema() -> dict[str, Any]:
    """Return the schema of an endpoint with a text classifier, with the default settings of `serve:`."""
    settings = ServeSpec()
    model = SimpleNamespace(
        identity={"name": "support_tickets", "version": 1}, settings=settings, example={"input": "where is my parcel?"}
    )
    return build_openapi(cast(ServedModel, model), alone=False)


def _paths(schema: dict[str, Any]) -> str:
    rows = [
        [code(f"{method.upper()} {path}"), _about(path, operation), "no" if path in _OPEN_PATHS else "yes"]
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if method in ("get", "post")
    ]
    rows.append([code("GET /openapi.json"), "The schema that this page is made from.", "yes"])
    return table(["request", "answer", "needs a key"], rows) + (
        "\n\nThe last column is about endpoints that are [served with API keys](../how-to/secure-an-endpoint.md)."
    )


def _about(path: str, operation: dict[str, Any]) -> str:
    return _ABOUT.get(path) or operation["description"]


#: Descriptions that make sense only on the endpoint's own page.
_ABOUT = {"/docs": "A page that describes the API."}


def _predict(schema: dict[str, Any]) -> str:
    example = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    return (
        "Send a JSON object with one key, `inputs`:\n\n```json\n" + json.dumps(example) + "\n```\n\n"
        "`POST /predict` uses the endpoint's first model, `POST /predict?model=NAME` and `POST /models/NAME/predict` "
        f"another one. A request has at most `serve.max_inputs` inputs, {ServeSpec().max_inputs} by default. "
        "The answer has the predictions in the order of the inputs:\n\n```json\n" + _ANSWER + "\n```"
    )


_ANSWER = """{
  "predictions": [{"label": "missing_parcel", "score": 0.9, "scores": {"missing_parcel": 0.9, "cancel_order": 0.1}}],
  "model": {"name": "support_tickets", "version": 1, "fingerprint": "3b0c...", "checkpoint": "7d19...",
            "engine": "native"},
  "timing_ms": {"queue": 0.1, "preprocess": 0.2, "inference": 4.1, "total": 4.6}
}"""


def _tasks() -> str:
    rows = [[code(task["task"]), _input(task["request"]), code(json.dumps(task["answer"]))] for task in raymill.tasks()]
    return table(["task", "an input", "its answer"], rows)


def _input(text: str) -> str:
    return code(text) if text.startswith(('"', "{")) else text


def _v2_example() -> str:
    request = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["where is my parcel?"]}]}
    return "```json\n" + json.dumps(request) + "\n```"


def _errors(schema: dict[str, Any]) -> str:
    responses = schema["paths"]["/predict"]["post"]["responses"]
    codes = error_codes()
    rows = []
    for status in sorted({*codes, *(int(status) for status in responses if status != "200")}):
        about = responses.get(str(status), {}).get("description", "")
        rows.append([str(status), about, ", ".join(map(code, sorted(codes[status])))])
    return (
        'Every error is `{"error": {"code": "...", "message": "..."}}`; on `/v2` it is `{"error": "..."}`, as the '
        "protocol requires. The code is stable, and the message names the input and says what to change.\n\n"
        + table(["status", "cause", "codes"], rows)
        + "\n\n"
        + _OTHER_ERRORS.strip()
    )


def error_codes() -> defaultdict[int, set[str]]:
    """Return the codes of `RequestError` by HTTP status, as they are written in the code."""
    codes: defaultdict[int, set[str]] = defaultdict(set)
    for package in ("serve", "trainer"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and len(node.args) > 1 and _is_status(node.args[0]):
                    codes[node.args[0].value] |= _words(node.args[1], tree)  # type: ignore[attr-defined]
    return codes


def _is_status(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and 400 <= node.value < 600


def _words(node: ast.expr, tree: ast.Module) -> set[str]:
    """Return the texts that an argument may be: a constant, or the constants that its variable gets."""
    if isinstance(node, ast.Name):
        values = [item.value for item in ast.walk(tree) if isinstance(item, ast.Assign)
                  and any(isinstance(target, ast.Name) and target.id == node.id for target in item.targets)]  # fmt: skip
    else:
        values = [node]
    constants = [item.value for value in values for item in ast.walk(value) if isinstance(item, ast.Constant)]
    return {text for text in constants if isinstance(text, str) and text}


def _objects(schema: dict[str, Any]) -> str:
    parts = []
    for name, about in schema["components"]["schemas"].items():
        required = about.get("required", [])
        rows = [
            [code(key), _type(value), "yes" if key in required else "no", value.get("description", "")]
            for key, value in about.get("properties", {}).items()
        ]
        parts.append(
            f"### {name}\n\n{one_line(about.get('description', ''))}\n\n"
            + table(["field", "type", "required", "meaning"], rows)
        )
    return "\n\n".join(parts)


def _type(about: dict[str, Any]) -> str:
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if about.get("type") == "array":
        items = about.get("items", {})
        return f"list of {_type(items)}" if items else "list"
    return str(about.get("type", "any value"))
