"""Tables with Ray: Ray Data prepares the same rows, and several workers fit one XGBoost model or one network."""

import numpy as np
import pytest

from support.tiny_table import make_table_rows, table_spec, write_rows
from trainer.data.prepare.prepare import prepare_rows
from trainer.inference.predictor import Predictor
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.tasks import catalog as task_catalog
from trainer.tasks import load_spec
from trainer.training.callbacks import FunctionCallback
from trainer.training.context import TrainContext
from trainer.training.launch import launch_training
from trainer.training.run import run_training


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    write_rows(folder / "train.csv", make_table_rows(600, seed=1))
    write_rows(folder / "test.csv", make_table_rows(150, seed=2))
    return folder


def prepare(spec, folder, with_ray=False):
    return prepare_rows(spec, lambda progress: None, folder / "quarantine.parquet", with_ray=with_ray)


def fit_with_one_worker(rows, folder, task, **sections):
    """Fit a model in this process; return its scores of the test rows, and their targets."""
    spec = load_spec.load_spec(table_spec(rows, task, **sections))
    prepared = prepare(spec, folder)
    model = folder / "last"
    callback = FunctionCallback(lambda metrics, save: save and save(model))
    worker = WorkerContext(0, 1, "cpu", 1)
    run_training(TrainContext(task_catalog.get_task(task), spec, prepared, worker, callback, folder))
    return Predictor(model).scores(list(prepared.part("test").matrix())), prepared.part("test").targets


def fit_with_two_workers(rows, folder, task, **sections):
    """Fit a model with two workers; return its scores of the test rows, and its history."""
    spec = load_spec.load_spec(table_spec(rows, task, cluster={"workers": 2}, **sections))
    prepared = prepare(spec, folder)
    result = launch_training(spec, prepared.folder, folder, 1.0)
    return Predictor(result.checkpoint).scores(list(prepared.part("test").matrix())), result.history


def test_ray_data_prepares_the_same_rows(rows, tmp_path):
    spec = table_spec(rows, storage=str(tmp_path / "local"))
    local = prepare(load_spec.load_spec(spec), tmp_path)
    with_ray = prepare(load_spec.load_spec({**spec, "storage": str(tmp_path / "ray")}), tmp_path, with_ray=True)
    assert local.contract.fingerprint == with_ray.contract.fingerprint
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(local.part(part).matrix(), with_ray.part(part).matrix())


def test_two_workers_of_xgboost_fit_one_model(rows, tmp_path):
    # Without random sampling, two workers differ from one only in the bounds of the histograms.
    exact = {"kind": "xgboost", "params": {"subsample": 1.0, "colsample_bytree": 1.0, "n_estimators": 60}}
    settings = {"model": exact, "train": {"epochs": 3}}
    one, targets = fit_with_one_worker(rows, tmp_path, "tabular-regression", **settings)
    two, history = fit_with_two_workers(rows, tmp_path, "tabular-regression", **settings)
    assert len(history) == 3 and history[-1]["r2"] > 0.8
    assert np.corrcoef(one[:, 0], two[:, 0])[0, 1] > 0.995
    rmse = [np.sqrt(np.square(scores[:, 0] - targets).mean()) for scores in (one, two)]
    assert rmse[1] == pytest.approx(rmse[0], rel=0.1)


def test_two_workers_take_the_steps_of_one_network(rows, tmp_path):
    settings = {
        "model": {"kind": "mlp", "params": {"dropout": 0.0, "hidden": [16]}},
        "train": {"epochs": 3, "learning_rate": 5e-3},
    }
    one, _ = fit_with_one_worker(rows, tmp_path, "tabular-classification", **settings)
    two, _ = fit_with_two_workers(rows, tmp_path, "tabular-classification", **settings)
    np.testing.assert_allclose(one, two, atol=1e-3)
