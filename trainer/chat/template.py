"""Chat templates: Jinja templates that write a conversation as one text, rendered in a sandbox as transformers does.

A template is compiled once. It comes with a model, so it is not trusted: it sees plain JSON values only, and can neither
reach Python's objects nor change them. There is no `strftime_now`: with the date in it, a prompt would differ from the
one that was trained on. Templates that ask whether it is defined use their own fixed date.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

#: A message as templates see it: role, content, tool_calls and so on.
Message = Mapping[str, Any]


class TemplateFailed(ValueError):
    """A template refuses a conversation, or is not a valid template. The message is one line."""


class ChatTemplate:
    """A compiled template. `variables` are texts that it may use, such as `bos_token`."""

    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        """Raises `TemplateFailed` if `text` is no template."""
        self._template = _compile(text)
        self._variables = {**self._template.globals, **variables, "documents": None}

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None, *, add_generation_prompt: bool) -> str:
        """Return the conversation as one text; with the generation prompt, it ends where the answer begins.

        Raises `TemplateFailed` if the template refuses the conversation.
        """
        try:
            values = {
                **self._variables,
                "messages": messages,
                "tools": tools or None,
                "add_generation_prompt": add_generation_prompt,
            }
            # As `Template.render`, which copies all variables three times.
            context = self._template.environment.context_class(
                self._template.environment, values, self._template.name, self._template.blocks
            )
            return "".join(self._template.root_render_func(context))
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TemplateFailed(f"the chat template refuses it: {line[:200]}") from error


@functools.lru_cache(maxsize=8)
def _compile(text: str) -> jinja2.Template:
    try:
        return _environment().from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFailed(f"line {error.lineno} of the chat template is not valid: {error.message}") from error


@functools.lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = _FastSandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise_exception, namespace=_Namespace, dict=_make_dict)
    return environment


class _FastSandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a short way for what templates ask most: a key of a message, and `loop.first` and the like."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict and attribute in obj and attribute not in _DICT_METHODS:
            return obj[attribute]
        if kind is jinja2.runtime.LoopContext and attribute in _LOOP_VALUES:
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)


_DICT_METHODS = frozenset(dir(dict))
_LOOP_VALUES = frozenset({"first", "last", "index", "index0", "length", "previtem", "nextitem"})


class _GenerationBlock(jinja2.ext.Extension):
    """Renders `{% generation %}` blocks as if the tags were not there: masks come from rendered prefixes instead."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """Jinja's namespace without names that begin with an underscore, which could reach Python's objects."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"the name {name!r} begins with an underscore")


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    # Jinja's own filter escapes characters of HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
