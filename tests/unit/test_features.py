"""Features of tables, without Ray: the contract, requests, rows that cannot be used, the profile."""

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
from trainer.features.fitted import Fitted, check, encode, gather, names, transform
from trainer.features.profile import Profile, bin_counts
from trainer.spec.features import Boolean, Categorical, Columns, Date, Numeric


def one(rules, cells):
    """The fitted column of these cells and what it makes of them."""
    found = fit_tables([{"x": cells}], {"x": rules}).fitted
    return found, encode(found, {"x": cells})


def as_json(model):
    return json.loads(json.dumps(model.model_dump(mode="json"), allow_nan=False))


def test_columns_without_a_value():
    for rules in (Numeric(), Categorical(missing="most_frequent"), Boolean(), Date()):
        with pytest.raises(DataError, match="column 'x' has no"):
            one(rules, [None, ""])
    assert one(Numeric(missing="zero"), [None])[1].values.tolist() == [[0.0]]
    assert one(Categorical(), [None])[1].values.tolist() == [[0.0, 1.0]]
    with pytest.raises(DataError, match="no rows"):
        one(Numeric(), [])
    with pytest.raises(DataError, match="no rows"):
        fit_tables([], {"x": Numeric()})


def test_cells_that_cannot_be_used_stop_the_fit_and_check_finds_their_rows():
    columns = {"age": Numeric(missing="refuse"), "when": Date()}
    rows = {"age": [1, "abc", None, 4], "when": ["2020-01-01", "yesterday", "2020-01-02", None]}
    with pytest.raises(DataError, match=r"column 'age' cannot be used in 2 of 4 rows, as: 'abc' is no number"):
        fit_tables([rows], columns)
    assert check(columns, rows) == [
        None,
        "age: 'abc' is no number; when: 'yesterday' is no date written as 2026-03-01 or 2026-03-01T12:00:00Z",
        "age: is missing",
        None,
    ]
    with pytest.raises(DataError, match="no column 'age'.*\n.*did you mean 'aged'"):
        fit_tables([{"aged": [1], "when": ["2020-01-01"]}], columns)
    with pytest.raises(DataError, match="different length"):
        check(columns, {"age": [1], "when": []})
    found, _ = one(Numeric(), [1.0, 2.0])
    with pytest.raises(DataError, match="row 2: x: 'abc' is no number"):
        transform(found, {"x": [1, "abc"]})
    with pytest.raises(SpecError, match="no columns"):
        fit_tables([{"x": [1]}], {})


def mixed(n, seed):
    rng = random.Random(seed)

    def gap(value):
        return None if rng.random() < 0.1 else value

    return {
        "age": [gap(rng.gauss(40, 12)) for _ in range(n)],
        "income": [gap(str(round(rng.lognormvariate(10, 1), 2))) for _ in range(n)],
        "country": [gap(rng.choice(["DE", "FR ", " FR", "US", "NA"])) for _ in range(n)],
        "city": [gap(f"city {int(rng.paretovariate(0.7)) % 900}") for _ in range(n)],
        "joined": [gap(f"20{rng.randrange(10, 26)}-0{rng.randrange(1, 10)}-1{rng.randrange(10)}") for _ in range(n)],
        "member": [gap(rng.choice(["yes", "no"])) for _ in range(n)],
    }


MIXED = {
    "age": Numeric(indicator=True),
    "income": Numeric(scale="robust", missing="median"),
    "country": Categorical(min_count=2),
    "city": Categorical(encode="hash_ids", buckets=50),
    "joined": Date(indicator=True),
    "member": Boolean(),
}


def test_through_the_contract_and_back():
    rows = mixed(400, seed=1)
    found = fit_tables([rows], MIXED)

    def contract(features):
        return Contract(task="t", columns={}, steps=[], fitted={"features": features}, files={})

    first = contract(found.fitted.model_dump(mode="json"))
    again = Contract.model_validate(json.loads(json.dumps(first.model_dump(mode="json"), allow_nan=False)))
    assert again.fingerprint == first.fingerprint
    loaded = Fitted.model_validate(again.fitted["features"])
    assert loaded == found.fitted
    before, after = encode(found.fitted, rows), encode(loaded, rows)
    assert loaded == found.fitted and as_json(loaded) == first.fitted["features"]
    assert np.array_equal(before.values, after.values) and np.array_equal(before.ids, after.ids)
    assert before.values.shape == (400, len(names(loaded)))
    changed = as_json(found.fitted)
    changed["columns"][0]["center"] = math.nextafter(changed["columns"][0]["center"], 100)
    assert contract(changed).fingerprint != first.fingerprint
    turned = fit_tables([rows], dict(reversed(MIXED.items()))).fitted
    assert contract(as_json(turned)).fingerprint != first.fingerprint
    assert Profile.model_validate(as_json(found.profile)) == found.profile


def test_a_row_alone_is_encoded_as_among_others():
    rows = mixed(300, seed=2)
    found = fit_tables([rows], MIXED).fitted
    together, table = encode(found, rows), encode(found, pa.table(rows))
    assert np.array_equal(together.values, table.values) and np.array_equal(together.ids, table.ids)
    for row in range(0, 300, 7):
        columns, reasons = gather(found, [{name: cells[row] for name, cells in rows.items()}])
        alone = encode(found, columns)
        assert reasons == alone.reasons == [None]
        assert np.array_equal(alone.values[0], together.values[row]) and np.array_equal(alone.ids[0], together.ids[row])


def test_requests_that_are_not_as_the_columns_say():
    found, _ = one(Numeric(), [1.0, 2.0])
    columns, reasons = gather(found, [{"x": 1}, {}, {"x": 1, "y": 2}, 5, {"x": None}])
    assert reasons == [
        None,
        "no column 'x' (null if it is missing)",
        "unknown column 'y': known: x",
        "5 is no object with the columns x",
        None,
    ]
    assert columns == {"x": [1, None, 1, None, None]}


@pytest.mark.parametrize("cut", [1, 7, 400])
def test_order_and_cut_do_not_matter(cut):
    rows = mixed(2000, seed=3)
    whole = fit_tables([rows], MIXED)
    places = list(range(2000))
    random.Random(cut).shuffle(places)
    parts = [
        {name: [cells[at] for at in places[i : i + cut]] for name, cells in rows.items()} for i in range(0, 2000, cut)
    ]
    again = fit_tables(parts, MIXED)
    assert json.dumps(as_json(again.fitted)) == json.dumps(as_json(whole.fitted))
    assert json.dumps(as_json(again.profile)) == json.dumps(as_json(whole.profile))


def test_the_profile_and_live_rows_in_its_bins():
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


def test_the_rules_as_a_spec_has_them():
    parse = TypeAdapter(Columns).validate_python
    assert parse({"age": "numeric", "c": {"kind": "categorical", "encode": "hash"}}) == {
        "age": Numeric(),
        "c": Categorical(encode="hash"),
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
    assert "`standard`: mean 0" in json.dumps(TypeAdapter(Columns).json_schema())


def test_nothing_heavy_is_needed_for_a_request():
    code = (
        "import sys; from trainer.features.fitted import Fitted, encode; "
        "f = Fitted.model_validate({'columns': [{'kind': 'numeric', 'name': 'x', 'rules': {}, 'center': 0, 'scale': 1,"
        " 'fill': 0}]}); assert encode(f, {'x': ['2']}).values[0, 0] == 2; "
        "found = [m for m in ('ray', 'pandas', 'torch', 'sklearn') if m in sys.modules]; assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
