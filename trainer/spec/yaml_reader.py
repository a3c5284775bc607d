"""Read YAML as people write it: `no`, `on`, `2019` and `-999` are texts where the spec takes a text.

The rule, for a scalar without quotes:

- A key that takes a text, and every key of a mapping, gets the scalar as it is written: `no`, `01`, `1e3`, `2026-01-01`.
- Other types are those of YAML 1.2's core schema: `null`, `~`, `true`, `false`, `17`, `0o17`, `0x1F`, `1e3`, `.5`,
  `.inf`. A number may have `_` between its digits. There are no sexagesimal numbers (`1:30`) and no dates.
- A key that takes both, such as a text or null, gets null for `null` and the text for the rest.
- A key that takes true or false, and a key that takes anything (`model.params`), also gets `yes`, `no`, `on` and `off`
  as true and false.

What is in quotes is a text. Each value's words and line are recorded for messages.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml

from trainer.spec.key_types import Path, key_type

_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
#: The other words that YAML 1.1 reads as booleans.
_BOOLEANS: dict[str, bool] = {
    form: value
    for word, value in {"yes": True, "on": True, "no": False, "off": False}.items()
    for form in (word, word.title(), word.upper())
}
_INTEGER = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+")
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_FLOAT = re.compile(rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TYPES_OF_TAGS = {"null": {"null"}, "bool": {"boolean"}, "int": {"integer"}, "float": {"number"}}
# Characters that look like the spaces of an indentation, from web pages and word processors. YAML takes them for letters.
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u202f\u205f\u3000\ufeff"
_HAS_TAG = re.compile(r"(?:&\S+\s+)?!")
# A scalar with more characters is a text; Python refuses to read so many digits.
_MAX_DIGITS = 4000
# Aliases may stand for very many values.
_MAX_VALUES = 200_000


class Written(NamedTuple):
    """How a value stands in its source."""

    text: str
    """The scalar as it is written, with its quotes; empty for a list and a mapping."""
    line: int
    """The line, from 1; 0 in a value of `--set`."""


class Document(NamedTuple):
    """The value of a YAML text."""

    value: Any
    written: dict[Path, Written]
    """How each value is written, by its path."""


class _Composer(yaml.SafeLoader):
    """Makes nodes of YAML. Only the merge key `<<` has a type here; `read_scalar` gives the others."""

    yaml_implicit_resolvers = {"<": [(f"{_TAG}merge", re.compile(r"^<<$"))]}  # noqa: RUF012  as PyYAML declares it


def read_yaml(text: str, at: Path = (), *, first_line: int = 1) -> Document:
    """Return the value of a YAML text that stands at the path `at` of a spec.

    `first_line` is the line of the text's start, 0 for a text that has no lines. Raises `yaml.YAMLError` for a text that
    is not YAML, a key that is given twice or is no text, an unknown tag, and aliases that never end.
    """
    composer = _Composer(text)
    try:
        node = composer.get_single_node()
        if node is None:
            return Document(None, {})
        _check_keys(node, first_line, set())
        builder = _Builder(composer, text, first_line)
        return Document(builder.build(node, at), builder.written)
    finally:
        composer.dispose()


def read_scalar(text: str, at: Path) -> Any:
    """Return the value of a scalar without quotes at a path of the spec, by the rule above."""
    types, value = key_type(at).scalars, plain_value(text)
    if "any" in types:
        return _BOOLEANS.get(text, value)
    if _type_names(value) & types:
        return value
    if "text" in types:
        return text or None  # nothing after the colon is no text
    return _BOOLEANS.get(text, value) if "boolean" in types else value


def plain_value(text: str) -> Any:
    """Return the value of a scalar without quotes in YAML 1.2's core schema: None, a bool, an int, a float or a text."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INTEGER.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text)
    special = _SPECIAL_FLOAT.fullmatch(text)
    if special:
        return float(f"{special[1]}inf" if special[2] else "nan")
    return text


def _type_names(value: Any) -> set[str]:
    if value is None:
        return {"null"}
    names = {bool: {"boolean"}, int: {"integer", "number"}, float: {"number"}, str: {"text"}}
    return names[type(value)]


