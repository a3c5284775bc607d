"""docs/reference/openai-api.md: the OpenAI API of endpoints with language models, from the models that read requests."""

from __future__ import annotations

from typing import Any

from docs.generate.markdown import code, generated_page, one_line, table
from serve.openai.chat_request import ChatRequest
from serve.openai.completion_request import CompletionRequest
from serve.openai.openapi import ERRORS
from serve.openai.parse import OpenAiRequest
from serve.openai.responses_request import ResponsesRequest

_INTRODUCTION = """
Endpoints of models that write text have these paths; [Serve a language model](../how-to/serve-a-language-model.md) shows how
to use them. `GET /openapi.json` of an endpoint is the schema. Null counts as left out. What is not listed is refused by name.
"""
_STREAMS = """
With `stream: true` the answer is sent as server-sent events. The reply begins with the first token, so an error before it has
a status of its own. An error after it is the last event, in the same form as an error's body. `/v1/responses` has named
events, and its last one, `response.completed` or `response.incomplete`, has the counts of tokens.
"""
_ERRORS = """
The body of an error is `{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}`; `param` names the parameter.
"""
_PATHS: dict[str, type[OpenAiRequest]] = {
    "POST /v1/chat/completions": ChatRequest,
    "POST /v1/completions": CompletionRequest,
    "POST /v1/responses": ResponsesRequest,
}


def build_page() -> str:
    """Return the page."""
    paths = [f"## {path}\n\n{_parameters(kind)}\n\n{_unsupported(kind)}" for path, kind in _PATHS.items()]
    errors = table(["status", "meaning"], [[code(status), text] for status, text in ERRORS.items()])
    return generated_page(
        "OpenAI API",
        "serve/openai/",
        _INTRODUCTION,
        *paths,
        "## Streams\n\n" + _STREAMS.strip(),
        "## Errors\n\n" + _ERRORS.strip() + "\n\n" + errors,
    )


def _parameters(kind: type[OpenAiRequest]) -> str:
    rows = []
    for name, field in kind.model_fields.items():
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        rows.append([code(name), default, one_line(field.description or "")])
    return table(["parameter", "default", "meaning"], rows)


def _default(value: Any) -> str:
    return "" if value in (None, "", [], {}) else code(str(value).lower() if isinstance(value, bool) else str(value))


def _unsupported(kind: type[OpenAiRequest]) -> str:
    rows = [[code(name), each.reason] for name, each in kind.unsupported.items()]
    return "Refused by name:\n\n" + table(["parameter", "why"], rows)
