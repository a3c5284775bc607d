"""Read whole Arrow columns of values: the same results as one value at a time, in a fraction of the time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.values.spelling import NotOneValue, spell_value
from trainer.values.words import canonical_text, canonical_word

# Arrow reads these numbers as Python does. It refuses a plus sign, and an exponent may overflow.
_PLAIN_NUMBER = r"^-?[0-9]{1,300}(?:\.[0-9]{0,300})?$"
# Words in ASCII that begin with a letter other than that of True and False, and whole numbers, stay as they are.
_CANONICAL_WORD = r"^(?:[A-EG-SU-Za-z][!-~]*(?: +[!-~]+)*|0|[1-9][0-9]*)$"


class Spelled(NamedTuple):
    """A column of texts."""

    texts: pa.Array
    """string; null for a missing value, and for a value in `not_texts`."""
    not_texts: dict[int, str]
    """Row -> what its value is instead: a list, an object, bytes that are not UTF-8, a text that is not Unicode."""


def spell_values(values: Sequence[Any]) -> Spelled:
    """Return Python values, such as those of JSON or a database, as texts."""
    with contextlib.suppress(pa.ArrowException, UnicodeEncodeError):
        return Spelled(pa.array(values, pa.string()), {})  # only texts and None
    texts, reasons = _spell_each(values)
    return Spelled(pa.array(texts, pa.string()), reasons)


def spell_column(values: pa.Array | pa.ChunkedArray, decimal_sign: str = ".") -> Spelled:
    """Return each value of an Arrow column of any type as text, as `spell_value` does.

    Numbers with decimals get the `decimal_sign` that texts of the same column have.
    """
    values = one_array(values)
    kind = values.type
    if decimal_sign != "." and (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        spelled = spell_column(values)
        return spelled._replace(texts=pc.replace_substring(spelled.texts, ".", decimal_sign))
    if pa.types.is_string(kind):
        return Spelled(values, {})
    if isinstance(values, pa.ExtensionArray) and not pa.types.is_fixed_size_binary(values.storage.type):
        is_boolean = kind.extension_name == "arrow.bool8"
        return spell_column(values.storage.cast(pa.bool_()) if is_boolean else values.storage, decimal_sign)
    if pa.types.is_dictionary(kind):
        words = spell_column(values.dictionary, decimal_sign)
        texts = words.texts.take(values.indices)
        return Spelled(texts, _reasons_by_row(words.not_texts, values.indices))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or _casts_as_spelled(kind):
        return Spelled(values.cast(pa.string()), {})
    return _spell_distinct(values)


def canonical_words(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return each text of a string column in the spelling of `canonical_word`; null stays null."""
    return _change_doubtful(one_array(texts), _CANONICAL_WORD, canonical_word)


def canonical_texts(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return each text of a string column in Unicode NFC; null stays null."""
    texts = one_array(texts)
    if pc.all(pc.string_is_ascii(texts)).as_py() is not False:
        return texts
    return pa.array([None if text is None else canonical_text(text) for text in texts.to_pylist()], pa.string())


def parse_plain_numbers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the float64 numbers of a string column, and a mask of the texts that are read.

    Texts with an exponent or a plus sign are left to `parse_number`; they, other texts and null have the number 0.
    """
    trimmed = pc.utf8_trim_whitespace(texts)
    is_plain = pc.fill_null(pc.match_substring_regex(trimmed, _PLAIN_NUMBER), False)
    numbers = pc.if_else(is_plain, trimmed, pa.scalar("0", pa.string())).cast(pa.float64())
    return numbers.to_numpy(), is_plain.to_numpy(zero_copy_only=False)


def distinct_texts(texts: pa.Array) -> tuple[list[str | None], np.ndarray]:
    """Return the distinct texts of a string column, null among them, and the index (int64) of each row's text."""
    encoded = texts.dictionary_encode(null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def one_array(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, without chunks."""
    if not isinstance(values, pa.ChunkedArray):
        return values
    if values.num_chunks == 1:
        return values.chunk(0)
    combined = values.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _casts_as_spelled(kind: pa.DataType) -> bool:
    """Whether Arrow's cast to text spells all values of a type as `spell_value` does."""
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind))


def _spell_distinct(values: pa.Array) -> Spelled:
    try:
        encoded = values.dictionary_encode()
    except pa.ArrowNotImplementedError:  # lists and objects
        texts, reasons = _spell_each(_python_values(values))
        return Spelled(pa.array(texts, pa.string()), reasons)
    words, reasons = _spell_each(_python_values(encoded.dictionary))
    texts = pa.array(words, pa.string()).take(encoded.indices)
    return Spelled(texts, _reasons_by_row(reasons, encoded.indices))


def _spell_each(values: Iterable[Any]) -> tuple[list[str | None], dict[int, str]]:
    texts: list[str | None] = []
    reasons: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            texts.append(spell_value(value))
        except NotOneValue as error:
            texts.append(None)
            reasons[row] = str(error)
    return texts, reasons


def _python_values(values: pa.Array) -> list[Any]:
    kind = values.type
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        numbers = values.to_numpy(zero_copy_only=False)
        return [None if value is None else number for value, number in zip(values.to_pylist(), numbers, strict=True)]
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        return _spell_times(values).to_pylist()
    return values.to_pylist()


def _spell_times(values: pa.Array) -> pa.Array:
    """Return times as 2026-03-01T12:00:00, with a Z if their type has a zone; Python has no nanoseconds."""
    if pa.types.is_timestamp(values.type) and values.type.tz:
        values = values.cast(pa.timestamp(values.type.unit, "UTC"))
    texts = pc.replace_substring_regex(values.cast(pa.string()), r"^([0-9-]+) ", r"\1T")
    return pc.replace_substring_regex(texts, r"\.0+(Z?)$", r"\1")


def _reasons_by_row(reasons: dict[int, str], indices: pa.Array) -> dict[int, str]:
    if not reasons:
        return {}
    words = indices.to_pylist()
    return {row: reasons[word] for row, word in enumerate(words) if word in reasons}


def _change_doubtful(texts: pa.Array, sure: str, change: Callable[[str], str]) -> pa.Array:
    """Return the texts changed by `change`; those that match the pattern `sure` do not change."""
    doubtful = pc.fill_null(pc.invert(pc.match_substring_regex(texts, sure)), False)
    if not pc.any(doubtful).as_py():
        return texts
    words, word_of_row = distinct_texts(texts.filter(doubtful))
    changed = pa.array([None if word is None else change(word) for word in words], pa.string())
    return pc.replace_with_mask(texts, doubtful, changed.take(pa.array(word_of_row)))
