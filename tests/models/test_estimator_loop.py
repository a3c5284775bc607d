"""Fitting estimators on prepared tables, with a validation part or with cross-validation, without Ray."""

import json

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import DataError
from support.tiny_table import FEATURES, make_table_rows, table_spec, write_rows
from trainer.contract.contract import Contract
from trainer.data.prepare.prepare import prepare_rows
from trainer.defaults.resolve import resolve_spec
from trainer.inference import evaluate, scoring
from trainer.inference.predictor import Predictor
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.runs.journal import read_notices
from trainer.tasks import catalog as task_catalog
from trainer.tasks import load_spec
from trainer.tasks.roles import input_roles
from trainer.training import folds
from trainer.training.callbacks import FunctionCallback
from trainer.training.context import TrainContext
from trainer.training.estimator_loop import train_estimator

WORKER = WorkerContext(0, 1, "cpu", 1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    write_rows(folder / "train.csv", make_table_rows(400, seed=1))
    write_rows(folder / "test.csv", make_table_rows(150, seed=2))
    write_rows(folder / "validation.csv", make_table_rows(50, seed=3))
    return folder


def prepared_of(spec, folder):
    return prepare_rows(spec, lambda progress: None, folder / "quarantine.parquet", with_ray=False)


def trained(rows, tmp_path, task="tabular-classification", worker=WORKER, **sections):
    """Return the prepared rows, every epoch's metrics, and the folder of the best epoch's checkpoint."""
    spec = load_spec.load_spec(table_spec(rows, task, **sections))
    prepared = prepared_of(spec, tmp_path)
    spec = resolve_spec(spec, prepared).spec
    reached = []

    def report(metrics, save):
        reached.append(metrics)
        if save:
            save(tmp_path / "best")

    context = TrainContext(task_catalog.get_task(task), spec, prepared, worker, FunctionCallback(report), tmp_path)
    train_estimator(context)
    return prepared, reached, tmp_path / "best"


KINDS = [
    ("tabular-classification", "logistic_regression", {}),
    ("tabular-classification", None, {}),
    ("tabular-classification", "mlp", {"epochs": 15}),
    ("tabular-regression", "linear_regression", {}),
    ("tabular-regression", "random_forest", {}),
    ("tabular-regression", "xgboost", {"epochs": 4}),
    ("tabular-regression", "mlp", {"epochs": 15}),
]


@pytest.mark.parametrize(("task", "kind", "settings"), KINDS)
def test_a_mixed_table_is_learned_and_served(rows, tmp_path, task, kind, settings):
    model = {"kind": kind} if kind else {}
    prepared, reached, folder = trained(rows, tmp_path, task, train=settings, model=model)
    last = reached[-1]
    assert last["accuracy"] > 0.75 if task == "tabular-classification" else last["r2"] > 0.7
    assert len(reached) == settings.get("epochs", 1) and last["train_loss"] > 0

    predictor = Predictor(folder)
    test = prepared.part("test")
    raw = {role: test.raw(role) for role in input_roles(predictor.task, predictor.contract)}
    inputs = predictor.encode(raw)
    np.testing.assert_array_equal(np.stack(inputs), test.matrix())
    figures = predictor.task.target.metrics(predictor.scores(inputs), test.targets, 10)
    assert figures["accuracy"] > 0.75 if task == "tabular-classification" else figures["r2"] > 0.7
    answer = predictor.answers(predictor.encode(predictor.parse([predictor.task.example(predictor.contract)])))[0]
    assert (
        answer["label"] in ("high", "low") if task == "tabular-classification" else isinstance(answer["value"], float)
    )


def test_history_is_written_line_by_line(rows, tmp_path):
    _, reached, _ = trained(rows, tmp_path, model={"kind": "xgboost"}, train={"epochs": 5})
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    losses = [line["train_loss"] for line in lines]
    assert losses == sorted(losses, reverse=True) and losses[-1] == reached[-1]["train_loss"]


def test_early_stopping_stops_the_rounds(rows, tmp_path):
    settings = {"epochs": 50, "early_stopping_patience": 2}
    _, reached, folder = trained(rows, tmp_path, model={"kind": "xgboost"}, train=settings)
    values = [figures["macro_f1"] for figures in reached]
    assert len(values) < 50 and max(values[-2:]) <= max(values[:-2])
    assert json.loads((folder / "epoch.json").read_text())["macro_f1"] == max(values)


# -- cross-validation


@pytest.mark.parametrize(("kind", "epochs"), [("logistic_regression", 1), ("xgboost", 3), ("mlp", 8)])
def test_cross_validation_gives_the_mean_and_a_model_of_all_rows(rows, tmp_path, kind, epochs):
    prepared, reached, folder = trained(rows, tmp_path, model={"kind": kind}, train={"epochs": epochs, "folds": 4})
    assert len(reached) == epochs
    assert 0.7 < reached[-1]["macro_f1"] < 1.0 and 0.0 < reached[-1]["macro_f1_std"] < 0.2
    if kind == "xgboost":
        about = json.loads((folder / "model.json").read_text())
        assert float(about["learner"]["attributes"].get("best_score", 0)) == 0  # chosen by us, not by XGBoost
    predictor = Predictor(folder)
    test = prepared.part("test")
    assert predictor.task.target.metrics(predictor.scores(list(test.matrix())), test.targets, 10)["accuracy"] > 0.75


def test_folds_of_equal_rows_are_one_and_classes_are_dealt_out():
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 300, 1000).astype(np.uint64)
    groups = (keys % 3 == 0).astype(np.int64)
    fold_of_row = folds.assign_folds(keys, groups, 5, seed=1)
    for key in set(keys.tolist()):
        assert len(set(fold_of_row[keys == key])) == 1
    _, first = np.unique(keys, return_index=True)
    for group in (0, 1):
        counts = np.bincount(fold_of_row[first][groups[first] == group], minlength=5)
        assert counts.max() - counts.min() <= 1
    order = rng.permutation(1000)
    np.testing.assert_array_equal(folds.assign_folds(keys[order], groups[order], 5, seed=1), fold_of_row[order])
    assert (folds.assign_folds(keys, groups, 5, seed=2) != fold_of_row).any()


