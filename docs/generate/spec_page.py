"""docs/reference/spec.md: every key of a spec, from the pydantic classes of trainer/spec."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from docs.generate.keys import keys_table
from docs.generate.markdown import code, generated_page, one_line, table
from trainer.spec.renames import KEYS, VALUES
from trainer.spec.run import RunSpec
from trainer.spec.section import SpecSection

_INTRODUCTION = """
A spec is a YAML file. This page lists every key with its type, its default and its meaning; `raymill schema` prints the
same as a JSON Schema, which editors use for completion.

- A key that does not exist is rejected, and the message suggests the nearest key that does.
- `--set train.epochs=1` sets one key on the command line. It is read and checked like the file.
- A text needs no quotes: `labels: [yes, no, 01, -999]` and `columns: {label: 2019}` are read as they are written. The
  quotes matter for a text that begins with a sign of YAML (`#`, `*`, `&`, `!`, `[`, `{`, `-` and a space), or contains `: `
  or ` #`. See [how values are read](#how-values-are-read).
- `${NAME}` and `${NAME:-default}` stand for environment variables.
- Relative paths start at the folder of the spec's file.
- A key that the task does not use is rejected, for example image augmentation for texts. The [tasks](tasks.md) page lists
  what each task uses.
"""

_VALUES = """
## How values are read

What a value means depends on the type in the tables above.

| the key takes | without quotes |
| --- | --- |
| a text; also every key of a mapping, such as a column | as it is written: `no`, `on`, `2019`, `01`, `1e3`, `1:30`, `~`, `2026-01-01` |
| a text or nothing | `null` and `~` are nothing, the rest is as it is written |
| true or false | `true`, `false`, and as YAML 1.1 has them `yes`, `no`, `on`, `off` |
| a number | `17`, `1_000`, `0x1F`, `0o17`, `.5`, `1e-4`; `010` is ten, and `1:30` is no number |
| anything (`model.params`, `model.config`) | null, true, false and numbers like above, else a text |

The values of a search (`choice`, `when`, `initial_points`) are read like the key that they are for. What is in quotes is a
text. A key that is given twice is refused with both lines, and so are tabs that indent. Anchors, aliases and `<<` work. The
file may be UTF-8 or UTF-16, with any line ends.
"""


def build_page() -> str:
    """Return the page."""
    schema = RunSpec.model_json_schema()
    sections = [_section(path, cls, schema) for path, cls in _sections(schema)]
    return generated_page("Spec keys", "trainer/spec/", _INTRODUCTION, *sections, _VALUES.strip(), _renamed())


def _section(path: str, cls: type[SpecSection], schema: dict[str, Any]) -> str:
    level = "##" if "." not in path else "###"
    heading = code(path) if path else "Top level"
    return f"{level} {heading}\n\n{one_line(inspect.getdoc(cls) or '')}\n\n{keys_table(cls, path.partition(' ')[0], schema)}"


def _sections(schema: dict[str, Any]) -> Iterator[tuple[str, type[SpecSection]]]:
    """Yield the path and the class of every section once, each directly before the sections that it holds."""
    classes = {cls.__name__: cls for cls in _subclasses(SpecSection)}
    seen: set[str] = set()

    def walk(path: str, cls: type[SpecSection], properties: dict[str, Any]) -> Iterator[tuple[str, type[SpecSection]]]:
        yield path, cls
        for key, about in properties.items():
            below = f"{path}.{key}" if path else key
            for suffix, name in _references(about):
                if name in seen:
                    continue  # validation and test are read like train
                seen.add(name)
                child = classes[name]
                kind = child.model_fields.get("kind")
                variant = f" (kind: {kind.default})" if kind is not None and suffix == ".COLUMN" else ""
                yield from walk(f"{below}{suffix}{variant}", child, schema["$defs"][name]["properties"])

    yield from walk("", RunSpec, schema["properties"])


def _references(about: dict[str, Any], suffix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the sections that a key may hold: what follows the key in the path, and the name of the class."""
    if "$ref" in about:
        yield suffix, about["$ref"].rpartition("/")[2]
    for choice in (*about.get("anyOf", ()), *about.get("oneOf", ())):
        yield from _references(choice, suffix)
    if "items" in about:
        yield from _references(about["items"], suffix + "[]")
    if isinstance(about.get("additionalProperties"), dict):
        name = ".COLUMN" if "NumericSpec" in json.dumps(about) else ".KEY"
        yield from _references(about["additionalProperties"], suffix + name)


def _subclasses(cls: type[SpecSection]) -> Iterator[type[SpecSection]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


def _renamed() -> str:
    rows = [[code(old.replace("*", "N")), code(new.replace("*", "N"))] for old, new in KEYS.items()]
    rows += [
        [code(f"{key}: {old}"), code(f"{key}: {new}")] for key, values in VALUES.items() for old, new in values.items()
    ]
    return (
        "## Renamed keys\n\nVersion 0.1.0 had these names. They are rejected with a message that names the new one.\n\n"
        + table(["before", "now"], rows)
    )
