"""The one form of a value: single values, and whole columns with the same results."""

import datetime as dt
import decimal
import random
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.features.fit import fit_tables
from trainer.features.fitted import check_table, columns_from_objects, encode_table
from trainer.features.row_keys import row_keys
from trainer.features.summary import read_column
from trainer.spec.features import BooleanSpec, CategoricalSpec, DateSpec, NumericSpec
from trainer.targets.tag_cells import split_tags
from trainer.values.columns import canonical_texts, canonical_words, parse_plain_numbers, spell_column, spell_values
from trainer.values.moment_columns import parse_moments
from trainer.values.moments import format_moment, parse_moment
from trainer.values.numbers import parse_number
from trainer.values.spelling import NotOneValue, spell_list, spell_value
from trainer.values.words import canonical_text, canonical_word

UTC = dt.timezone.utc
NOON = dt.datetime(2026, 3, 1, 12)

#: The same value as csv files, JSON, Python objects of databases and Arrow hold it.
SAME = {
    "true": [True, "True", "TRUE", "true", " true ", np.bool_(True), b"true", pa.array([True]),
             pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8()))],
    "false": [False, "False", "FALSE", "false", pa.array([False])],
    "3": [3, 3.0, "3", "3.0", "3.00", " 3", decimal.Decimal(3), decimal.Decimal("3.00"), np.float32(3), np.int8(3),
          pa.array([3], pa.uint8()), pa.array([3.0]), pa.array([3.0], pa.float32()), pa.array(["3.0"]).dictionary_encode(),
          pa.array([decimal.Decimal("3.00")]), b"3"],
    "0": [0, 0.0, -0.0, "-0", "-0.0", "0.0", pa.array([-0.0])],
    "0.1": [0.1, "0.1", np.float32(0.1), np.float16(0.1), pa.array([0.1], pa.float32()), decimal.Decimal("0.1")],
    "12.50": ["12.50", decimal.Decimal("12.50"), pa.array([decimal.Decimal("12.50")])],
    "10000000000000000": [10**16, 1e16, "1e+16", "1.0E16", pa.array([1e16]), decimal.Decimal("1E+16")],
    "0.00001": [1e-5, "1e-05", "1.0E-5", pa.array([1e-5])],
    "123456789012345678901234567890": [123456789012345678901234567890, decimal.Decimal("123456789012345678901234567890"),
                                       pa.array([decimal.Decimal("123456789012345678901234567890")])],
    "18446744073709551615": [2**64 - 1, pa.array([2**64 - 1], pa.uint64())],
    "2026-03-01": [dt.date(2026, 3, 1), dt.datetime(2026, 3, 1), "2026-03-01", "2026-03-01 00:00:00",
                   "2026-03-01T00:00:00Z", pa.array([dt.date(2026, 3, 1)]), pa.array([dt.datetime(2026, 3, 1)])],
    "2026-03-01T12:00:00Z": [
        NOON, NOON.replace(tzinfo=UTC), "2026-03-01 12:00:00", "2026-03-01T12:00:00", "2026-03-01 12:00:00+00",
        "2026-03-01 14:00:00+02", "2026-03-01T12:00:00.000Z", "2026-03-01 12:00:00 UTC", "2026-03-01 12:00:00 +0000",
        dt.datetime(2026, 3, 1, 14, tzinfo=dt.timezone(dt.timedelta(hours=2))), pd.Timestamp(NOON),
        pa.array([NOON], pa.timestamp("ns")), pa.array([NOON], pa.timestamp("s", "Asia/Tokyo")),
    ],
    "9999-12-31": [dt.date(9999, 12, 31), "9999-12-31", pa.array([dt.date(9999, 12, 31)])],
    "12:30:00.5": [dt.time(12, 30, 0, 500_000), "12:30:00.500000", pa.array([dt.time(12, 30, 0, 500_000)])],
    "Zürich": ["Zürich", "Zu\u0308rich", " Zürich\t", "Zürich".encode(), pa.array(["Zu\u0308rich"]),
               pa.array(["Zürich"], pa.large_string()), pa.array(["Zürich"], pa.string_view())],
    "12345678-1234-5678-1234-567812345678": [uuid.UUID(int=0x12345678123456781234567812345678)],
}  # fmt: skip
#: Words that stay as they are, although a number or a date could be read in them.
KEPT = [
    "007",
    "3.10",
    "1e5",
    "2E3",
    "5E-3",
    "+3",
    "1,5",
    "0x10",
    "nan",
    "None",
    "tRUE",
    "2026-03",
    "2026-13-01 12:00",
    "é",
]
MISSING = [None, float("nan"), np.float32("nan"), decimal.Decimal("nan"), pd.NaT, pd.NA]