def test_more_folds_than_rows_are_refused():
    with pytest.raises(DataError, match="needs at least 4 different rows to train on, not 3"):
        folds.assign_folds(np.array([1, 2, 3, 3], np.uint64), np.zeros(4, np.int64), 4, seed=1)


def test_the_columns_of_a_fold_know_nothing_of_the_rows_it_is_judged_by(rows, tmp_path):
    spec = load_spec.load_spec(table_spec(rows, data={"features": {"income": {"kind": "numeric", "missing": "mean"}}}))
    prepared = prepared_of(spec, tmp_path)
    raw = folds.read_raw_features(prepared)["income"].to_pylist()
    cells = np.array([np.nan if cell in (None, "", "NA") else float(cell) for cell in raw])
    seen = np.zeros(len(cells), int)
    for fold in folds.iter_folds(prepared, np.zeros(len(cells), int), 3, 42):
        assert not set(fold.train) & set(fold.validation)
        seen[fold.validation] += 1
        own = cells[fold.train][~np.isnan(cells[fold.train])]
        there = np.flatnonzero(~np.isnan(cells))
        expected = (cells[there] - own.mean()) / own.std()
        np.testing.assert_allclose(fold.table.values[there, 0], expected, rtol=1e-4, atol=1e-5)
    assert (seen == 1).all()


def test_a_value_unseen_in_a_fold_judges_nothing(rows, tmp_path):
    plain = make_table_rows(60, seed=3)
    plain[7]["country"] = "NZ"  # occurs once, so the fold that holds this row out has not seen it
    folder = tmp_path / "rare"
    folder.mkdir()
    write_rows(folder / "train.csv", plain)
    write_rows(folder / "test.csv", make_table_rows(30, seed=4))
    features = {**FEATURES, "country": {"kind": "categorical", "unseen": "reject"}}
    spec = load_spec.load_spec(table_spec(folder, data={"features": features}, train={"folds": 3}))
    prepared = prepared_of(spec, tmp_path)
    n_rows = len(folds.read_raw_features(prepared))
    assert sum(len(fold.validation) for fold in folds.iter_folds(prepared, np.zeros(n_rows, int), 3, 42)) == n_rows - 1


def test_a_metric_that_some_folds_cannot_compute_is_the_mean_of_the_others(tmp_path):
    rows = make_table_rows(60, seed=5)
    for at, row in enumerate(rows):
        row["label"] = (
            "high" if at % 30 == 0 else "low"
        )  # two of one class, so some fold has none in its validation rows
    write_rows(tmp_path / "train.csv", rows)
    write_rows(tmp_path / "test.csv", make_table_rows(30, seed=6))
    sections = {"evaluate": {"metric": "roc_auc"}, "data": {"split": {"validation": 0.2}}}
    _, [metrics], _ = trained(tmp_path, tmp_path, train={"folds": 5}, **sections)
    assert 0 <= metrics["roc_auc"] <= 1 and "roc_auc_std" in metrics
    [notice] = [text for text in read_notices(tmp_path) if text.startswith("roc_auc")]
    assert "roc_auc is the mean of 2 of 5 folds" in notice or "roc_auc is the mean of 1 of 5 folds" in notice


