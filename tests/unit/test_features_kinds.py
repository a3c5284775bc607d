"""Columns of categories, dates and booleans: parsing, spelling, unseen and missing values."""

import datetime as dt
import hashlib
import math
import random

import numpy as np
import pyarrow as pa
import pytest
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from cluster.errors import DataError, SpecError
from trainer.features.fit import fit_tables
from trainer.features.fitted import check_table, embedding_sizes, encode_table, output_names, transform_table
from trainer.features.profile import bin_counts
from trainer.spec.features import BooleanSpec, CategoricalSpec, DateSpec


def fit_and_encode(rules, cells):
    """Return the fitted column of these cells, and the cells encoded by it."""
    fitted = fit_tables([{"x": cells}], {"x": rules}).fitted
    return fitted, encode_table(fitted, {"x": cells})


def test_categories_as_scikit_learn_encodes_them():
    rng = random.Random(3)
    table = {"a": rng.choices(["red", "green", "blue"], k=200), "b": rng.choices(list("vwxyz"), k=200)}
    rows = np.array([table["a"], table["b"]], dtype=object).T
    one_hot = fit_tables([table], dict.fromkeys(table, CategoricalSpec(unseen="zero", missing="reject"))).fitted
    reference = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(rows)
    assert np.array_equal(transform_table(one_hot, table), reference.transform(rows))
    strange = {"a": ["mauve", "red"], "b": ["v", "?"]}
    assert np.array_equal(
        transform_table(one_hot, strange), reference.transform(np.array([["mauve", "v"], ["red", "?"]]))
    )
    ordinal = fit_tables([table], dict.fromkeys(table, CategoricalSpec(encode="ordinal"))).fitted
    assert np.array_equal(transform_table(ordinal, table), OrdinalEncoder().fit_transform(rows))


def test_a_category_has_one_spelling():
    fitted, encoded = fit_and_encode(
        CategoricalSpec(), [" New  York", "New York\t", "Zu\u0308rich", "Zürich", "new york", 3, 3.0, "3", True]
    )
    assert fitted.columns[0].categories == ["3", "New York", "Zürich", "new york", "true"]
    assert encoded.values.argmax(axis=1).tolist() == [1, 1, 2, 2, 3, 0, 0, 0, 4]
    assert fit_and_encode(CategoricalSpec(lowercase=True), ["DE", "de"])[0].columns[0].categories == ["de"]
    assert fit_and_encode(CategoricalSpec(whitespace="keep"), ["a", "a "])[0].columns[0].categories == ["a", "a "]
    assert output_names(fitted)[-2:] == ["x is other", "x is missing"]
    assert fit_and_encode(CategoricalSpec(), ["NA", "", None])[0].columns[0].categories == ["NA"]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([1], "a list is not a category"),
        ("x" * 257, "has 257 characters, over 256"),
        ("\ud800", "is not Unicode"),
    ],
)
def test_cells_that_are_not_a_category(cell, reason):
    fitted, _ = fit_and_encode(CategoricalSpec(), ["a", "b"])
    assert reason in encode_table(fitted, {"x": [cell]}).reasons[0]


