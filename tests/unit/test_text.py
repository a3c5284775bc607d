"""Blank texts: one rule for training rows, cleaned texts and requests."""

import sys
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import RequestError
from cluster.text import is_blank
from trainer.tasks import catalog as task_catalog

TASK = task_catalog.get_task("text-classification")


def reasons_of(rows):
    return pc.coalesce(*TASK.check(rows))


def rows(texts, labels=None):
    columns = {"text": pa.chunked_array([pa.array(texts, pa.string())])}
    if labels is not None:
        columns["label"] = pa.chunked_array([pa.array(labels, pa.string())])
    return pa.table(columns)


@pytest.mark.parametrize(
    "text", ["", " \t\n", "\u200b\u2060\u00ad", "\u0301\u0308", "\x00\x1f\x7f", "\u2028\u3000", "\ufeff", "\ue000"]
)
def test_blank(text):
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", " 7", "\u200bé", "字", "!", "_", "😀", "\u0378", "a\ud800"])
def test_not_blank(text):
    assert not is_blank(text)


# All code points up to the last plane of letters and the tags, and each 97th of the rest, which are unassigned or private.
CODES = sorted({*range(0x33480), *range(0xE0000, 0xE0200), *range(0x33480, sys.maxunicode + 1, 97)})


def test_no_letter_or_digit_is_invisible():
    """The shortcut for letters and digits agrees with the full check for every character of Unicode."""
    for code in CODES:
        character = chr(code)
        seen = unicodedata.category(character) in ("Cn",) or unicodedata.category(character)[0] not in "CZM"
        assert is_blank(character) != seen, hex(code)


def test_training_and_serving_agree_on_every_character():
    characters = [chr(code) for code in CODES if not 0xD800 <= code < 0xE000]
    reasons = reasons_of(rows(characters)).to_pylist()
    for character, reason in zip(characters, reasons, strict=True):
        assert (reason == "no visible character") == is_blank(character), hex(ord(character))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_training_and_serving_agree_on_texts(texts):
    for text, reason in zip(texts, reasons_of(rows(texts)).to_pylist(), strict=True):
        try:
            TASK.parse(None, [text])
        except RequestError as error:
            assert (error.status, error.code) == (422, "empty_input") and reason == "no visible character"
        else:
            assert reason is None


def test_labels_that_look_like_another_or_are_invisible():
    labels = ["tool", "tool ", "\ttool", "\u00a0tool", "two words", "\u200b", " ", None, "道具"]
    unseen = "no visible character in label"
    expected = [None, None, None, None, None, unseen, unseen, None, None]
    assert reasons_of(rows(["a"] * len(labels), labels)).to_pylist() == expected
    spelled = TASK.target.canonicalize({}, pa.chunked_array([labels[:5]])).to_pylist()
    assert spelled == ["tool"] * 4 + ["two words"]
    assert reasons_of(rows(["\u200b"], ["tool "])).to_pylist() == ["no visible character"]
    assert reasons_of(rows(["a", None])).to_pylist() == [None, None]
    assert reasons_of(rows([], [])).to_pylist() == []
