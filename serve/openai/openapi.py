"""The OpenAPI schema of the OpenAI paths, made from the same pydantic models that read requests, and the page of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from serve.asgi.docs_page import STYLE
from serve.generation.generation_model import GenerationModel
from serve.openai.chat_request import ChatRequest
from serve.openai.completion_request import CompletionRequest
from serve.openai.responses_request import ResponsesRequest

_REQUESTS = (ChatRequest, CompletionRequest, ResponsesRequest)
#: Status of an error -> its meaning.
ERRORS = {
    "400": "The body is not JSON, or a parameter cannot be used; `param` names it. Prompts that are too long come with the counts.",
    "401": "The endpoint needs an API key.",
    "403": "The key may not do this, or the endpoint does not allow pages of this origin.",
    "404": "The path or the model does not exist.",
    "405": "The path does not accept this method.",
    "408": "The client did not send the request in time.",
    "413": "The body is too large.",
    "414": "The path with its query is too long.",
    "415": "The content encoding or the charset is unknown.",
    "429": "Too many answers wait, or the key is over its rate or its quota of tokens; Retry-After says when to retry.",
    "431": "The headers are too large or too many.",
    "500": "The server failed.",
    "503": "The endpoint is being stopped, or no replica runs; Retry-After says when to retry.",
    "504": "There was no token, or no whole answer, within the time limit.",
}
_NULL_OR_TEXT = {"type": ["string", "null"]}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _NULL_OR_TEXT,
                "code": _NULL_OR_TEXT,
            },
        }
    },
}
# Paths that every endpoint has: description and content type.
_PAGES = {
    "/healthz": ("Whether the process is alive.", "application/json"),
    "/readyz": ("Whether the models are loaded and reproduce their golden rows.", "application/json"),
    "/metrics": ("Prometheus metrics of all replicas.", "text/plain"),
    "/docs": ("This page.", "text/html"),
    "/": ("A page to chat with the models.", "text/html"),
}


def build_openai_schema(models: Sequence[GenerationModel]) -> dict[str, Any]:
    """Return the schema of an endpoint that serves `models`."""
    first = models[0].identity
    _, definitions = models_json_schema(
        [(model, "validation") for model in _REQUESTS], ref_template="#/components/schemas/{model}"
    )
    schemas = definitions["$defs"]
    for request in _REQUESTS:
        schema = schemas[request.__name__]
        schema["properties"]["model"]["enum"] = [model.identity["name"] for model in models]
        for name in schema["properties"].keys() - set(schema["required"]):
            schema["properties"][name] = _or_null(schema["properties"][name])
    schemas["OpenAiError"] = _ERROR_SCHEMA
    return {
        "openapi": "3.1.0",
        "info": {"title": f"{first['name']} v{first['version']}", "version": str(first["version"])},
        "paths": _paths(models),
        "components": {"schemas": schemas},
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter that may be null, which counts as left out."""
    about: dict[str, Any] = {key: schema[key] for key in ("description", "default") if key in schema}
    choices = schema.get("anyOf") or [{key: value for key, value in schema.items() if key not in about}]
    return {"anyOf": [*(each for each in choices if each != {"type": "null"}), {"type": "null"}], **about}


def _paths(models: Sequence[GenerationModel]) -> dict[str, Any]:
    name = models[0].identity["name"]
    messages = [{"role": "user", "content": "What can you do?"}]
    parameter = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/v1/chat/completions": _post(
            "Continue a chat; `stream` sends the answer while it is computed.",
            ChatRequest,
            {"model": name, "messages": messages, "max_completion_tokens": 64},
            "chat.completion",
        ),
        "/v1/completions": _post(
            "Continue texts, without the chat template.",
            CompletionRequest,
            {"model": name, "prompt": "Once upon a time", "max_tokens": 32},
            "text_completion",
        ),
        "/v1/responses": _post(
            "Continue a chat, in the form of OpenAI's Responses API.",
            ResponsesRequest,
            {"model": name, "input": "What can you do?", "max_output_tokens": 64},
            "response",
        ),
        "/v1/models": {"get": _get("The models of this endpoint.", "application/json")},
        "/v1/models/{model}": {
            "get": {**_get("One model.", "application/json"), "parameters": [{**parameter, "example": name}]}
        },
        **{path: {"get": _get(text, content_type)} for path, (text, content_type) in _PAGES.items()},
    }