class _Dumper(yaml.SafeDumper):
    """Puts a text in quotes if either YAML 1.1 or `read_yaml` would read it as something else."""


for _pattern in (_INTEGER, _FLOAT):
    _Dumper.add_implicit_resolver(f"{_TAG}float", re.compile(f"^(?:{_pattern.pattern})$"), list("-+.0123456789"))


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds lines at these characters in single quotes, and a reader puts spaces there. A key with an odd space
    # beside it is refused unless it has quotes.
    is_odd = re.search("[\x85\u2028\u2029]", text) or text != text.strip(_SPACES)
    return dumper.represent_scalar(f"{_TAG}str", text, style='"' if is_odd else None)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(value: Any) -> str:
    """Return a JSON value as YAML that `read_yaml` and readers of YAML 1.1 read in the same way."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Builder:
    """Makes values of the nodes of one text."""

    def __init__(self, composer: _Composer, text: str, first_line: int) -> None:
        self._composer, self._text, self._first_line = composer, text, first_line
        self._open: set[int] = set()
        self.written: dict[Path, Written] = {}

    def build(self, node: yaml.Node, at: Path) -> Any:
        """Return the value of a node at a path, and record how it is written."""
        if len(self.written) >= _MAX_VALUES:
            raise _error(f"its aliases stand for more than {_MAX_VALUES:,} values", node)
        if isinstance(node, yaml.ScalarNode):
            source = self._text[node.start_mark.index : node.end_mark.index].strip()
            self.written[at] = Written(source, self._line(node))
            return self._scalar(node, at)
        assert isinstance(node, (yaml.SequenceNode, yaml.MappingNode))
        self.written[at] = Written("", self._line(node))
        if id(node) in self._open:
            raise _error("an alias stands for a list or mapping that contains the alias", node)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                self._check_tag(node, "seq")
                return [self.build(item, (*at, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, at)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, at: Path) -> dict[str, Any]:
        self._check_tag(node, "map")
        self._composer.flatten_mapping(node)  # puts what `<<` names before the mapping's own keys, which win
        return {key.value: self.build(value, (*at, key.value)) for key, value in node.value}

    def _scalar(self, node: yaml.ScalarNode, at: Path) -> Any:
        if node.tag == f"{_TAG}str":
            is_plain = node.style is None and not _HAS_TAG.match(self._text, node.start_mark.index)
            return read_scalar(node.value, at) if is_plain else node.value
        name = node.tag.removeprefix(_TAG)
        value = plain_value(node.value)
        if name not in ("null", "bool", "int", "float") or not _type_names(value) & _TYPES_OF_TAGS[name]:
            raise _error(f"{node.value!r} cannot be read with the tag {node.tag!r}; remove the tag", node)
        return value

    def _check_tag(self, node: yaml.Node, name: str) -> None:
        if node.tag != f"{_TAG}{name}":
            raise _error(f"the tag {node.tag!r} is not known here; remove it", node)

    def _line(self, node: yaml.Node) -> int:
        return _line(node, self._first_line)


def _check_keys(node: yaml.Node, first_line: int, seen: set[int]) -> None:
    """Raise `yaml.YAMLError` if a mapping in `node` has a key twice, or a key that is no text."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    keys: dict[str, yaml.Node] = {}
    for item in node.value:
        key_node, value_node = item if isinstance(node, yaml.MappingNode) else (None, item)
        if key_node is not None:
            key = _key_text(key_node)
            if key in keys:
                lines = " and ".join(str(_line(node, first_line)) for node in (keys[key], key_node))
                raise _error(f"key '{key}' is given twice" + (f", in lines {lines}" if first_line else ""), key_node)
            keys[key] = key_node
        _check_keys(value_node, first_line, seen)


def _key_text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _error("a key must be a text, not a list or a mapping", node)
    key = str(node.value)
    if node.style is None and not key:
        raise _error('a key is empty; write "" for the empty text', node)
    if node.style is None and key != key.strip(_SPACES):
        odd = key[0] if key[0] in _SPACES else key[-1]
        raise _error(f"a key has the character U+{ord(odd):04X} beside it; replace it by a space", node)
    return key


def _line(node: yaml.Node, first_line: int) -> int:
    return int(node.start_mark.line) + first_line if first_line else 0


def _error(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
