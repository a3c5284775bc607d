"""Tables with Ray: the same rows by Ray Data, several workers of XGBoost and of the network."""

import numpy as np
import pytest

from support.tiny_table import make_table_rows, table_spec, write_rows
from trainer.data.prepare.prepare import prepare
from trainer.inference.predictor import Predictor
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.tasks import catalog as task_catalog
from trainer.tasks import resolve
from trainer.training.launch import fit
from trainer.training.run import run


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    write_rows(folder / "train.csv", make_table_rows(600, seed=1))
    write_rows(folder / "test.csv", make_table_rows(150, seed=2))
    return folder


def prepared_of(spec, folder, with_ray=False):
    return prepare(spec, lambda progress: None, folder / "quarantine.parquet", with_ray=with_ray)


def by_one(rows, folder, task, **sections):
    """Return the test rows' scores by a model fitted in this process, and their targets."""
    spec = resolve.load(table_spec(rows, task, **sections))
    prepared = prepared_of(spec, folder)
    last = folder / "last"
    keep = lambda figures, save: save and save(last)  # noqa: E731
    run(task_catalog.get_task(task), spec, prepared, WorkerContext(0, 1, "cpu", 1), keep, folder)
    return Predictor(last).scores(list(prepared.part("test").matrix())), prepared.part("test").targets


def by_two(rows, folder, task, **sections):
    """Return the test rows' scores by a model that two workers fitted, and its history."""
    spec = resolve.load(table_spec(rows, task, cluster={"workers": 2}, **sections))
    prepared = prepared_of(spec, folder)
    result = fit(spec, prepared.folder, folder, 1.0)
    return Predictor(result.checkpoint).scores(list(prepared.part("test").matrix())), result.history


def test_ray_data_prepares_the_same_rows(rows, tmp_path):
    spec = table_spec(rows, storage=str(tmp_path / "here"))
    here = prepared_of(resolve.load(spec), tmp_path)
    there = prepared_of(resolve.load({**spec, "storage": str(tmp_path / "there")}), tmp_path, with_ray=True)
    assert here.contract.fingerprint == there.contract.fingerprint
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(here.part(part).matrix(), there.part(part).matrix())


def test_two_workers_of_xgboost_fit_one_model(rows, tmp_path):
    # Without chance, two workers differ from one only where the histograms' bounds do.
    exact = {"kind": "xgboost", "params": {"subsample": 1.0, "colsample_bytree": 1.0, "n_estimators": 60}}
    settings = {"model": exact, "train": {"epochs": 3}}
    one, targets = by_one(rows, tmp_path, "tabular-regression", **settings)
    two, history = by_two(rows, tmp_path, "tabular-regression", **settings)
    assert len(history) == 3 and history[-1]["r2"] > 0.8
    assert np.corrcoef(one[:, 0], two[:, 0])[0, 1] > 0.995
    rmse = [np.sqrt(np.square(each[:, 0] - targets).mean()) for each in (one, two)]
    assert rmse[1] == pytest.approx(rmse[0], rel=0.1)


def test_two_workers_take_the_steps_of_one_network(rows, tmp_path):
    settings = {
        "model": {"kind": "mlp", "params": {"dropout": 0.0, "hidden": [16]}},
        "train": {"epochs": 3, "learning_rate": 5e-3},
    }
    one, _ = by_one(rows, tmp_path, "tabular-classification", **settings)
    two, _ = by_two(rows, tmp_path, "tabular-classification", **settings)
    np.testing.assert_allclose(one, two, atol=1e-3)
