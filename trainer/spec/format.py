"""The `data.format:` section of a spec: how files are read where their bytes and names do not say it."""

from __future__ import annotations

import codecs
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trainer.spec.section import NonNegative, SpecSection

#: Formats of a file, and of a folder whose files are the rows.
FileKind = Literal["auto", "csv", "tsv", "jsonl", "parquet", "arrow", "text", "images"]

_SEPARATOR_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_LINE_KEYS = ("separator", "quote", "escape", "header", "skip_lines", "comment")
_TEXT_KINDS, _LINE_KINDS = ("auto", "csv", "tsv", "jsonl", "text"), ("auto", "csv", "tsv")


class FormatSpec(SpecSection):
    """How files are read. Whatever the bytes or the name of a file say needs no key: a byte order mark, Excel's line
    `sep=;`, the separator, a compression."""

    kind: FileKind = "auto"
    """Format of the files. `auto` decides by each file's extension. `jsonl`: one object per line, or one array of
    objects. `text`, `images`: a folder that has a subfolder of text or image files for each class."""
    separator: str | None = None
    """Character between the cells of csv and tsv files, or `tab`. Default: a comma for csv and a tab for tsv, unless
    the first lines show another of `,`, `;`, `|` and tab."""
    encoding: str | None = None
    """Encoding of text, for example `cp1252`. A byte order mark in the file goes first. Default: UTF-8."""
    quote: str | None = None
    """Character around cells that hold separators, line ends or quotes; `none`: a quote is a character like any other.
    Default: `"`; in tab-separated files only where it surrounds a whole cell."""
    escape: str | None = None
    """Character before a character that has no special meaning, for example a backslash as in MySQL's and PostgreSQL's
    exports; with a backslash, a cell `\\N` is missing, and `\\n`, `\\r` and `\\t` are line ends and tabs. Default:
    none; a quote inside a quoted cell is written twice."""
    header: list[Annotated[str, Field(min_length=1)]] | None = None
    """Names of the columns of csv and tsv files without a header line. Default: the first line holds the names."""
    skip_lines: NonNegative = 0
    """Lines before the header of csv and tsv files that are no data."""
    comment: str | None = None
    """Lines of csv and tsv files that begin with this text are skipped."""

    @field_validator("separator")
    @classmethod
    def _check_separator(cls, separator: str | None) -> str | None:
        if separator is None:
            return None
        separator = _SEPARATOR_NAMES.get(separator, separator)
        if len(separator) != 1 or separator in "\r\n\"'\ufeff" or separator.isalnum():
            raise ValueError(f"separator: {separator!r} must be one character, not a letter, digit, quote or line end")
        return separator

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str | None) -> str | None:
        if encoding is None:
            return None
        try:
            codec = codecs.lookup(encoding)
            "".encode(codec.name)  # refuses codecs that are no encodings of text, such as base64
        except (LookupError, ValueError):
            raise ValueError(
                f"encoding: {encoding!r} is no encoding of text; write one of Python's names, such as utf-8, utf-16, "
                "cp1252, latin-1, cp1251, shift_jis or gb18030"
            ) from None
        return codec.name

    @field_validator("quote", "escape")
    @classmethod
    def _check_character(cls, sign: str | None) -> str | None:
        if sign not in (None, "none") and (len(sign) != 1 or sign.isalnum() or sign in "\r\n"):
            raise ValueError(f"{sign!r} must be one character, not a letter or digit, or `none`")
        return sign

    @field_validator("header")
    @classmethod
    def _check_header(cls, header: list[str] | None) -> list[str] | None:
        if header is not None and (not header or len(set(header)) < len(header)):
            raise ValueError("header must name every column once")
        return header

    @field_validator("comment")
    @classmethod
    def _check_comment(cls, comment: str | None) -> str | None:
        if comment is not None and not comment.strip():
            raise ValueError("comment must be a text that lines begin with, for example '#'")
        return comment

    @model_validator(mode="after")
    def _check_keys_fit_kind(self) -> FormatSpec:
        unused = [key for key in _LINE_KEYS if getattr(self, key) and self.kind not in _LINE_KINDS]
        if self.encoding and self.kind not in _TEXT_KINDS:
            unused.append("encoding")
        if unused:
            raise ValueError(f"kind: {self.kind} does not use {unused[0]}; remove `{unused[0]}`")
        signs = [sign for sign in (self.separator, self.quote, self.escape) if sign not in (None, "none")]
        if len(set(signs)) < len(signs):
            raise ValueError("separator, quote and escape must be different characters")
        return self

    @property
    def escape_sign(self) -> str | None:
        """The escape character, or None."""
        return None if self.escape == "none" else self.escape


def _expand_kind(value: Any) -> Any:
    """Return the long form of a format that is written as its kind alone; `json` is another name of `jsonl`."""
    value = {"kind": value} if isinstance(value, str) else value
    if isinstance(value, dict) and value.get("kind") == "json":
        return {**value, "kind": "jsonl"}
    return value


#: A format: its kind alone, or its keys.
FormatField = Annotated[FormatSpec, BeforeValidator(_expand_kind, json_schema_input_type=FileKind | FormatSpec)]
