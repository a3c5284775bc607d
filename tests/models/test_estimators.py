"""Estimators for tables: each kind learns classes and numbers, is unchanged after saving and loading, and refuses
foreign files."""

import functools
import json
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import ModelError, SpecError, UserError
from cluster.files import file_sha256
from trainer.spec.train import TrainSpec
from trainer.tasks.estimators import base
from trainer.tasks.estimators import catalog as estimator_catalog
from trainer.tasks.estimators.base import FeatureTable, FitContext, TrainingLabels

CLASSES = ["logistic_regression", "random_forest", "gradient_boosting", "xgboost", "mlp"]
NUMBERS = ["linear_regression", "random_forest", "gradient_boosting", "xgboost", "mlp"]
CONTEXT = FitContext(TrainSpec(epochs=20, batch_size=32, learning_rate=5e-3, warmup_fraction=0.1))
SMALL = {
    "random_forest": {"n_estimators": 30},
    "gradient_boosting": {"max_iter": 40},
    "xgboost": {"n_estimators": 40},
    "mlp": {"hidden": [16]},
}


def table(n: int = 400, seed: int = 0) -> FeatureTable:
    """Three numbers and two columns of ids, the second one too large for a tree's categories."""
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, 4, n), rng.integers(0, 300, n)], axis=1)
    return FeatureTable(rng.normal(size=(n, 3)).astype(np.float32), ids, (4, 300))


def signal(rows: FeatureTable) -> np.ndarray:
    return rows.values[:, 0] * 2 + np.where(rows.ids[:, 0] == 2, 3.0, -1.0)


def classes(rows: FeatureTable, count: int = 2, weights: np.ndarray | None = None) -> TrainingLabels:
    cuts = np.quantile(signal(rows), np.linspace(0, 1, count + 1)[1:-1])
    return TrainingLabels(np.digitize(signal(rows), cuts).astype(np.int64), count, weights)


def numbers(rows: FeatureTable) -> TrainingLabels:
    return TrainingLabels(((signal(rows) - 0.2) / 2.0).astype(np.float32), 0, None)


def fit_estimator(kind: str, rows: FeatureTable, labels: TrainingLabels, context: FitContext = CONTEXT):
    estimator = estimator_catalog.get_estimator_class(kind)(estimator_catalog.read_params(kind, SMALL.get(kind, {})))
    for _ in estimator.fit(rows, labels, context):
        pass
    return estimator