def test_unseen_missing_and_rare_categories():
    cells = ["a"] * 5 + ["b"] * 3 + ["c", None]
    fitted, encoded = fit_and_encode(CategoricalSpec(encode="ids", min_count=2), cells)
    assert embedding_sizes(fitted) == {"x": 4} and output_names(fitted) == []
    assert encoded.ids.dtype == np.int32
    assert encoded.ids[:, 0].tolist() == [0] * 5 + [1] * 3 + [2, 3]
    assert encode_table(fitted, {"x": ["?"]}).ids.tolist() == [[2]]
    fitted, _ = fit_and_encode(CategoricalSpec(unseen="reject", missing="reject"), ["a", "b"])
    assert encode_table(fitted, {"x": ["a", "z", ""]}).reasons == [None, "x: unseen value 'z'", "x: is missing"]
    _, encoded = fit_and_encode(CategoricalSpec(encode="ordinal", missing="most_frequent"), cells)
    assert encoded.values[-1, 0] == 0
    fitted, _ = fit_and_encode(CategoricalSpec(max_categories=1, unseen="zero", missing="most_frequent"), cells)
    assert transform_table(fitted, {"x": ["a", "b", None]}).tolist() == [[1], [0], [1]]
    fitted, _ = fit_and_encode(
        CategoricalSpec(encode="ordinal", categories=["small", "medium", "large"]), ["large", "small"]
    )
    assert transform_table(fitted, {"x": ["small", "medium", "large", "huge"]})[:, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="'x': 2 of its values are not among its categories, for example 'b'"):
        fit_and_encode(CategoricalSpec(max_categories=1, unseen="reject"), cells)
    with pytest.raises(SpecError, match="categories of column 'x' hold an empty, overlong or repeated category"):
        fit_and_encode(CategoricalSpec(categories=["a", "a "]), cells)


def test_hashes_are_the_documented_ones():
    _, encoded = fit_and_encode(CategoricalSpec(encode="hash", buckets=8), ["a", "b", "Zürich", None])
    for row, word in enumerate(["a", "b", "Zürich"]):
        bucket = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big") % 8
        assert encoded.values[row].nonzero()[0].tolist() == [bucket]
    assert encoded.values[3].nonzero()[0].tolist() == [8]
    assert fit_and_encode(CategoricalSpec(encode="hash_ids", buckets=8), ["a", "b", "c"])[1].ids[:, 0].tolist() == [
        7,
        5,
        3,
    ]


@pytest.mark.slow
def test_too_many_categories_are_refused_or_hashed():
    cells = pa.array([f"user {number}" for number in range(100_001)])
    with pytest.raises(DataError, match="over 100,000 different values"):
        fit_and_encode(CategoricalSpec(), cells)
    rules = {"x": CategoricalSpec(encode="hash_ids", buckets=1000)}
    at_once = fit_tables([{"x": cells}], rules)
    parts = fit_tables([{"x": cells[60_000:]}, {"x": cells[:60_000]}], rules)
    assert at_once == parts and at_once.profile.columns[0].grouped and at_once.profile.columns[0].distinct is None
    assert sum(bin_counts(at_once.profile, {"x": cells})["x"]) == 100_001


