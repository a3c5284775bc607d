"""Read a spec's file, with a message that names the line for everything in it that is not YAML."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import SpecError
from trainer.spec.yaml_reader import Document, read_yaml

_MARKS = {  # the longer ones first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def read_spec_file(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises `SpecError` if the file is missing, unreadable or not a mapping."""
    value: dict[str, Any] = read_spec_document(path).value
    return value


def read_spec_document(path: Path) -> Document:
    """Return the mapping in a YAML file, and how its values are written. Raises `SpecError` like `read_spec_file`."""
    text = _read_text(path)
    try:
        document = read_yaml(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(
            f"{path}, line {line} is not YAML: it has the control character U+{_code_point(error.character):04X}",
            "remove the character",
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else getattr(error, "problem", error)
        raise SpecError(f"{path}{where} is not YAML: {problem}", _fix(str(problem))) from None
    if not isinstance(document.value, dict):
        content = "empty" if document.value is None else f"a {type(document.value).__name__}"
        raise SpecError(f"{path} is {content}, not a mapping of keys", "start with `name:`, `data:` and `model:`")
    return document


def _fix(problem: str) -> str:
    if "'\\t'" in problem:
        return "a tab stands there; indent with spaces, and put texts that begin with a tab in quotes"
    if "given twice" in problem:
        return "remove one of them"
    return "check quotes and indentation"


def _code_point(character: Any) -> int:
    return ord(character) if isinstance(character, str) else int(character)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise SpecError(
            f"there is no spec at {path}", "give the path of a YAML file, for example examples/support_tickets/run.yaml"
        ) from None
    except IsADirectoryError:
        raise SpecError(
            f"{path} is a folder, not a spec", f"name the YAML file in it, for example {path / 'run.yaml'}"
        ) from None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    encoding = _encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{path}, line {line} is not {encoding.removesuffix('-sig').upper()} text: byte {error.start} of the file is "
            f"0x{content[error.start]:02X}",
            "save the file as UTF-8",
        ) from None


def _encoding(content: bytes) -> str:
    """Return the encoding of a file: by its byte order mark, or by the zero bytes that UTF-16 has, else UTF-8."""
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return name
    if len(content) > 1 and content[1] == 0 and content[0] != 0:
        return "utf-16-le"
    return "utf-16-be" if len(content) > 1 and content[0] == 0 and content[1] != 0 else "utf-8"
