"""Searches with Ray Tune on the tiny model: each algorithm, several workers a trial, failures."""

import pytest
from tiny import tiny_spec

from cluster.console import Console
from cluster.errors import UserError
from cluster.plan import joined_nodes
from trainer.spec_load import load
from trainer.stages import Run
from tune.stage import search

TRAIN = {"epochs": 2, "batch_size": 16}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


def run_search(tiny_base, tiny_data, storage, tune, **sections):
    run = Run(
        load(tiny_spec(tiny_base, tiny_data, storage, **{"train": TRAIN, "tune": tune, **sections})), Console(), "test"
    )
    run.place(joined_nodes())
    return search(run)


def test_optuna_finds_the_better_learning_rate_and_losers_keep_no_weights(tiny_base, tiny_data, storage):
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-2]}, "train.batch_size": {"choice": [8, 16]}}
    result = run_search(tiny_base, tiny_data, storage, {"trials": 5, "space": space})
    assert len(result.trials) == 5
    assert result.metrics["macro_f1"] == max(trial.metric for trial in result.trials)
    best = max(result.trials, key=lambda trial: trial.metric)
    assert result.spec.train.learning_rate == best.values["train.learning_rate"]
    assert result.spec.tune is None
    assert all(1 <= trial.epochs <= 2 and trial.seconds > 0 for trial in result.trials)
    kept = list(result.checkpoint.parents[1].glob("*/checkpoint_*"))
    assert kept == [result.checkpoint]


def test_grid_tries_every_combination_also_of_prepared_rows(tiny_base, tiny_data, storage):
    space = {"data.max_length": {"choice": [6, 32]}, "train.learning_rate": {"choice": [1e-3, 5e-3]}}
    result = run_search(tiny_base, tiny_data, storage, {"algorithm": "grid", "scheduler": "none", "space": space})
    tried = {(trial.values["data.max_length"], trial.values["train.learning_rate"]) for trial in result.trials}
    assert tried == {(6, 1e-3), (6, 5e-3), (32, 1e-3), (32, 5e-3)}
    assert all(trial.epochs == 2 for trial in result.trials)
    assert result.spec.data.max_length in (6, 32)
    assert result.prepared.is_dir()


def test_random_with_two_workers_a_trial(tiny_base, tiny_data, storage):
    tune = {"algorithm": "random", "trials": 2, "space": {"train.learning_rate": {"uniform": [1e-3, 5e-3]}}}
    result = run_search(tiny_base, tiny_data, storage, tune, cluster={"workers": 2})
    assert len({trial.values["train.learning_rate"] for trial in result.trials}) == 2
    assert (result.checkpoint / "model.safetensors").is_file()
    assert result.metrics["macro_f1"] == max(trial.metric for trial in result.trials)


def test_a_search_in_which_nothing_works_says_why(tiny_base, tiny_data, storage):
    tune = {"trials": 2, "space": {"train.learning_rate": {"uniform": [1e-3, 2e-3]}}}
    data = {"train": str(tiny_data / "train.csv"), "test": str(tiny_data / "test.csv")}
    run = Run(load(tiny_spec(tiny_base, tiny_data, storage, data=data, train=TRAIN, tune=tune)), Console(), "test")
    run.place(joined_nodes())
    from trainer.data import prepare as preparing
    from trainer.data.prepared import Prepared

    prepared = preparing.prepare(run.spec, lambda progress: None, run.folder / "q.parquet")
    shard = next((prepared.folder / "shards").iterdir())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:64])
    try:
        with pytest.raises(UserError, match="is damaged"):
            search(run)
    finally:
        shard.write_bytes(whole)
    assert len(Prepared(prepared.folder).part("train")) > 200
