"""Read a request of the OpenAI API: pydantic declares its parameters, and the first wrong one is named.

Strict: a parameter that is unknown, or that OpenAI has and this endpoint does not, is refused. Null counts as left out,
and so does the value that changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cluster.errors import RequestError, suggest
from cluster.text import json_kind
from serve.model.json_text import parse_json, to_utf8
from serve.openai.errors import ParameterError, unsupported

_MAX_NAME = 80
# What pydantic adds to a location where several types are allowed, beside names with brackets.
_VARIANTS = {"str", "int", "NamedTool"}


class Unsupported(NamedTuple):
    """A parameter of OpenAI's that this endpoint does not have."""

    reason: str
    neutral: tuple[Any, ...] = ()
    """Values that ask for nothing beyond what the endpoint does."""


class OpenAiModel(BaseModel):
    """An object of a request or an answer. The docstrings of its fields become descriptions in the schema."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, protected_namespaces=())


class OpenAiRequest(OpenAiModel):
    """The body of a request. `unsupported` has the parameters of OpenAI's that are refused by name."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = {}

    model: str
    """The name of a model of this endpoint; GET /v1/models lists them."""
    stream: bool = False
    """Whether the answer is sent as server-sent events while it is computed."""
    user: str = ""
    """A name for the end user, for the access log."""


Request = TypeVar("Request", bound=OpenAiRequest)


def parse_request(kind: type[Request], body: bytes, content_type: str) -> Request:
    """Return the request in a body. Raises `RequestError` 400 for what cannot be used, `ParameterError` with its name."""
    body = to_utf8(body, content_type)
    if not body:
        raise RequestError(400, "no_body", "the body is empty; send a JSON object")
    value = parse_json(body)
    if not isinstance(value, dict):
        raise RequestError(400, "wrong_type", f"the body is {json_kind(value)}; send a JSON object")
    return read_request(kind, value)


def read_request(kind: type[Request], value: Mapping[str, Any]) -> Request:
    """Return the request in a JSON object. Raises `ParameterError`."""
    parameters: dict[str, Any] = {}
    for name, item in value.items():
        if item is None:
            if name not in kind.model_fields and name not in kind.unsupported:
                raise _unknown(kind, name)
            continue
        refused = kind.unsupported.get(name)
        if refused is None:
            parameters[name] = item
        elif item not in refused.neutral:
            raise unsupported(name, refused.reason)
    try:
        return kind.model_validate(parameters)
    except ValidationError as error:
        raise _first_problem(kind, error) from None


def _first_problem(kind: type[OpenAiRequest], error: ValidationError) -> ParameterError:
    problems = error.errors(include_url=False, include_context=False)
    # Where several types are allowed, each has a problem; the deepest one belongs to the type that was meant.
    first = problems[0]["loc"][0]
    problem = max((each for each in problems if each["loc"][0] == first), key=lambda each: len(each["loc"]))
    path = _join(problem["loc"])
    if problem["type"] == "extra_forbidden":
        if len(problem["loc"]) == 1:
            return _unknown(kind, str(problem["loc"][0]))
        return ParameterError(path, f"unknown parameter: '{path}'", "unknown_parameter")
    if problem["type"] == "missing":
        return ParameterError(path, f"'{path}' is missing", "missing_required_parameter")
    message = problem["msg"].removeprefix("Value error, ")
    return ParameterError(path, f"'{path}': {message[:1].lower()}{message[1:]}; it is {_shown(problem['input'])}")


def _unknown(kind: type[OpenAiRequest], name: str) -> ParameterError:
    shown = name[:_MAX_NAME]
    hint = suggest(shown, kind.model_fields)
    return ParameterError(shown, f"unknown parameter: {shown!a}; {hint}", "unknown_parameter")


def _join(location: Sequence[str | int]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in _VARIANTS and not any(sign in part for sign in "[]()"):
            text += f".{part}" if text else part[:_MAX_NAME]
    return text


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return ascii(value if len(value) <= 40 else value[:40] + "...")
    return str(value) if isinstance(value, (int, float, bool)) else json_kind(value)