@pytest.mark.parametrize(
    ("cell", "moment"),
    [
        ("2026-03-01", "2026-03-01T00:00:00Z"),
        ("2026-03-01 12:30", "2026-03-01T12:30:00Z"),
        ("2026-03-01T12:30:00.5Z", "2026-03-01T12:30:00.500000Z"),
        ("2026-03-01T00:30:00+01:00", "2026-02-28T23:30:00Z"),
        ("2026-03-01T00:30:00.123456789-0130", "2026-03-01T02:00:00.123456Z"),
        ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
        (dt.date(2026, 3, 1), "2026-03-01T00:00:00Z"),
        (dt.datetime(2026, 3, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2026-02-28T22:00:00Z"),
        (np.array(["1969-12-31T23:59:59.9999999"], "M8[ns]"), "1969-12-31T23:59:59.999999Z"),
        (pa.array([dt.date(2026, 3, 1)]), "2026-03-01T00:00:00Z"),
        (pa.array([dt.date(2026, 3, 1)], pa.date64()), "2026-03-01T00:00:00Z"),
        (pa.array([0], pa.timestamp("s", "Europe/Berlin")), "1970-01-01T00:00:00Z"),
        ("2026-02-29", None),
        ("2026-03-01T25:00", None),
        ("01.03.2026", None),
        ("2026-3-1", None),
        ("20260301", "2026-03-01T00:00:00Z"),
        (2026.0, "2026-01-01T00:00:00Z"),
        ("2026-03-01 00:30:00+01", "2026-02-28T23:30:00Z"),
        ("2026-03-01 00:30:00 UTC", "2026-03-01T00:30:00Z"),
        (1772323200, None),
        (True, None),
    ],
)
def test_a_cell_of_dates(cell, moment):
    cells = cell if isinstance(cell, (np.ndarray, pa.Array)) else [cell]
    if moment is None:
        assert "is not a date such as 2026-03-01" in check_table({"x": DateSpec()}, {"x": cells})[0]
    else:
        assert fit_and_encode(DateSpec(), cells)[0].columns[0].first == moment


def test_dates_in_a_form_of_ones_own_and_as_numbers():
    assert fit_and_encode(DateSpec(format="%d.%m.%Y"), ["01.03.2026"])[0].columns[0].first == "2026-03-01T00:00:00Z"
    # Typed dates of the same column, for example of a Parquet file, are spelled in ISO 8601.
    assert check_table({"x": DateSpec(format="%d.%m.%Y")}, {"x": ["2026-03-01"]}) == [None]
    wrong = check_table({"x": DateSpec(format="%Y-%d-%m")}, {"x": ["2026-03-13", "2026-13-03"]})
    assert "is not a date in the format %Y-%d-%m" in wrong[0] and wrong[1] is None
    assert fit_and_encode(DateSpec(unit="s"), [1772323200])[0].columns[0].first == "2026-03-01T00:00:00Z"
    assert fit_and_encode(DateSpec(unit="ms"), [1772323200000.5])[0].columns[0].first == "2026-03-01T00:00:00.000500Z"
    outside = check_table({"x": DateSpec(unit="s")}, {"x": [1e18, math.inf]})
    assert "outside the years" in outside[0] and "is not a date" in outside[1]
    assert "outside the years" in check_table({"x": DateSpec()}, {"x": pa.array([2**60], pa.timestamp("s"))})[0]


def test_parts_of_dates_as_the_calendar_has_them():
    rng = random.Random(2)
    moments = [dt.datetime(1850, 1, 1) + dt.timedelta(seconds=rng.randrange(250 * 365 * 86400)) for _ in range(500)]
    parts = ["year", "quarter", "month", "day_of_year", "day", "weekday", "weekend", "hour", "minute", "second"]
    fitted, encoded = fit_and_encode(DateSpec(parts=parts, cyclic=False), moments)
    first = min(moments).year
    expected = [
        [
            *(m.year - first, (m.month + 2) // 3, m.month, m.timetuple().tm_yday, m.day, m.weekday()),
            *(m.weekday() >= 5, m.hour, m.minute, m.second),
        ]
        for m in moments
    ]
    assert encoded.values.tolist() == np.array(expected, float).tolist()
    fitted, encoded = fit_and_encode(
        DateSpec(parts=["elapsed", "month"], indicator=True), ["2020-01-01", "2021-01-01", "2020-12-01", None]
    )
    assert output_names(fitted) == ["x.elapsed", "x.month_sin", "x.month_cos", "x is missing"]
    assert encoded.values[:2, 0].tolist() == [0.0, 1.0]
    assert encoded.values[0, 1:3].tolist() == [0.0, 1.0]
    assert encoded.values[2, 1:3] == pytest.approx([-0.5, math.sqrt(0.75)])
    assert fitted.columns[0].fill == "2020-12-01T00:00:00Z" and encoded.values[3, 3] == 1
    assert transform_table(fitted, {"x": ["2022-01-01"]})[0, 0] == pytest.approx(731 / 366)


def test_yes_and_no():
    fitted, encoded = fit_and_encode(BooleanSpec(), ["Yes", "no", "1", 0, 1.0, True, None, "t"])
    assert encoded.values[:, 0].tolist() == [1, 0, 1, 0, 1, 1, 1, 1]
    assert "'ja' is neither yes nor no" in encode_table(fitted, {"x": ["ja"]}).reasons[0]
    assert fit_and_encode(BooleanSpec(true_words=["ja"], false_words=["nein"]), ["ja", "NEIN"])[1].values[
        :, 0
    ].tolist() == [1, 0]
    assert fit_and_encode(BooleanSpec(missing=False), pa.array([True, None]))[1].values[:, 0].tolist() == [1, 0]