def as_word(value):
    if isinstance(value, pa.Array):
        return canonical_words(spell_column(value).texts)[0].as_py()
    return canonical_word(spell_value(value))


@pytest.mark.parametrize("word", SAME)
def test_a_value_is_one_word_whatever_holds_it(word):
    assert {as_word(value) for value in SAME[word]} == {word}
    assert canonical_word(word) == word


def test_words_that_only_look_like_numbers_stay():
    assert [canonical_word(word) for word in KEPT] == KEPT
    assert canonical_words(pa.array(KEPT)).to_pylist() == KEPT


def test_missing_values_have_no_spelling():
    assert [spell_value(value) for value in MISSING] == [None] * len(MISSING)
    assert spell_column(pa.array([None, float("nan")])).texts.to_pylist() == [None, None]
    assert spell_column(pa.nulls(1)).texts.to_pylist() == [None]


@pytest.mark.parametrize(
    ("value", "found"),
    [([1], "a list"), ({"a": 1}, "an object"), (b"\xff", "bytes that are not UTF-8"), ("\ud800", "a text that is not")],
)
def test_what_is_not_one_value(value, found):
    with pytest.raises(NotOneValue, match=found):
        spell_value(value)
    assert spell_values(["a", value]).not_texts[1].startswith(found)
    if not isinstance(value, str):
        assert spell_column(pa.array([None, value])).not_texts == {1: found}


def test_lists_are_spelled_by_their_items():
    assert spell_list([3.0, True, None, "Zu\u0308"]) == '["3", "true", null, "Zu\u0308"]'
    assert split_tags(spell_list([3.0, True, "Zu\u0308"])) == split_tags("3|True|Zü") == ["3", "true", "Zü"]


WORDS = st.one_of(
    st.text(max_size=12), st.floats().map(repr), st.integers().map(str), st.decimals().map(str), st.booleans().map(str),
    st.datetimes().map(str), st.sampled_from(KEPT),
)  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.lists(WORDS, max_size=20))
def test_columns_read_as_single_values_do(words):
    texts = pa.array(words, pa.string())
    assert canonical_words(texts).to_pylist() == [canonical_word(word) for word in words]
    assert canonical_texts(texts).to_pylist() == [canonical_text(word) for word in words]
    assert all(canonical_word(canonical_word(word)) == canonical_word(word) for word in words)
    numbers, is_read = parse_plain_numbers(texts)
    for word, number, read in zip(words, numbers, is_read, strict=True):
        assert not read or number == parse_number(word)
    moments, is_moment = parse_moments(texts)
    for word, moment, read in zip(words, moments, is_moment, strict=True):
        assert (int(moment) if read else None) == parse_moment(word)


def random_time(rng):
    day = f"{rng.choice([0, 1, 1583, 1969, 2000, 2024, 9999]):04d}-{rng.randint(0, 13):02d}-{rng.randint(0, 32):02d}"
    time = f"{rng.randint(0, 25):02d}:{rng.randint(0, 61):02d}"
    second = rng.choice(["", f":{rng.randint(0, 61):02d}"])
    fraction = rng.choice(["", ".5", ",123456", ".123456789"]) if second else ""
    zone = rng.choice(["", "Z", " UTC", "+00", "-05:30", "+0530", "+05:30:15", " +0000", "+24", "-12:60", "x"])
    return rng.choice([day, f"{day}{rng.choice(' T')}{time}{second}{fraction}{zone}", day.replace("-", "")])


def test_a_column_of_times_reads_as_each_time_alone_does():
    """One cell never decides over another: each is read as in a column of its own."""
    rng = random.Random(3)
    cells = [random_time(rng) for _ in range(4000)] + ["9999-12-31", "2026-03-01T00:00:00.123456789", "infinity", None]
    rng.shuffle(cells)
    moments, is_moment = parse_moments(pa.array(cells))
    expected = [None if cell is None else parse_moment(cell) for cell in cells]
    assert [int(moment) if read else None for moment, read in zip(moments, is_moment, strict=True)] == expected
    assert 500 < sum(moment is not None for moment in expected) < 3500


def test_points_in_time_go_there_and_back():
    for text in ("0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"):
        assert format_moment(parse_moment(text)) == text
    assert parse_moment("9999-12-31T23:59:59-01") is None and parse_moment("0001-01-01T00:00:00+01") is None


# -- columns of tables: the same cells as texts, as JSON, and typed

