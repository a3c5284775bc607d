"""Columns of numbers: cells as they come, scales against scikit-learn, exact sums, quantiles within their bound."""

import decimal
import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from sklearn import datasets
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from cluster.errors import DataError
from trainer.features import exact, sketch
from trainer.features.fit import fit_tables
from trainer.features.fitted import Fitted, encode, names, transform
from trainer.spec.features import Numeric

BUNDLED = {"diabetes": datasets.load_diabetes, "breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}


def one(rules, cells):
    """The fitted column of these cells and what it makes of them."""
    found = fit_tables([{"x": cells}], {"x": rules}).fitted
    return found, encode(found, {"x": cells})


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize(
    ("scale", "reference"), [("standard", StandardScaler()), ("min_max", MinMaxScaler()), ("robust", RobustScaler())]
)
def test_numbers_as_scikit_learn_scales_them(name, scale, reference):
    data = BUNDLED[name]()["data"]
    table = {f"c{place}": data[:, place] for place in range(data.shape[1])}
    found = fit_tables([table], {name: Numeric(scale=scale) for name in table}).fitted
    ours = transform(found, table)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference.fit_transform(data), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("12", 12.0),
        (" -1.5e3 ", -1500.0),
        (".5", 0.5),
        ("1,5", "'1,5' is no number; the decimal sign is a point"),
        ("1_000", "'1_000' is no number"),
        ("0x10", "'0x10' is no number"),
        ("١٢", "'١٢' is no number"),
        ("inf", "'inf' is no number"),
        ("1e999", "'1e999' is infinite"),
        (math.inf, "inf is infinite"),
        (True, "true is no number"),
        ([1], "a list is no number"),
        ({"a": 1}, "an object is no number"),
        (2**53 + 1, float(2**53)),
        (10**400, "is infinite"),
        (decimal.Decimal("0.1"), 0.1),
        (np.int64(7), 7.0),
        ("NaN", None),
        ("n/a", None),
        ("", None),
        (None, None),
        (math.nan, None),
    ],
)
def test_a_cell_of_numbers(cell, number):
    found = Fitted(
        columns=[{"kind": "numeric", "name": "x", "rules": Numeric(scale="none"), "center": 0, "scale": 1, "fill": 9}]
    )
    got = encode(found, {"x": [cell]})
    if isinstance(number, str):
        assert got.reasons[0].startswith("x: ") and number in got.reasons[0]
    else:
        assert got.reasons == [None]
        assert got.values[0, 0] == np.float32(9 if number is None else number)


def test_every_way_a_number_column_comes_reads_alike():
    plain = [1.5, None, -2.0, 3.0]
    ways = [
        plain,
        ["1.5", "", "-2", "3.0"],
        np.array([1.5, np.nan, -2.0, 3.0]),
        np.array([1.5, np.nan, -2.0, 3.0], np.float32),
        pa.array(plain),
        pa.array(plain, pa.float16()),
        pa.array(["1.5", None, "-2", "3"], pa.large_string()),
        pa.chunked_array([["1.5", None], ["-2", "3"]]).dictionary_encode(),
        pa.array([decimal.Decimal("1.5"), None, decimal.Decimal(-2), decimal.Decimal(3)]),
    ]
    results = [one(Numeric(indicator=True), way) for way in ways]
    for found, encoded in results:
        assert found == results[0][0]
        assert np.array_equal(encoded.values, results[0][1].values)
    assert names(results[0][0]) == ["x", "x is missing"]
    assert results[0][1].values[:, 1].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(("rule", "stands_in"), [("mean", 4.0), ("median", 2.0), ("zero", 0.0), (-7.0, -7.0)])
def test_what_stands_in_for_a_missing_number(rule, stands_in):
    _, encoded = one(Numeric(scale="none", missing=rule), [1.0, None, 2.0, 9.0])
    assert encoded.values[:, 0].tolist() == [1.0, stands_in, 2.0, 9.0]


def test_a_number_that_means_missing():
    for cells in ([1, -999, 3], ["1", "-999.0", "3"], np.array([1, -999, 3])):
        _, encoded = one(Numeric(scale="none", missing_words=["-999"], indicator=True), cells)
        assert encoded.values.tolist() == [[1, 0], [2, 1], [3, 0]]


