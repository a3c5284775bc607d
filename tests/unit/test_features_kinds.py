"""Columns of categories, dates, yes and no: cells as they come, spelling, unseen and missing ones."""

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
from trainer.features.fitted import check, encode, names, sizes, transform
from trainer.features.profile import bin_counts
from trainer.spec.features import Boolean, Categorical, Date


def one(rules, cells):
    """The fitted column of these cells and what it makes of them."""
    found = fit_tables([{"x": cells}], {"x": rules}).fitted
    return found, encode(found, {"x": cells})


def test_categories_as_scikit_learn_encodes_them():
    rng = random.Random(3)
    table = {"a": rng.choices(["red", "green", "blue"], k=200), "b": rng.choices(list("vwxyz"), k=200)}
    rows = np.array([table["a"], table["b"]], dtype=object).T
    one_hot = fit_tables([table], dict.fromkeys(table, Categorical(unseen="zero", missing="refuse"))).fitted
    reference = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(rows)
    assert np.array_equal(transform(one_hot, table), reference.transform(rows))
    strange = {"a": ["mauve", "red"], "b": ["v", "?"]}
    assert np.array_equal(transform(one_hot, strange), reference.transform(np.array([["mauve", "v"], ["red", "?"]])))
    ordinal = fit_tables([table], dict.fromkeys(table, Categorical(encode="ordinal"))).fitted
    assert np.array_equal(transform(ordinal, table), OrdinalEncoder().fit_transform(rows))


def test_one_spelling_of_a_category():
    found, encoded = one(
        Categorical(), [" New  York", "New York\t", "Zu\u0308rich", "Zürich", "new york", 3, 3.0, "3", True]
    )
    assert found.columns[0].categories == ["3", "New York", "Zürich", "new york", "true"]
    assert encoded.values.argmax(axis=1).tolist() == [1, 1, 2, 2, 3, 0, 0, 0, 4]
    assert one(Categorical(lowercase=True), ["DE", "de"])[0].columns[0].categories == ["de"]
    assert one(Categorical(whitespace="keep"), ["a", "a "])[0].columns[0].categories == ["a", "a "]
    assert names(found)[-2:] == ["x is other", "x is missing"]
    assert one(Categorical(), ["NA", "", None])[0].columns[0].categories == ["NA"]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ([1], "a list is no category"),
        (math.inf, "inf is no category"),
        ("x" * 257, "has 257 characters, over 256"),
        ("\ud800", "is not Unicode"),
    ],
)
def test_what_is_no_category(cell, reason):
    found, _ = one(Categorical(), ["a", "b"])
    assert reason in encode(found, {"x": [cell]}).reasons[0]


def test_unseen_missing_and_rare_categories():
    cells = ["a"] * 5 + ["b"] * 3 + ["c", None]
    found, encoded = one(Categorical(encode="ids", min_count=2), cells)
    assert sizes(found) == {"x": 4} and names(found) == []
    assert encoded.ids.dtype == np.int32
    assert encoded.ids[:, 0].tolist() == [0] * 5 + [1] * 3 + [2, 3]
    assert encode(found, {"x": ["?"]}).ids.tolist() == [[2]]
    found, _ = one(Categorical(unseen="refuse", missing="refuse"), ["a", "b"])
    assert encode(found, {"x": ["a", "z", ""]}).reasons == [None, "x: unseen value 'z'", "x: is missing"]
    _, encoded = one(Categorical(encode="ordinal", missing="most_frequent"), cells)
    assert encoded.values[-1, 0] == 0
    found, _ = one(Categorical(max_categories=1, unseen="zero", missing="most_frequent"), cells)
    assert transform(found, {"x": ["a", "b", None]}).tolist() == [[1], [0], [1]]
    found, _ = one(Categorical(encode="ordinal", categories=["small", "medium", "large"]), ["large", "small"])
    assert transform(found, {"x": ["small", "medium", "large", "huge"]})[:, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="has 2 values that are not kept as categories, as 'b'"):
        one(Categorical(max_categories=1, unseen="refuse"), cells)
    with pytest.raises(SpecError, match="categories of column 'x' names one twice"):
        one(Categorical(categories=["a", "a "]), cells)