RULES = {
    "number": NumericSpec(missing_words=["", "-999"]),
    "comma": NumericSpec(decimal_sign=",", remove=["."]),
    "category": CategoricalSpec(),
    "boolean": BooleanSpec(),
    "words": BooleanSpec(true_words=["ja"], false_words=["nein"]),
    "date": DateSpec(),
    "format": DateSpec(format="%d.%m.%Y"),
    "unit": DateSpec(unit="s"),
}
#: Kind of column -> texts of a csv file, JSON values, Arrow column: the same values.
CELLS = {
    "number": (["1.5", "-999", "", "3.0"], [1.5, -999, None, 3], pa.array([1.5, -999.0, None, 3.0])),
    "comma": (["1.234,5", "2,25", "3"], [1234.5, 2.25, 3], pa.array([1234.5, 2.25, 3.0])),
    "category": (["3.0", "True", "12.50", ""], [3, True, 12.5, None], pa.array(["3", "true", "12.50", None])),
    "boolean": (["True", "0.0", ""], [True, 0, None], pa.array([True, False, None])),
    "words": (["ja", "Nein", ""], [True, False, None], pa.array([1.0, 0.0, None])),
    "date": (["2026-03-01 12:00:00+00", ""], ["2026-03-01T12:00:00Z", None], pa.array([NOON, None], pa.timestamp("ns"))),
    "format": (["01.03.2026", ""], ["01.03.2026", None], pa.array([dt.date(2026, 3, 1), None])),
    "unit": (["1772323200", ""], [1772323200, None], pa.array([1772323200, None])),
}  # fmt: skip


@pytest.mark.parametrize("kind", CELLS)
def test_texts_json_and_typed_columns_of_a_table_are_the_same(kind):
    rules, (texts, values, typed) = RULES[kind], CELLS[kind]
    fitted = fit_tables([{"x": pa.array(texts)}], {"x": rules}).fitted
    forms = [texts, pa.array(texts), values, typed, typed.to_pylist()]
    encoded = [encode_table(fitted, {"x": cells}) for cells in forms]
    for table in encoded:
        assert table.reasons == [None] * len(texts) and not table.unseen
        np.testing.assert_array_equal(table.values, encoded[0].values)
    if kind != "category":  # a category 12.5 is not among those of the column, but stands for 12.50
        keys = [row_keys([read_column(rules, cells)], len(texts)).tolist() for cells in forms]
        assert all(row == keys[0] for row in keys)


def test_a_category_of_decimals_stands_for_the_same_number_and_not_for_another_text():
    fitted = fit_tables([{"x": pa.array(["3.10", "3.1", "12.50", "9.9"])}], {"x": CategoricalSpec()}).fitted
    assert fitted.columns[0].categories == ["12.50", "3.1", "3.10", "9.9"]
    codes = encode_table(fitted, {"x": ["3.10", "3.1", 3.1, 12.5, "9.90"]}).values.argmax(axis=1).tolist()
    assert codes == [2, 1, 1, 0, 4]


def test_values_that_no_training_row_had_are_counted():
    rules = {"zone": CategoricalSpec(), "age": NumericSpec(), "member": BooleanSpec(), "day": DateSpec()}
    rows = {"zone": ["a", "b"], "age": ["1", ""], "member": ["yes", "no"], "day": ["2026-03-01", "2026-03-02"]}
    fitted = fit_tables([{name: pa.array(cells) for name, cells in rows.items()}], rules).fitted
    asked = {"zone": ["c", None, "a"], "age": [None, 2, 3], "member": [None, True, True], "day": [None, None, "x"]}
    table = encode_table(fitted, asked)
    assert table.unseen == {"zone": 2, "member": 1, "day": 2} and "day: 'x'" in table.reasons[2]
    rare = fit_tables([{"zone": pa.array(["a", "a", "b"])}], {"zone": CategoricalSpec(min_count=2)}).fitted
    assert encode_table(rare, {"zone": ["new"]}).unseen == {}  # training rows were "other", too


def test_columns_of_a_request_are_known_in_either_unicode_form():
    assert columns_from_objects(["Größe"], [{"Gro\u0308ße": 1}]) == ({"Größe": [1]}, [None])
    twice = columns_from_objects(["Größe"], [{"Größe": 1, "Gro\u0308ße": 2}])
    assert "unknown column" in twice[1][0]


def test_messages_show_what_a_client_sent():
    assert check_table({"x": BooleanSpec()}, {"x": [7, "7"]}) == [
        "x: 7 is neither yes nor no",
        "x: '7' is neither yes nor no",
    ]
