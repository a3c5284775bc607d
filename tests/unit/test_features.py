"""Features of tables, without Ray: contract, requests, bad rows, profile."""

import json
import math
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from cluster.errors import DataError, SpecError
from trainer.contract.contract import Contract
from trainer.features.fit import fit_tables
from trainer.features.fitted import (
    FittedFeatures,
    check_table,
    columns_from_objects,
    encode_table,
    output_names,
    transform_table,
)
from trainer.features.profile import FeaturesProfile, bin_counts
from trainer.spec.features import BooleanSpec, CategoricalSpec, DateSpec, FeatureSpecs, NumericSpec


def fit_and_encode(rules, cells):
    """Return the fitted column of these cells, and the cells encoded by it."""
    fitted = fit_tables([{"x": cells}], {"x": rules}).fitted
    return fitted, encode_table(fitted, {"x": cells})


def as_json(model):
    return json.loads(json.dumps(model.model_dump(mode="json"), allow_nan=False))


def test_columns_without_a_value():
    for rules in (NumericSpec(), CategoricalSpec(missing="most_frequent"), BooleanSpec(), DateSpec()):
        with pytest.raises(DataError, match="column 'x' has no"):
            fit_and_encode(rules, [None, ""])
    assert fit_and_encode(NumericSpec(missing="zero"), [None])[1].values.tolist() == [[0.0]]
    assert fit_and_encode(CategoricalSpec(), [None])[1].values.tolist() == [[0.0, 1.0]]
    with pytest.raises(DataError, match="no rows"):
        fit_and_encode(NumericSpec(), [])
    with pytest.raises(DataError, match="no rows"):
        fit_tables([], {"x": NumericSpec()})


def test_bad_cells_stop_the_fit_and_check_table_finds_their_rows():
    columns = {"age": NumericSpec(missing="reject"), "when": DateSpec()}
    rows = {"age": [1, "abc", None, 4], "when": ["2020-01-01", "yesterday", "2020-01-02", None]}
    with pytest.raises(
        DataError, match=r"column 'age' cannot be used in 2 of 4 rows, for example: 'abc' is not a number"
    ):
        fit_tables([rows], columns)
    assert check_table(columns, rows) == [
        None,
        "age: 'abc' is not a number; when: 'yesterday' is not a date such as 2026-03-01 or 2026-03-01T12:00:00Z",
        "age: is missing",
        None,
    ]
    with pytest.raises(DataError, match="no column 'age'.*\n.*did you mean 'aged'"):
        fit_tables([{"aged": [1], "when": ["2020-01-01"]}], columns)
    with pytest.raises(DataError, match="different length"):
        check_table(columns, {"age": [1], "when": []})
    fitted, _ = fit_and_encode(NumericSpec(), [1.0, 2.0])
    with pytest.raises(DataError, match="row 2: x: 'abc' is not a number"):
        transform_table(fitted, {"x": [1, "abc"]})
    with pytest.raises(SpecError, match="data.features is empty"):
        fit_tables([{"x": [1]}], {})


def mixed(n, seed):
    rng = random.Random(seed)

    def maybe_missing(value):
        return None if rng.random() < 0.1 else value

    return {
        "age": [maybe_missing(rng.gauss(40, 12)) for _ in range(n)],
        "income": [maybe_missing(str(round(rng.lognormvariate(10, 1), 2))) for _ in range(n)],
        "country": [maybe_missing(rng.choice(["DE", "FR ", " FR", "US", "NA"])) for _ in range(n)],
        "city": [maybe_missing(f"city {int(rng.paretovariate(0.7)) % 900}") for _ in range(n)],
        "joined": [
            maybe_missing(f"20{rng.randrange(10, 26)}-0{rng.randrange(1, 10)}-1{rng.randrange(10)}") for _ in range(n)
        ],
        "member": [maybe_missing(rng.choice(["yes", "no"])) for _ in range(n)],
    }


MIXED = {
    "age": NumericSpec(indicator=True),
    "income": NumericSpec(scale="robust", missing="median"),
    "country": CategoricalSpec(min_count=2),
    "city": CategoricalSpec(encode="hash_ids", buckets=50),
    "joined": DateSpec(indicator=True),
    "member": BooleanSpec(),
}


def test_through_the_contract_and_back():
    rows = mixed(400, seed=1)
    result = fit_tables([rows], MIXED)

    def contract(features):
        return Contract(task="t", columns={}, steps=[], fitted={"features": features}, files={})

    first = contract(result.fitted.model_dump(mode="json"))
    again = Contract.model_validate(json.loads(json.dumps(first.model_dump(mode="json"), allow_nan=False)))
    assert again.fingerprint == first.fingerprint
    loaded = FittedFeatures.model_validate(again.fitted["features"])
    assert loaded == result.fitted
    before, after = encode_table(result.fitted, rows), encode_table(loaded, rows)
    assert loaded == result.fitted and as_json(loaded) == first.fitted["features"]
    assert np.array_equal(before.values, after.values) and np.array_equal(before.ids, after.ids)
    assert before.values.shape == (400, len(output_names(loaded)))
    changed = as_json(result.fitted)
    changed["columns"][0]["center"] = math.nextafter(changed["columns"][0]["center"], 100)
    assert contract(changed).fingerprint != first.fingerprint
    reordered = fit_tables([rows], dict(reversed(MIXED.items()))).fitted
    assert contract(as_json(reordered)).fingerprint != first.fingerprint
    assert FeaturesProfile.model_validate(as_json(result.profile)) == result.profile