def test_hashes_are_the_documented_ones():
    _, encoded = one(Categorical(encode="hash", buckets=8), ["a", "b", "Zürich", None])
    for row, word in enumerate(["a", "b", "Zürich"]):
        place = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big") % 8
        assert encoded.values[row].nonzero()[0].tolist() == [place]
    assert encoded.values[3].nonzero()[0].tolist() == [8]
    assert one(Categorical(encode="hash_ids", buckets=8), ["a", "b", "c"])[1].ids[:, 0].tolist() == [7, 5, 3]


def test_very_many_categories_are_refused_or_hashed():
    cells = pa.array([f"user {number}" for number in range(100_001)])
    with pytest.raises(DataError, match="over 100,000 different values"):
        one(Categorical(), cells)
    rules = {"x": Categorical(encode="hash_ids", buckets=1000)}
    whole = fit_tables([{"x": cells}], rules)
    parts = fit_tables([{"x": cells[60_000:]}, {"x": cells[:60_000]}], rules)
    assert whole == parts and whole.profile.columns[0].grouped and whole.profile.columns[0].distinct is None
    assert sum(bin_counts(whole.profile, {"x": cells})["x"]) == 100_001


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
        ("20260301", None),
        (1772323200, None),
        (True, None),
    ],
)
def test_a_cell_of_dates(cell, moment):
    cells = cell if isinstance(cell, (np.ndarray, pa.Array)) else [cell]
    if moment is None:
        assert "is no date written as 2026-03-01" in check({"x": Date()}, {"x": cells})[0]
    else:
        assert one(Date(), cells)[0].columns[0].first == moment


def test_dates_in_a_form_of_ones_own_and_as_numbers():
    assert one(Date(format="%d.%m.%Y"), ["01.03.2026"])[0].columns[0].first == "2026-03-01T00:00:00Z"
    assert "is no date written as %d.%m.%Y" in check({"x": Date(format="%d.%m.%Y")}, {"x": ["2026-03-01"]})[0]
    assert one(Date(unit="s"), [1772323200])[0].columns[0].first == "2026-03-01T00:00:00Z"
    assert one(Date(unit="ms"), [1772323200000.5])[0].columns[0].first == "2026-03-01T00:00:00.000500Z"
    outside = check({"x": Date(unit="s")}, {"x": [1e18, math.inf]})
    assert "outside the years" in outside[0] and "is no date" in outside[1]
    assert "outside the years" in check({"x": Date()}, {"x": pa.array([2**60], pa.timestamp("s"))})[0]


def test_parts_of_dates_as_the_calendar_has_them():
    rng = random.Random(2)
    moments = [dt.datetime(1850, 1, 1) + dt.timedelta(seconds=rng.randrange(250 * 365 * 86400)) for _ in range(500)]
    parts = ["year", "quarter", "month", "day_of_year", "day", "weekday", "weekend", "hour", "minute", "second"]
    found, encoded = one(Date(parts=parts, cyclic=False), moments)
    first = min(moments).year
    expected = [
        [
            *(m.year - first, (m.month + 2) // 3, m.month, m.timetuple().tm_yday, m.day, m.weekday()),
            *(m.weekday() >= 5, m.hour, m.minute, m.second),
        ]
        for m in moments
    ]
    assert encoded.values.tolist() == np.array(expected, float).tolist()
    found, encoded = one(
        Date(parts=["elapsed", "month"], indicator=True), ["2020-01-01", "2021-01-01", "2020-12-01", None]
    )
    assert names(found) == ["x.elapsed", "x.month_sin", "x.month_cos", "x is missing"]
    assert encoded.values[:2, 0].tolist() == [0.0, 1.0]
    assert encoded.values[0, 1:3].tolist() == [0.0, 1.0]
    assert encoded.values[2, 1:3] == pytest.approx([-0.5, math.sqrt(0.75)])
    assert found.columns[0].fill == "2020-12-01T00:00:00Z" and encoded.values[3, 3] == 1
    assert transform(found, {"x": ["2022-01-01"]})[0, 0] == pytest.approx(731 / 366)


def test_yes_and_no():
    found, encoded = one(Boolean(), ["Yes", "no", "1", 0, 1.0, True, None, "t"])
    assert encoded.values[:, 0].tolist() == [1, 0, 1, 0, 1, 1, 1, 1]
    assert "'ja' is neither yes nor no" in encode(found, {"x": ["ja"]}).reasons[0]
    assert one(Boolean(true_words=["ja"], false_words=["nein"]), ["ja", "NEIN"])[1].values[:, 0].tolist() == [1, 0]
    assert one(Boolean(missing=False), pa.array([True, None]))[1].values[:, 0].tolist() == [1, 0]