@pytest.mark.parametrize("scale", ["standard", "min_max", "robust"])
def test_a_constant_column_becomes_zero_and_large_offsets_lose_nothing(scale):
    _, encoded = one(Numeric(scale=scale), [0.1] * 7)
    assert encoded.values.tolist() == [[0.0]] * 7
    _, shifted = one(Numeric(scale=scale), [1e15 + step for step in (0.0, 1.0, 2.0, 3.0, 4.0)])
    _, plain = one(Numeric(scale=scale), [0.0, 1.0, 2.0, 3.0, 4.0])
    assert np.array_equal(shifted.values, plain.values)


def test_far_values_stay_finite():
    found, _ = one(Numeric(), [1.0, 2.0, 3.0])
    assert np.isfinite(transform(found, {"x": [1e308, -1e308]})).all()
    found, encoded = one(Numeric(scale="none"), [1e300, -1e300])
    assert np.isfinite(encoded.values).all()
    found, encoded = one(Numeric(), [1e300, -1e300])
    assert encoded.values.tolist() == [[1.0], [-1.0]]
    with pytest.raises(DataError, match="spans more than a float64"):
        one(Numeric(scale="min_max"), [1.7e308, -1.7e308])


def test_exact_sums_are_those_of_fractions():
    rng = np.random.default_rng(1)
    values = np.concatenate(
        [rng.normal(size=500) * 10.0 ** rng.integers(-300, 300, 500), [5e-324, -5e-324, 0.0, 1e308]]
    )
    total, squares = exact.sums(values)
    exactly = [Fraction(value) for value in values.tolist()]
    assert Fraction(total, 2**1126) == sum(exactly)
    assert Fraction(squares, 2**2252) == sum(value * value for value in exactly)
    assert exact.std(*exact.sums(np.array([5e-324, 5e-324])), 2) == 0.0
    small = rng.normal(size=1000)
    assert exact.mean(exact.sums(small)[0], 1000) == pytest.approx(math.fsum(small) / 1000, rel=1e-15)


@pytest.mark.parametrize(
    ("make", "widest", "off"),
    [
        (lambda rng, n: rng.normal(size=n), 2**-9, 0.0005),
        (lambda rng, n: rng.lognormal(sigma=3, size=n), 2**-8, 0.0005),
        (lambda rng, n: 1.7e9 + rng.normal(scale=1e5, size=n), 2**-24, 0.0005),
        (lambda rng, n: np.where(rng.random(n) < 0.6, 0.0, rng.exponential(size=n)), 2**-9, 0.0005),
        (lambda rng, n: rng.standard_cauchy(n), 2**-8, 0.0005),
        # One bucket holds half of the rows and strangers beside them: only the bound on values is left.
        (lambda rng, n: np.append(1e9 + rng.normal(size=n // 2), rng.lognormal(sigma=20, size=n // 2)), 2**-6, 0.5),
    ],
    ids=["normal", "lognormal", "large offset", "many zeros", "cauchy", "two far apart"],
)
def test_quantiles_of_many_values_are_within_the_stated_error(make, widest, off):
    values = make(np.random.default_rng(5), 200_000)
    grid = sketch.of(sketch.keys_of(values))
    assert 1000 < len(grid.counts) <= sketch.SIZE
    bucket = 2.0 ** (grid.level - 52)
    assert bucket <= widest
    ordered = np.sort(values)
    for share in (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0):
        got, true = sketch.quantile(grid, share), np.quantile(values, share)
        assert abs(got - true) <= 1.01 * bucket * abs(true), share
        ranks = np.searchsorted(ordered, got, side="left"), np.searchsorted(ordered, got, side="right")
        assert ranks[0] / len(values) - share < off and share - ranks[1] / len(values) < off, share


def test_parts_merge_to_the_same_buckets_in_any_order():
    rng = np.random.default_rng(6)
    keys = sketch.keys_of(
        np.concatenate([rng.normal(size=60_000), rng.integers(0, 50, 5000), rng.lognormal(9, 9, 9000)])
    )
    whole = sketch.of(keys)
    assert whole.level > 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        shuffled = rng.permutation(keys)
        merged = sketch.of(shuffled[:0])
        for part in np.array_split(shuffled, rng.integers(2, 40)):
            merged = sketch.merge(merged, sketch.of(part)) if seed % 2 else sketch.merge(sketch.of(part), merged)
        assert merged.level == whole.level
        for ours, theirs in zip(merged[1:], whole[1:], strict=True):
            assert np.array_equal(ours, theirs)
