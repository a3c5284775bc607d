"""docs/reference/python.md: the functions of `import raymill`, from their signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import raymill
from docs.generate.markdown import generated_page

_WIDTH = 100
_INTRODUCTION = """
`import raymill` gives one function for each command. Large libraries are loaded when a function runs, not on import.
Errors are subclasses of `cluster.errors.UserError` ([exit codes](exit-codes.md) lists them).

```python
import raymill

outcome = raymill.run("examples/support_tickets/run.yaml")
raymill.load("support_tickets@champion").predict(["where is my parcel?"])
```
"""


def build_page() -> str:
    """Return the page."""
    parts = []
    for name in raymill.__all__:
        value = getattr(raymill, name)
        if not callable(value):
            continue
        about = inspect.getdoc(value) or ""
        parts.append(f"## `{name}`\n\n```text\n{_signature(name, value)}\n```\n\n{about}")
    return generated_page("Python API", "raymill/", _INTRODUCTION, *parts)


def _signature(name: str, function: Callable[..., Any]) -> str:
    """Return a signature, one parameter per line if it is long."""
    signature = inspect.signature(function)
    parameters, star = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not star:
            parameters.append("*")
            star = True
        parameters.append(_parameter(parameter))
    text = f"raymill.{name}({', '.join(parameters)}) -> {signature.return_annotation}"
    if len(text) <= _WIDTH:
        return text
    lines = "".join(f"    {parameter},\n" for parameter in parameters)
    return f"raymill.{name}(\n{lines}) -> {signature.return_annotation}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = str(parameter).partition(parameter.name)[0]  # "", "*" or "**"
    default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}: {parameter.annotation}{default}"
