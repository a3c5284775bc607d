"""Grammars of llguidance that hold an answer to a JSON schema, or to tool calls in the template's own format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from serve.generation.tool_format import ToolFormat
from serve.openai.errors import ParameterError, unsupported

_ANY_OBJECT: dict[str, Any] = {"type": "object"}


def json_grammar(schema: dict[str, Any] | None, param: str) -> str:
    """Return the grammar of an answer that follows a JSON schema; None allows any object. Raises `ParameterError`."""
    return check_grammar(_lark(f"start: %json {_schema_text(schema or _ANY_OBJECT, None)}\n"), param)


def tool_grammar(
    tools: Sequence[tuple[str, dict[str, Any] | None]],
    form: ToolFormat,
    *,
    required: bool,
    several: bool,
    content_schema: dict[str, Any] | None = None,
) -> str:
    """Return the grammar of an answer that may call `tools`, or must: pairs of a name and the schema of its arguments.

    With `several`, one answer may have more calls than one. `content_schema` is that of an answer that calls no tools.
    Raises `ParameterError`.
    """
    rules = [f"tool_{index}: {_quote(name + form.middle)} args_{index}" for index, (name, _) in enumerate(tools)]
    rules += [
        f"args_{index}: %json {_schema_text(schema or _ANY_OBJECT, form.separators)}"
        for index, (_, schema) in enumerate(tools)
    ]
    rules.append("call: " + " | ".join(f"tool_{index}" for index in range(len(tools))))
    more = f" ({_quote(form.between)} call)*" if several and form.between is not None else ""
    after = f" {_quote(form.after)}" if form.after else ""
    trigger = form.trigger
    if content_schema is not None and not required and not trigger:
        raise ParameterError(
            "response_format",
            "'response_format' with 'tools' needs 'tool_choice' to be 'required' or 'none': this model's calls begin like JSON",
            "unsupported_parameter",
        )
    if required or content_schema is not None:
        rules.append(f"calls: {_quote(form.before)} call{more}{after}")
        content = f" | content\ncontent: %json {_schema_text(content_schema, None)}" if content_schema else ""
        rules.append(f"start: calls{'' if required else content}")
    elif trigger:
        rest = form.before[len(trigger) :]
        rules.append(f"opening[lazy]: TEXT {_quote(trigger)}")
        rules.append(f"calls: opening {_quote(rest) if rest else ''} call{more}{after}")
        rules.append("start: calls | text_end\ntext_end: TEXT\nTEXT: /(.|\\n)*/")
    else:  # only the first character distinguishes an answer from a call
        rules.append(f"calls: {_quote(form.before)} call{more}{after}")
        rules.append('start: calls | TEXT | ""\nTEXT: /[^{\\[](.|\\n)*/')
    return check_grammar(_lark("\n".join(rules) + "\n"), "tools")


def check_grammar(grammar: str, param: str) -> str:
    """Return the grammar. Raises `ParameterError` naming what llguidance does not support."""
    try:
        import llguidance
    except ImportError:
        raise unsupported(param, "it needs the package llguidance, which the endpoint lacks") from None
    problem = llguidance.LLMatcher.validate_grammar(grammar)
    if problem and not problem.startswith("WARNING"):
        reason = problem.strip().splitlines()[0][:300]
        raise ParameterError(param, f"'{param}' cannot be followed: {reason}", "invalid_schema")
    return grammar


def _lark(rules: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": "%llguidance {}\n" + rules}]})


def _schema_text(schema: dict[str, Any], separators: tuple[str, str] | None) -> str:
    """Return a schema as JSON, with the separators that the answer's JSON must have."""
    options: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    if separators is not None:
        options |= {"item_separator": separators[0], "key_separator": separators[1]}
    return json.dumps({**schema, "x-guidance": options})


def _quote(text: str) -> str:
    return json.dumps(text)
