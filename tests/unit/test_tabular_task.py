"""Tasks on tables: checks of specs, rows to inputs, requests to rows."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from cluster.errors import RequestError, SpecError
from support.tiny_table import FEATURES, make_table_rows, table_spec
from trainer.features.fit import fit_tables
from trainer.features.fitted import FittedFeatures, embedding_sizes
from trainer.spec.features import FeatureSpecs
from trainer.tasks import catalog as task_catalog
from trainer.tasks import load_spec
from trainer.tasks.columns import columns_of
from trainer.tasks.fitting import add_features, fit_target
from trainer.tasks.roles import features_of

ROWS = make_table_rows(300, seed=1)


@pytest.fixture(scope="module")
def task():
    return task_catalog.get_task("tabular-classification")


@pytest.fixture(scope="module")
def contract(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    unfitted = task.make_contract(load_spec.validate_spec(table_spec(folder)), folder)
    fitted = fit_target(task, unfitted, {"high": 150, "low": 150})
    return with_features(task, fitted)


def with_features(task, contract, features=FEATURES):
    rules = TypeAdapter(FeatureSpecs).validate_python(features)
    return add_features(task, contract, fit_tables([features_of(cells(ROWS))], rules).fitted)


def cells(rows):
    return pa.table({f"feature.{name}": pa.array([row[name] for row in rows], pa.string()) for name in FEATURES})


def request(**changed):
    return {
        "age": 41,
        "income": 30000.5,
        "country": "DE",
        "shop": "shop 2",
        "joined": "2021-05-01",
        "member": True,
    } | changed


def refusal(task, contract, tmp_path, inputs):
    """Return the message with which `parse` or the encoder refuses a request of these inputs."""
    try:
        columns = task.parse(contract, inputs)
    except RequestError as error:
        assert error.status == 422
        return str(error)
    reasons = task.encoder(contract, tmp_path)(columns).reasons or [""]
    (reason,) = [reason for reason in reasons if reason is not None]
    return reason


# -- specs


@pytest.mark.parametrize(
    ("sections", "problem", "fix"),
    [
        ({"data": {"features": {}}}, "data.features is empty", "age: numeric"),
        (
            {"data": {"features": {**FEATURES, "label": "categorical"}}},
            "which is the column to predict",
            "remove it from `data.features`",
        ),
        ({"data": {"columns": {"label": "age"}}}, "names 'age', which is the column to predict", "remove it"),
        ({"data": {"columns": {"labl": "spent"}}}, "data.columns has 'labl'", "did you mean 'label'"),
        ({"data": {"steps": ["normalize"]}}, "data.steps has normalize, which is for texts", "remove it"),
        ({"data": {"steps": [{"deduplicate": {"near": 0.8}}]}}, "deduplicate with near", "remove it"),
        ({"data": {"mode": "streaming"}}, "data.mode: streaming", "mode: prepared"),
        ({"model": {"base": "some/model"}}, "model.base is set", "logistic_regression"),
        ({"model": {"kind": "linear_regression"}}, "linear_regression cannot be used", "logistic_regression"),
        ({"model": {"kind": "forest"}}, "model.kind='forest' is not known", "random_forest"),
        ({"model": {"params": {"max_dept": 3}}}, "model.params.max_dept is not known", "max_depth"),
        ({"cluster": {"workers": 2}}, "is fitted by one process", "xgboost or mlp"),
        (
            {"train": {"folds": 5}, "data": {"steps": [{"balance": {"method": "oversample"}}]}},
            "not oversample: a repeated row would count twice in the metrics",
            "method: weight",
        ),
        (
            {"model": {"kind": "xgboost"}, "tune": {"space": {"model.params.max_depth": {"uniform": [2, 8]}}}},
            "model.params.max_depth=",
            "change the value",
        ),
        (
            {"tune": {"space": {"model.kind": {"choice": ["xgboost", "random_forest"]}}}},
            "asha compares trials after the same number of epochs",
            "scheduler: none",
        ),
        (
            {"tune": {"space": {"model.kind": {"choice": ["xgboost", "lightgbm"]}}, "scheduler": "none"}},
            "model.kind='lightgbm' is not known",
            "xgboost",
        ),
        (
            {
                "tune": {
                    "space": {
                        "model.kind": {"choice": ["xgboost", "logistic_regression"]},
                        "model.params.max_depth": {"randint": [2, 5]},
                    },
                    "scheduler": "none",
                }
            },
            "max_depth is not known to logistic_regression",
            "model.params.random_forest.max_depth",
        ),
    ],
)
def test_specs_that_make_no_sense_are_refused(task, tmp_path, sections, problem, fix):
    with pytest.raises(SpecError) as caught:
        task.check_spec(load_spec.validate_spec(table_spec(tmp_path, **sections)))
    assert problem in caught.value.problem and fix in caught.value.fix


def test_a_search_over_kinds_gives_each_its_own_parameters(task, tmp_path):
    space = {
        "model.kind": {"choice": ["xgboost", "logistic_regression", "mlp"]},
        "model.params.xgboost.max_depth": {"randint": [2, 5]},
        "model.params.logistic_regression.C": {"loguniform": [0.01, 10]},
    }
    spec = load_spec.validate_spec(
        table_spec(tmp_path, tune={"space": space, "scheduler": "none"}, train={"epochs": 5, "folds": 3})
    )
    task.check_spec(spec)


def test_the_target_may_be_a_column_of_any_name(tmp_path):
    task = task_catalog.get_task("tabular-classification")
    spec = load_spec.validate_spec(table_spec(tmp_path, data={"columns": {"label": "class"}}))
    assert columns_of(task, spec) == {"label": "class", **{f"feature.{name}": name for name in FEATURES}}


# -- rows


def test_rows_become_values_and_ids(task, contract, tmp_path):
    encoder = task.encoder(contract, tmp_path)
    inputs, reasons = encoder.encode_block(cells(ROWS))
    assert reasons is None and inputs.type == pa.list_(pa.float32())
    matrix = np.stack(inputs.to_numpy(zero_copy_only=False))
    fitted = FittedFeatures.model_validate(contract.fitted["features"])
    assert list(embedding_sizes(fitted)) == ["shop"] and len(matrix) == 300
    assert set(matrix[:, -1]) <= {float(at) for at in range(embedding_sizes(fitted)["shop"])}
    few = encoder({name: column.to_pylist() for name, column in zip(*_pairs(cells(ROWS[:7])), strict=True)})
    np.testing.assert_array_equal(np.stack(few.inputs), matrix[:7])


def _pairs(table):
    return table.column_names, table.columns


def test_the_contract_keeps_the_order_of_the_columns(contract):
    assert [column["name"] for column in contract.fitted["features"]["columns"]] == list(FEATURES)
    assert contract.types == {
        "feature.age": "numeric",
        "feature.income": "numeric",
        "feature.country": "categorical",
        "feature.shop": "categorical",
        "feature.joined": "date",
        "feature.member": "boolean",
        "label": "class",
    }


# -- requests


def test_a_request_means_the_row_of_a_file(task, contract, tmp_path):
    encoder = task.encoder(contract, tmp_path)
    row = {"age": "41", "income": "30000.5", "country": "DE", "shop": "shop 2", "joined": "2021-05-01", "member": "yes"}
    as_file = encoder({f"feature.{name}": [value] for name, value in row.items()}).inputs[0]
    as_json = encoder(task.parse(contract, [request()])).inputs[0]
    np.testing.assert_array_equal(as_file, as_json)


def test_a_request_goes_there_and_back(task, contract):
    inputs = [request(), request(age=None, country=None)]
    assert task.as_request(contract, task.parse(contract, inputs)) == inputs


def test_the_example_is_a_request_that_is_answered(task, contract, tmp_path):
    example = task.example(contract)
    assert list(example) == list(FEATURES) and isinstance(example["age"], float) and example["member"] is True
    assert task.encoder(contract, tmp_path)(task.parse(contract, [example])).reasons is None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([request(), request(agee=3)], "inputs[1]: unknown column 'agee': did you mean 'age'?"),
        ([{"age": 41}], "inputs[0]: no column 'income' (null if it is missing)"),
        (["DE"], "inputs[0]: 'DE' is not an object with the columns age, income"),
        ([[1, 2]], "inputs[0]: a list is not an object"),
        ([None], "inputs[0]: a value of type NoneType is not an object"),
        ([request(age=[41])], "inputs[0]: column 'age' is a list"),
        ([request(), request(shop={"name": "x"})], "inputs[1]: column 'shop' is an object"),
        ([request(age="old")], "age: 'old' is not a number"),
        ([request(age=True)], "age: true is not a number"),
        ([request(age=float("inf"))], "age: inf is infinite"),
        ([request(age="1,5")], "age: '1,5' is not a number; the decimal sign is a point"),
        ([request(member="maybe")], "member: 'maybe' is neither yes nor no"),
        ([request(joined="yesterday")], "joined: 'yesterday'"),
        ([request(country="\ud800")], "country: a text that is not Unicode is not a category"),
        ([request(age="x", member=7)], "age: 'x' is not a number; member: 7 is neither yes nor no"),
    ],
)
def test_wrong_requests_name_the_input_and_the_column(task, contract, tmp_path, inputs, message):
    assert message in refusal(task, contract, tmp_path, inputs)


@pytest.mark.parametrize("value", [float("nan"), None, "", "NA"])
def test_missing_values_are_what_the_rule_says(task, contract, tmp_path, value):
    encoded = task.encoder(contract, tmp_path)(task.parse(contract, [request(age=value)]))
    mean = task.encoder(contract, tmp_path)(task.parse(contract, [request(age=None)]))
    assert encoded.reasons is None
    np.testing.assert_array_equal(encoded.inputs[0], mean.inputs[0])


def test_an_unseen_category_is_refused_if_the_rule_says_so(task, tmp_path):
    features = {**FEATURES, "country": {"kind": "categorical", "unseen": "reject"}}
    unfitted = task.make_contract(load_spec.validate_spec(table_spec(tmp_path, data={"features": features})), tmp_path)
    contract = with_features(task, fit_target(task, unfitted, {"high": 1, "low": 1}), features)
    assert refusal(task, contract, tmp_path, [request(country="XX")]) == "country: unseen value 'XX'"


def test_a_row_is_shown_short(task, contract):
    long = request(shop="x" * 500)
    (shown,) = task.show(contract, task.parse(contract, [long]))
    assert shown.startswith("age=41, income=30000.5, country=DE, shop=xxx") and len(shown) < 170