@pytest.mark.parametrize("kind", ["logistic_regression", "gradient_boosting", "mlp"])
def test_a_column_without_a_value_in_a_fold_is_left_out_there(tmp_path, kind):
    rows = make_table_rows(90, seed=5)
    for at, row in enumerate(rows):
        row["only_once"] = "1.5" if at == 7 else ""  # no value for the folds that hold this row out
        row["constant"] = "3"
        row["seldom"] = "2026-01-01" if at == 7 else ""
    features = {**FEATURES, "only_once": "numeric", "constant": "numeric", "seldom": "date"}
    write_rows(tmp_path / "train.csv", rows[:60])
    write_rows(tmp_path / "test.csv", rows[60:])
    epochs = {"epochs": 2} if kind == "mlp" else {}
    sections = {"data": {"features": features, "split": {"validation": 0.2}}, "model": {"kind": kind}}
    _, reached, best = trained(tmp_path, tmp_path, train={"folds": 4, **epochs}, **sections)
    assert reached and Predictor(best)
    for name in ("only_once", "seldom"):
        [notice] = [text for text in read_notices(tmp_path) if f"'{name}'" in text]
        assert "of 4 is without the column" in notice and "in any row" in notice
    assert not any("'constant'" in text for text in read_notices(tmp_path))


def test_rows_that_the_fitted_columns_refuse_are_named(rows, tmp_path):
    features = {**FEATURES, "country": {"kind": "categorical", "unseen": "reject"}}
    prepared, _, folder = trained(rows, tmp_path, data={"features": features})
    unseen = [*make_table_rows(2, seed=4), {**make_table_rows(1, seed=5)[0], "country": "NZ"}]
    path = write_rows(tmp_path / "unseen.csv", unseen)
    labeled = evaluate.read_labeled(str(path), prepared.contract, prepared.folder)
    with pytest.raises(DataError, match=r"row 3 of the evaluated rows.*NZ"):
        scoring.score_locally(str(folder), labeled.columns, 1, False, scoring.ScoringOptions(8))
    spec = load_spec.load_spec(table_spec(rows, data={"features": features, "test": str(path)}))
    with pytest.raises(DataError, match=rf"row 3 of {path} cannot be used.*NZ"):
        prepared_of(spec, tmp_path)


def test_targets_that_are_not_known_are_told_in_the_words_of_the_target():
    for task, fitted, wrong in (
        ("tabular-classification", {"labels": ["high", "low"]}, "of label that the model was not trained on: 'odd'"),
        ("tabular-regression", {}, "of value that cannot be read: 'odd'"),
    ):
        contract = Contract(task=task, columns={}, types={}, steps=[], fitted=fitted, files={})
        with pytest.raises(DataError, match=wrong):
            evaluate.encode_targets(contract, evaluate.with_digest({}, ["odd"]))


# -- what the report says


def test_importance_is_of_whole_columns(rows, tmp_path):
    prepared, _, folder = trained(rows, tmp_path, "tabular-regression", model={"kind": "linear_regression"})
    predictor = Predictor(folder)
    profile = predictor.task.profile({"test": prepared.part("test")}, predictor.contract, predictor.model, folder)
    importance = profile["importance"]
    assert importance["figure"] == "mse" and importance["rows"] == 150
    by_name = {column["name"]: column["rise"] for column in importance["columns"]}
    assert set(by_name) == set(FEATURES)
    assert next(iter(by_name)) in ("age", "member") and by_name["age"] > 20 * abs(by_name["joined"])
    (folder / "profile.json").write_text(json.dumps(profile))
    (section,) = predictor.task.sections(predictor.contract, folder)
    assert section.charts[0].svg.startswith("<svg") and "150 held-out rows" in section.charts[0].caption


def test_without_a_profile_there_is_no_section(tmp_path, rows):
    assert task_catalog.get_task("tabular-classification").sections(None, tmp_path) == []


def test_parquet_with_types_of_its_own_gives_the_same_inputs(rows, tmp_path):
    import pyarrow.csv
    import pyarrow.parquet as pq

    # With files for all parts: the split goes by the cells' texts, and a csv may write a number in another way.
    plain = load_spec.load_spec(table_spec(rows, data={"validation": str(rows / "validation.csv")}))
    options = pyarrow.csv.ConvertOptions(
        column_types={"member": pa.string()}, null_values=["", "NA"], strings_can_be_null=True
    )
    for part in ("train", "validation", "test"):
        typed = pyarrow.csv.read_csv(rows / f"{part}.csv", convert_options=options)
        assert typed.schema.field("age").type == pa.int64() and pa.types.is_date(typed.schema.field("joined").type)
        pq.write_table(typed, tmp_path / f"{part}.parquet")
    files = {part: str(tmp_path / f"{part}.parquet") for part in ("train", "validation", "test")}
    typed = load_spec.load_spec(table_spec(rows, data=files))
    one, two = prepared_of(plain, tmp_path), prepared_of(typed, tmp_path)
    np.testing.assert_allclose(one.part("test").matrix(), two.part("test").matrix(), atol=1e-6)