def probabilities(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("count", [2, 3])
def test_classes_are_learned_and_kept_on_disk(kind, count, tmp_path):
    estimator = fit_estimator(kind, table(), classes(table(), count))
    new = table(200, seed=1)
    logits = estimator.logits(new)
    assert logits.shape == (200, count) and logits.dtype == np.float32
    assert (logits.argmax(axis=1) == classes(new, count).y).mean() > 0.75
    np.testing.assert_allclose(probabilities(logits).sum(axis=1), 1.0, rtol=1e-6)
    estimator.save(tmp_path)
    np.testing.assert_array_equal(estimator_catalog.load_estimator(tmp_path).logits(new), logits)


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_are_learned_and_kept_on_disk(kind, tmp_path):
    estimator = fit_estimator(kind, table(), numbers(table()))
    new = table(200, seed=1)
    predicted = estimator.logits(new)
    assert predicted.shape == (200, 1)
    errors = predicted[:, 0] - numbers(new).y
    assert np.square(errors).mean() < 0.4 * numbers(new).y.var()
    estimator.save(tmp_path)
    np.testing.assert_array_equal(estimator_catalog.load_estimator(tmp_path).logits(new), predicted)


@pytest.mark.parametrize("kind", CLASSES)
def test_one_row_scores_as_among_others(kind):
    estimator = fit_estimator(kind, table(), classes(table()))
    new = table(50, seed=1)
    alone = np.concatenate([estimator.logits(new.take(np.array([row]))) for row in range(50)])
    np.testing.assert_allclose(alone, estimator.logits(new), atol=1e-5)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_same_seed_gives_the_same_model_and_the_same_files(kind, tmp_path, monkeypatch):
    scores, files = [], []
    for year in (2026, 2027):
        # Another time, which a zip file would store.
        moment = datetime(year, 1, 1).timestamp()
        monkeypatch.setattr("time.time", functools.partial(float, moment))
        estimator = fit_estimator(kind, table(), classes(table()))
        scores.append(estimator.logits(table(seed=1)))
        (tmp_path / str(year)).mkdir()
        estimator.save(tmp_path / str(year))
        files.append({path.name: path.read_bytes() for path in (tmp_path / str(year)).iterdir()})
    np.testing.assert_array_equal(*scores)
    assert files[0] == files[1]


@pytest.mark.parametrize("kind", CLASSES)
def test_weights_of_rows_move_the_scores(kind):
    rows = table()
    labels = classes(rows)
    heavy = labels._replace(weights=np.where(labels.y == 1, 20.0, 1.0).astype(np.float32))
    noise = np.random.default_rng(5).normal(size=rows.values.shape).astype(np.float32)
    noisy = FeatureTable(noise, np.zeros_like(rows.ids), rows.sizes)
    plain, weighted = (
        probabilities(fit_estimator(kind, noisy, used).logits(noisy))[:, 1].mean() for used in (labels, heavy)
    )
    assert weighted > plain + 0.2


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_that_a_fold_lacks_has_a_column_all_the_same(kind):
    labels = classes(table())._replace(n_classes=3)
    logits = fit_estimator(kind, table(), labels).logits(table())
    assert logits.shape[1] == 3 and np.isfinite(logits).all()
    assert probabilities(logits)[:, 2].max() < 0.1


def test_rows_of_one_class_are_an_error():
    labels = TrainingLabels(np.zeros(400, np.int64), 2, None)
    with pytest.raises(UserError, match="only rows of one class"):
        fit_estimator("logistic_regression", table(), labels)


def test_a_table_without_ids_or_without_values():
    full = table()
    without_ids = FeatureTable(full.values, full.ids[:, :0], ())
    without_values = FeatureTable(full.values[:, :0], full.ids, full.sizes)
    for rows in (without_ids, without_values):
        for kind in CLASSES:
            assert fit_estimator(kind, rows, classes(full)).logits(rows).shape == (400, 2)


@pytest.mark.parametrize("kind", ["xgboost", "mlp"])
def test_an_epoch_is_a_part_of_the_fit(kind):
    estimator = estimator_catalog.get_estimator_class(kind)(estimator_catalog.read_params(kind, SMALL[kind]))
    labels = classes(table())
    losses = []
    for _ in estimator.fit(
        table(),
        labels,
        CONTEXT._replace(train=TrainSpec(epochs=4, batch_size=32, learning_rate=5e-3, warmup_fraction=0.1)),
    ):
        scores = probabilities(estimator.logits(table()))
        losses.append(-np.log(scores[np.arange(400), labels.y]).mean())
    assert len(losses) == 4 and losses == sorted(losses, reverse=True)


# -- files


@pytest.mark.parametrize("kind", CLASSES)
def test_a_damaged_model_file_is_one_error(kind, tmp_path):
    fit_estimator(kind, table(), classes(table())).save(tmp_path)
    (weights,) = (path for path in tmp_path.iterdir() if path.name != base.ESTIMATOR_FILE)
    content, before = weights.read_bytes(), file_sha256(weights)
    for damaged in (content[: len(content) // 2], b"", b"not a model"):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match="SHA-256"):
            estimator_catalog.load_estimator(tmp_path)
        change(tmp_path, sha256=file_sha256(weights))
        with pytest.raises(ModelError, match="holds no model that can be read"):
            estimator_catalog.load_estimator(tmp_path)
        change(tmp_path, sha256=before)
    weights.unlink()
    with pytest.raises(ModelError, match="holds no model that can be read"):
        estimator_catalog.load_estimator(tmp_path)


def change(folder: Path, **parts: object) -> None:
    description = json.loads((folder / base.ESTIMATOR_FILE).read_text())
    (folder / base.ESTIMATOR_FILE).write_text(json.dumps({**description, **parts}))


class _Foreign:
    """An object that a skops file could contain besides an estimator."""

    def __init__(self) -> None:
        self.run = os.system


@pytest.mark.parametrize("kind", ["random_forest", "gradient_boosting"])
def test_foreign_types_are_refused(kind, tmp_path):
    import skops.io
    from sklearn.dummy import DummyClassifier
    from sklearn.preprocessing import FunctionTransformer

    fit_estimator(kind, table(), classes(table())).save(tmp_path)
    for foreign, reason in [
        (_Foreign(), "Untrusted types"),
        (FunctionTransformer(os.system), "Untrusted types"),
        (
            DummyClassifier().fit([[0], [1]], [0, 1]),
            "holds a DummyClassifier",
        ),  # harmless to skops, but not an estimator
    ]:
        skops.io.dump(foreign, tmp_path / "model.skops")
        change(tmp_path, sha256=file_sha256(tmp_path / "model.skops"))
        with pytest.raises(ModelError, match=reason):
            estimator_catalog.load_estimator(tmp_path)


def test_a_description_of_another_kind_is_refused(tmp_path):
    fit_estimator("random_forest", table(), classes(table())).save(tmp_path)
    description = json.loads((tmp_path / base.ESTIMATOR_FILE).read_text())
    for changed, reason in [
        ({"kind": "gradient_boosting"}, "Boosting"),
        ({"kind": "os:system"}, "not known"),
        ({"n_classes": 1}, "other classes"),
        ({"n_classes": 0}, "holds a RandomForestClassifier"),
    ]:
        (tmp_path / base.ESTIMATOR_FILE).write_text(json.dumps({**description, **changed}))
        with pytest.raises(ModelError, match=reason):
            estimator_catalog.load_estimator(tmp_path)


# -- parameters


@pytest.mark.parametrize(
    ("kind", "values", "problem", "fix"),
    [
        ("xgbost", {}, "model.kind='xgbost' is not known", "did you mean 'xgboost'"),
        ("xgboost", {"max_dept": 3}, "model.params.max_dept is not known to xgboost", "did you mean 'max_depth'"),
        ("xgboost", {"max_depth": 0}, "model.params.max_depth=0", "change the value"),
        ("xgboost", {"max_depth": "deep"}, "model.params.max_depth='deep'", "change the value"),
        ("xgboost", {"gradient_boosting": {"max_dept": 3}}, "model.params.gradient_boosting.max_dept", "max_depth"),
        ("xgboost", {"gradient_boosting": 3}, "is not a section", "gradient_boosting: {...}"),
        ("logistic_regression", {"max_depth": 3}, "max_depth is not known", "model.params.random_forest.max_depth"),
        ("mlp", {"hidden": []}, "model.params.hidden=[]", "change the value"),
    ],
)
def test_wrong_parameters_are_named(kind, values, problem, fix):
    with pytest.raises(SpecError) as caught:
        estimator_catalog.read_params(kind, values)
    assert problem in caught.value.problem and fix in caught.value.fix


def test_parameters_of_another_kind_are_ignored():
    values = {"learning_rate": 0.2, "xgboost": {"max_depth": 7}, "random_forest": {"n_estimators": 5}}
    params = estimator_catalog.read_params("xgboost", values)
    assert (params.max_depth, params.learning_rate, params.n_estimators) == (7, 0.2, 300)


def test_a_missing_package_says_what_to_install():
    class Absent(estimator_catalog.get_estimator_class("xgboost")):
        needs = "no_such_package_of_boosting"

    with pytest.raises(ModelError) as caught:
        estimator_catalog.require_installed(Absent)
    assert "xgboost needs the package" in caught.value.problem and caught.value.fix == "pip install 'raymill[tabular]'"