def _post(description: str, request: type, example: dict[str, Any], kind: str) -> dict[str, Any]:
    answer = {"type": "object", "required": ["id", "object", "model"], "properties": {"object": {"const": kind}}}
    content: dict[str, Any] = {"application/json": {"schema": answer}, "text/event-stream": {}}
    schema = {"$ref": f"#/components/schemas/{request.__name__}"}
    return {
        "post": {
            "description": description,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": schema, "example": example}},
            },
            "responses": {"200": {"description": "The answer.", "content": content}, **_errors(*ERRORS)},
        }
    }


def _get(description: str, content_type: str) -> dict[str, Any]:
    schema = {"type": "object"} if content_type == "application/json" else {"type": "string"}
    success = {"description": content_type, "content": {content_type: {"schema": schema}}}
    statuses = ("400", "401", "404", "405", "408", "414", "429", "431", "500", "503")
    return {"description": description, "responses": {"200": success, **_errors(*statuses)}}


def _errors(*statuses: str) -> dict[str, Any]:
    schema = {"anyOf": [{"$ref": "#/components/schemas/OpenAiError"}, {"type": "object"}]}
    return {
        status: {"description": ERRORS[status], "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }


_PAGE = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><base href="{{ root }}"><title>{{ first.name }} v{{ first.version }}: HTTP API</title>
"""
    + STYLE
    + """</head><body>
<h1>{{ first.name }}, version {{ first.version }}</h1>
<p class="soft">The OpenAI API, with <code>http://HOST:PORT/v1</code> as its base URL. This page as a schema: <a href="openapi.json">openapi.json</a>.</p>
<table>{% for model in models %}<tr><td><code>{{ model.identity.name }}</code></td>
<td>version {{ model.identity.version }}{% if model.base_name %}, an adapter of <code>{{ model.base_name }}</code>{% endif %}, {{ model.max_length }} tokens with the answer, contract {{ model.identity.fingerprint[:16] }}</td></tr>{% endfor %}</table>
{% for path, verbs in paths.items() %}{% for verb, operation in verbs.items() %}
<h2><span class="verb">{{ verb.upper() }}</span> <code>{{ path }}</code></h2>
<p>{{ operation.description }}</p>
{% if operation.shown %}<pre>curl -s http://HOST:PORT{{ path }} -H 'content-type: application/json' -d '{{ operation.shown }}'</pre>
<table>{% for name, text in operation.parameters_shown %}<tr><td><code>{{ name }}</code></td><td>{{ text }}</td></tr>{% endfor %}</table>
<table>{% for status, response in operation.responses.items() %}<tr><td><code>{{ status }}</code></td><td>{{ response.description }}</td></tr>{% endfor %}</table>
{% endif %}{% endfor %}{% endfor %}
</body></html>"""
)


def render_openai_docs(openapi: dict[str, Any], models: Sequence[GenerationModel], root: str = "./") -> str:
    """Return the HTML of /docs: `openapi` as a page. `root` is the relative address of the endpoint's `/`."""
    from jinja2 import Environment

    schemas = openapi["components"]["schemas"]
    paths = {
        path: {verb: _shown(each, schemas) for verb, each in verbs.items()} for path, verbs in openapi["paths"].items()
    }
    template = Environment(autoescape=True).from_string(_PAGE)
    return template.render(paths=paths, models=models, first=models[0].identity, root=root)


def _shown(operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return an operation with its example and its parameters as the page shows them."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    reference = content.get("schema", {}).get("$ref", "")
    if "example" not in content or not reference:
        return operation
    properties = schemas[reference.rpartition("/")[2]]["properties"]
    parameters = [(name, value.get("description", "")) for name, value in properties.items()]
    return {**operation, "shown": json.dumps(content["example"]), "parameters_shown": parameters}
