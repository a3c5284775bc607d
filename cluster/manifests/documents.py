"""Manifests as text: YAML documents with a header, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

#: One YAML document of a manifest.
Document = dict[str, Any]
#: File name -> its content: text, or YAML documents.
Rendered = Mapping[str, str | list[Document]]


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and equal objects twice instead of as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def to_yaml(documents: Iterable[Document]) -> str:
    """Return documents as YAML, each after a line `---`, without the keys whose values are None."""
    return "".join(
        "---\n" + yaml.dump(_without_none(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        for document in documents
    )


def parse_yaml(text: str) -> Iterator[Document]:
    """Yield the documents of a YAML text that are not empty. Raises `yaml.YAMLError`."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    yield from (document for document in yaml.load_all(text, Loader=loader) if document is not None)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