def test_a_row_alone_is_encoded_as_among_others():
    rows = mixed(300, seed=2)
    fitted = fit_tables([rows], MIXED).fitted
    together, table = encode_table(fitted, rows), encode_table(fitted, pa.table(rows))
    assert np.array_equal(together.values, table.values) and np.array_equal(together.ids, table.ids)
    for row in range(0, 300, 7):
        columns, reasons = columns_from_objects(fitted, [{name: cells[row] for name, cells in rows.items()}])
        alone = encode_table(fitted, columns)
        assert reasons == alone.reasons == [None]
        assert np.array_equal(alone.values[0], together.values[row]) and np.array_equal(alone.ids[0], together.ids[row])


def test_requests_that_do_not_match_the_columns():
    fitted, _ = fit_and_encode(NumericSpec(), [1.0, 2.0])
    columns, reasons = columns_from_objects(fitted, [{"x": 1}, {}, {"x": 1, "y": 2}, 5, {"x": None}])
    assert reasons == [
        None,
        "no column 'x' (null if it is missing)",
        "unknown column 'y': known: x",
        "5 is not an object with the columns x",
        None,
    ]
    assert columns == {"x": [1, None, 1, None, None]}


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 400])
def test_order_and_split_do_not_matter(size):
    rows = mixed(800, seed=3)
    at_once = fit_tables([rows], MIXED)
    order = list(range(800))
    random.Random(size).shuffle(order)
    parts = [
        {name: [cells[row] for row in order[i : i + size]] for name, cells in rows.items()} for i in range(0, 800, size)
    ]
    in_parts = fit_tables(parts, MIXED)
    assert json.dumps(as_json(in_parts.fitted)) == json.dumps(as_json(at_once.fitted))
    assert json.dumps(as_json(in_parts.profile)) == json.dumps(as_json(at_once.profile))


def test_profile_and_live_rows_in_its_bins():
    rows = mixed(3000, seed=4)
    profile = fit_tables([rows], MIXED).profile
    ages = np.array([age for age in rows["age"] if age is not None])
    column = profile.columns[0]
    np.testing.assert_allclose(column.quantiles, np.quantile(ages, np.linspace(0, 1, 21)), rtol=1e-12)
    assert column.mean == pytest.approx(ages.mean()) and column.std == pytest.approx(ages.std())
    assert column.missing == 3000 - len(ages)
    counts = bin_counts(profile, rows)
    for column in profile.columns:
        assert sum(column.shares) == pytest.approx(1.0)
        np.testing.assert_allclose(np.array(counts[column.name]) / 3000, column.shares, atol=1e-12)
    country = profile.columns[2]
    assert country.top[0] == "FR" and country.distinct == 4
    odd = bin_counts(profile, {**{name: [] for name in rows}, "country": ["XX", "", "FR"], "age": [1e9, "abc", None]})
    assert odd["country"] == [1, 0, 0, 0, 1, 1] and odd["age"] == [0] * 9 + [1, 1]


def test_column_rules_in_a_spec():
    parse = TypeAdapter(FeatureSpecs).validate_python
    assert parse({"age": "numeric", "c": {"kind": "categorical", "encode": "hash"}}) == {
        "age": NumericSpec(),
        "c": CategoricalSpec(encode="hash"),
    }
    assert parse({"x": {"kind": "numeric", "missing": -1}})["x"].missing == -1.0
    for wrong in (
        {"x": "number"},
        {"x": {"kind": "numeric", "scael": "none"}},
        {"x": {"kind": "numeric", "missing": math.nan}},
        {"x": {"kind": "categorical", "encode": "ids", "unseen": "zero"}},
        {"x": {"kind": "categorical", "encode": "hash", "categories": ["a"]}},
        {"x": {"kind": "categorical", "categories": ["a", "a"]}},
        {"x": {"kind": "date", "parts": []}},
        {"x": {"kind": "date", "parts": ["day", "day"]}},
        {"x": {"kind": "boolean", "true_words": ["no"]}},
    ):
        with pytest.raises(ValidationError):
            parse(wrong)
    assert "`standard`: mean 0" in json.dumps(TypeAdapter(FeatureSpecs).json_schema())


def test_nothing_heavy_is_needed_for_a_request():
    code = (
        "import sys; from trainer.features.fitted import FittedFeatures, encode_table; "
        "f = FittedFeatures.model_validate({'columns': [{'kind': 'numeric', 'name': 'x', 'rules': {}, 'center': 0, 'scale': 1,"
        " 'fill': 0}]}); assert encode_table(f, {'x': ['2']}).values[0, 0] == 2; "
        "heavy = [m for m in ('ray', 'pandas', 'torch', 'sklearn') if m in sys.modules]; assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
