"""Columns of numbers: parsing, scales compared with scikit-learn, exact sums, error bounds of quantiles."""

import decimal
import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from sklearn import datasets
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from cluster.errors import DataError
from trainer.features import sketch
from trainer.features.exact import exact_mean, exact_std, exact_sums
from trainer.features.fit import fit_tables
from trainer.features.fitted import FittedFeatures, encode_table, output_names, transform_table
from trainer.features.numeric import read_numbers
from trainer.spec.features import NumericSpec

BUNDLED = {"diabetes": datasets.load_diabetes, "breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}


def fit_and_encode(rules, cells):
    """Return the fitted column of these cells, and the cells encoded by it."""
    fitted = fit_tables([{"x": cells}], {"x": rules}).fitted
    return fitted, encode_table(fitted, {"x": cells})


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize(
    ("scale", "reference"), [("standard", StandardScaler()), ("min_max", MinMaxScaler()), ("robust", RobustScaler())]
)
def test_numbers_as_scikit_learn_scales_them(name, scale, reference):
    data = BUNDLED[name]()["data"]
    table = {f"c{column}": data[:, column] for column in range(data.shape[1])}
    fitted = fit_tables([table], {name: NumericSpec(scale=scale) for name in table}).fitted
    ours = transform_table(fitted, table)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference.fit_transform(data), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("12", 12.0),
        (" -1.5e3 ", -1500.0),
        (".5", 0.5),
        ("1,5", "'1,5' is not a number; the decimal sign is a point"),
        ("1_000", "'1_000' is not a number"),
        ("0x10", "'0x10' is not a number"),
        ("١٢", "'١٢' is not a number"),
        ("inf", "'inf' is infinite"),
        ("1e999", "'1e999' is infinite"),
        (math.inf, "inf is infinite"),
        (True, "true is not a number"),
        ([1], "a list is not a number"),
        ({"a": 1}, "an object is not a number"),
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
    fitted = FittedFeatures(
        columns=[
            {"kind": "numeric", "name": "x", "rules": NumericSpec(scale="none"), "center": 0, "scale": 1, "fill": 9}
        ]
    )
    encoded = encode_table(fitted, {"x": [cell]})
    if isinstance(number, str):
        assert encoded.reasons[0].startswith("x: ") and number in encoded.reasons[0]
    else:
        assert encoded.reasons == [None]
        assert encoded.values[0, 0] == np.float32(9 if number is None else number)


def test_every_form_of_a_numeric_column_reads_alike():
    plain = [1.5, None, -2.0, 3.0]
    forms = [
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
    results = [fit_and_encode(NumericSpec(indicator=True), form) for form in forms]
    for fitted, encoded in results:
        assert fitted == results[0][0]
        assert np.array_equal(encoded.values, results[0][1].values)
    assert output_names(results[0][0]) == ["x", "x is missing"]
    assert results[0][1].values[:, 1].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(("rule", "fill"), [("mean", 4.0), ("median", 2.0), ("zero", 0.0), (-7.0, -7.0)])
def test_the_fill_of_a_missing_number(rule, fill):
    _, encoded = fit_and_encode(NumericSpec(scale="none", missing=rule), [1.0, None, 2.0, 9.0])
    assert encoded.values[:, 0].tolist() == [1.0, fill, 2.0, 9.0]


def test_a_number_can_stand_for_missing():
    for cells in ([1, -999, 3], ["1", "-999.0", "3"], np.array([1, -999, 3])):
        _, encoded = fit_and_encode(NumericSpec(scale="none", missing_words=["-999"], indicator=True), cells)
        assert encoded.values.tolist() == [[1, 0], [2, 1], [3, 0]]


@pytest.mark.parametrize("scale", ["standard", "min_max", "robust"])
def test_a_constant_column_becomes_zero_and_large_offsets_lose_nothing(scale):
    _, encoded = fit_and_encode(NumericSpec(scale=scale), [0.1] * 7)
    assert encoded.values.tolist() == [[0.0]] * 7
    _, shifted = fit_and_encode(NumericSpec(scale=scale), [1e15 + step for step in (0.0, 1.0, 2.0, 3.0, 4.0)])
    _, plain = fit_and_encode(NumericSpec(scale=scale), [0.0, 1.0, 2.0, 3.0, 4.0])
    assert np.array_equal(shifted.values, plain.values)


def test_far_values_stay_finite():
    fitted, _ = fit_and_encode(NumericSpec(), [1.0, 2.0, 3.0])
    assert np.isfinite(transform_table(fitted, {"x": [1e308, -1e308]})).all()
    fitted, encoded = fit_and_encode(NumericSpec(scale="none"), [1e300, -1e300])
    assert np.isfinite(encoded.values).all()
    fitted, encoded = fit_and_encode(NumericSpec(), [1e300, -1e300])
    assert encoded.values.tolist() == [[1.0], [-1.0]]
    with pytest.raises(DataError, match="spans more than a float64"):
        fit_and_encode(NumericSpec(scale="min_max"), [1.7e308, -1.7e308])


def test_exact_sums_are_those_of_fractions():
    rng = np.random.default_rng(1)
    values = np.concatenate(
        [rng.normal(size=500) * 10.0 ** rng.integers(-300, 300, 500), [5e-324, -5e-324, 0.0, 1e308]]
    )
    total, squares = exact_sums(values)
    fractions = [Fraction(value) for value in values.tolist()]
    assert Fraction(total, 2**1126) == sum(fractions)
    assert Fraction(squares, 2**2252) == sum(value * value for value in fractions)
    assert exact_std(*exact_sums(np.array([5e-324, 5e-324])), 2) == 0.0
    small = rng.normal(size=1000)
    assert exact_mean(exact_sums(small)[0], 1000) == pytest.approx(math.fsum(small) / 1000, rel=1e-15)


@pytest.mark.parametrize(
    ("make", "max_width", "max_rank_error"),
    [
        (lambda rng, n: rng.normal(size=n), 2**-9, 0.0005),
        (lambda rng, n: rng.lognormal(sigma=3, size=n), 2**-8, 0.0005),
        (lambda rng, n: 1.7e9 + rng.normal(scale=1e5, size=n), 2**-24, 0.0005),
        (lambda rng, n: np.where(rng.random(n) < 0.6, 0.0, rng.exponential(size=n)), 2**-9, 0.0005),
        (lambda rng, n: rng.standard_cauchy(n), 2**-8, 0.0005),
        # One bucket has half of the rows and distant values: only the bound on values holds.
        (lambda rng, n: np.append(1e9 + rng.normal(size=n // 2), rng.lognormal(sigma=20, size=n // 2)), 2**-6, 0.5),
    ],
    ids=["normal", "lognormal", "large offset", "many zeros", "cauchy", "two far apart"],
)
def test_quantiles_of_many_values_are_within_the_stated_error(make, max_width, max_rank_error):
    values = make(np.random.default_rng(5), 200_000)
    built = sketch.build_sketch(sketch.keys_from_floats(values))
    assert 1000 < len(built.counts) <= sketch.MAX_BUCKETS
    bucket = 2.0 ** (built.level - 52)
    assert bucket <= max_width
    ordered = np.sort(values)
    for share in (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0):
        estimate, true = sketch.quantile(built, share), np.quantile(values, share)
        assert abs(estimate - true) <= 1.01 * bucket * abs(true), share
        ranks = np.searchsorted(ordered, estimate, side="left"), np.searchsorted(ordered, estimate, side="right")
        assert ranks[0] / len(values) - share < max_rank_error and share - ranks[1] / len(values) < max_rank_error, (
            share
        )


def test_parts_merge_to_the_same_buckets_in_any_order():
    rng = np.random.default_rng(6)
    keys = sketch.keys_from_floats(
        np.concatenate([rng.normal(size=60_000), rng.integers(0, 50, 5000), rng.lognormal(9, 9, 9000)])
    )
    at_once = sketch.build_sketch(keys)
    assert at_once.level > 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        shuffled = rng.permutation(keys)
        merged = sketch.build_sketch(shuffled[:0])
        for part in np.array_split(shuffled, rng.integers(2, 40)):
            merged = (
                sketch.merge_sketches(merged, sketch.build_sketch(part))
                if seed % 2
                else sketch.merge_sketches(sketch.build_sketch(part), merged)
            )
        assert merged.level == at_once.level
        for ours, theirs in zip(merged[1:], at_once[1:], strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("rules", "cells"),
    [
        ({"remove": ["$", ","]}, ["$1,234.50", "-$3", " $ 7 ", 12]),
        ({"remove": ["kg"]}, ["1234.5 kg", "-3kg", "7", 12]),
        ({"decimal_sign": ","}, ["1234,5", "-3", "7,0", 12]),
        ({"remove": ["."], "decimal_sign": ","}, ["1.234,5", "-3", "7", 12]),
    ],
)
def test_numbers_with_other_signs(rules, cells):
    rules = NumericSpec(scale="none", **rules)
    _, encoded = fit_and_encode(rules, cells)
    assert encoded.values[:, 0].tolist() == [1234.5, -3.0, 7.0, 12.0]
    parsed = read_numbers(rules, ["12 lb", "one", "", "na"])
    assert list(parsed.bad) == [0, 1] and parsed.bad[0] == "'12 lb' is not a number"
    assert parsed.missing.tolist() == [False, False, True, True]


def test_the_decimal_sign_cannot_be_removed():
    with pytest.raises(ValueError, match="which is the decimal_sign"):
        NumericSpec(remove=["."])
