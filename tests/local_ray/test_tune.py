"""Searches with Ray Tune on the tiny model: algorithms, schedulers, trials with several workers, failures."""

import pytest

from cluster.console import Console
from cluster.errors import UserError
from cluster.placement_groups import active_placement_groups
from cluster.plan import joined_nodes
from cluster.ray_internals import live_actors
from support.timing import wait_until
from support.tiny_text import tiny_spec
from trainer.pipeline.run import Run
from trainer.tasks.load_spec import load_spec
from tune.stage import run_search

TRAIN = {"epochs": 2, "batch_size": 16}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


def search_tiny(tiny_base, tiny_data, storage, tune, **sections):
    run = Run(
        load_spec(tiny_spec(tiny_base, tiny_data, storage, **{"train": TRAIN, "tune": tune, **sections})),
        Console(),
        "test",
    )
    run.size_resources(joined_nodes())
    return run_search(run)


def test_tpe_finds_the_better_learning_rate_and_only_the_winner_keeps_weights(tiny_base, tiny_data, storage):
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-2]}, "train.batch_size": {"choice": [8, 16]}}
    result = search_tiny(tiny_base, tiny_data, storage, {"trials": 4, "space": space})
    assert len(result.trials) == 4
    assert result.metrics["macro_f1"] == max(trial.metric for trial in result.trials)
    best = max(result.trials, key=lambda trial: trial.metric)
    assert result.spec.train.learning_rate == best.values["train.learning_rate"]
    assert result.spec.tune is None
    assert all(1 <= trial.epochs <= 2 and trial.seconds > 0 for trial in result.trials)
    checkpoints = list(result.checkpoint.parents[1].glob("*/checkpoint_*"))
    assert checkpoints == [result.checkpoint]


def test_a_grid_tries_every_combination_including_prepared_rows(tiny_base, tiny_data, storage):
    space = {"data.max_length": {"choice": [6, 32]}, "train.learning_rate": {"choice": [1e-3, 5e-3]}}
    result = search_tiny(tiny_base, tiny_data, storage, {"algorithm": "grid", "scheduler": "none", "space": space})
    tried = {(trial.values["data.max_length"], trial.values["train.learning_rate"]) for trial in result.trials}
    assert tried == {(6, 1e-3), (6, 5e-3), (32, 1e-3), (32, 5e-3)}
    assert all(trial.epochs == 2 for trial in result.trials)
    assert result.spec.data.max_length in (6, 32)
    assert result.prepared.is_dir()


def test_a_variant_that_cannot_be_prepared_fails_its_trials_only(tiny_base, tiny_data, storage, tmp_path):
    (tmp_path / "no_model").mkdir()
    bases = [str(tmp_path / "no_model"), str(tiny_base)]
    tune = {"algorithm": "grid", "scheduler": "none", "space": {"model.base": {"choice": bases}}}
    result = search_tiny(tiny_base, tiny_data, storage, tune, train={"epochs": 1, "batch_size": 16})
    failed, finished = result.trials
    assert failed.state == "failed" and "no_model" in failed.error
    assert finished.state == "finished" and result.spec.model.base == bases[1]


@pytest.mark.long
def test_trials_with_several_workers_are_stopped_early_and_leave_no_actor_and_no_group(tiny_base, tiny_data, storage):
    """ASHA stops the trial that hardly learns, with Ray Train's processes and placement groups."""
    space = {"train.learning_rate": {"loguniform": [1e-7, 1e-2]}}
    points = [{"train.learning_rate": rate} for rate in (5e-3, 1e-7)]
    tune = {"trials": 2, "space": space, "initial_points": points, "scheduler": "asha"}
    train = {"epochs": 40, "batch_size": 16}  # long enough for the search to stop the trial before it ends
    before = set(live_actors_and_groups())  # left by earlier tests
    result = search_tiny(tiny_base, tiny_data, storage, tune, train=train, cluster={"workers": 2})
    by_rate = {trial.values["train.learning_rate"]: trial for trial in result.trials}
    assert by_rate[5e-3].state == "finished" and by_rate[5e-3].epochs == 40
    assert by_rate[1e-7].state == "stopped" and by_rate[1e-7].epochs < 40
    assert (result.checkpoint / "model.safetensors").is_file()
    assert result.metrics["macro_f1"] == max(trial.metric for trial in result.trials)
    left = lambda: {name for key, name in live_actors_and_groups().items() if key not in before}  # noqa: E731
    wait_until(lambda: not left(), within_s=120, what="no actor and no group is left")


def live_actors_and_groups():
    """Return the live actors of Ray Train and Ray Tune, and the placement groups that hold cores: names by id."""
    ours = ("Train", "Trial", "Cleaner", "Worker")
    actors = {key: name for key, name in live_actors().items() if any(word in name for word in ours)}
    return actors | active_placement_groups()


def test_a_search_without_a_result_raises_the_user_error(tiny_base, tiny_data, storage):
    tune = {"trials": 2, "space": {"train.learning_rate": {"uniform": [1e-3, 2e-3]}}}
    data = {"train": str(tiny_data / "train.csv"), "test": str(tiny_data / "test.csv")}
    run = Run(load_spec(tiny_spec(tiny_base, tiny_data, storage, data=data, train=TRAIN, tune=tune)), Console(), "test")
    run.size_resources(joined_nodes())
    from trainer.data.prepare import prepare as preparing
    from trainer.data.prepared import Prepared

    prepared = preparing.prepare_rows(run.spec, lambda progress: None, run.folder / "q.parquet")
    shard = next((prepared.folder / "shards").iterdir())
    content = shard.read_bytes()
    shard.write_bytes(content[:64])
    try:
        with pytest.raises(UserError, match="is damaged"):
            run_search(run)
    finally:
        shard.write_bytes(content)
    assert len(Prepared(prepared.folder).part("train")) > 200


SPACE = {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}, "train.weight_decay": {"uniform": [0, 0.2], "step": 0.05}}


@pytest.mark.parametrize("scheduler", ["median", "hyperband"])
def test_schedulers_that_stop_trials_early(tiny_base, tiny_data, storage, scheduler):
    tune = {"trials": 4, "space": SPACE, "scheduler": scheduler}
    result = search_tiny(tiny_base, tiny_data, storage, tune, train={"epochs": 3, "batch_size": 16})
    assert len(result.trials) == 4 and {trial.state for trial in result.trials} <= {"finished", "stopped"}
    assert max(trial.epochs for trial in result.trials) == 3
    assert (result.checkpoint / "model.safetensors").is_file()
    assert result.metrics["macro_f1"] == max(trial.metric for trial in result.trials)


def test_a_population_copies_its_best_member(tiny_base, tiny_data, storage):
    """The trial that hardly learns takes over the weights of the other, and resumes from them."""
    space = {"train.learning_rate": {"loguniform": [1e-6, 1e-2]}}
    points = [{"train.learning_rate": 1e-6}, {"train.learning_rate": 5e-3}]
    tune = {"trials": 2, "space": space, "scheduler": "pbt", "initial_points": points}
    train = {"epochs": 16, "batch_size": 16, "schedule": "constant"}
    result = search_tiny(tiny_base, tiny_data, storage, tune, train=train)
    worst = next(trial for trial in result.trials if trial.name == "0001")
    assert worst.values["train.learning_rate"] > 1e-6 * 2
    assert worst.metric > 0.5 and worst.state == "finished"
    # The trial takes over the other's epochs. If those were the last ones, it has none left to train.
    epochs = [line["epoch"] for line in worst.history]
    assert epochs[0] == 1 and epochs == sorted(set(epochs))
    assert max(trial.history[-1]["epoch"] for trial in result.trials) == 16


def test_initial_points_are_tried_first_and_conditions_hold(tiny_base, tiny_data, storage):
    space = {
        "train.loss.kind": {"choice": ["auto", "focal"]},
        "train.loss.gamma": {"uniform": [1, 3], "when": {"train.loss.kind": "focal"}},
        "train.batch_size": {"lograndint": [8, 32]},
    }
    points = [{"train.loss.kind": "focal", "train.loss.gamma": 2.0, "train.batch_size": 16}]
    tune = {"trials": 3, "algorithm": "random", "space": space, "initial_points": points, "scheduler": "none"}
    result = search_tiny(tiny_base, tiny_data, storage, tune, train={"epochs": 1, "batch_size": 16})
    assert result.trials[0].values == points[0]
    for trial in result.trials:
        assert ("train.loss.gamma" in trial.values) == (trial.values["train.loss.kind"] == "focal")
        assert 8 <= trial.values["train.batch_size"] <= 32


def test_finalists_are_trained_with_more_seeds_and_a_later_search_learns_from_them(tiny_base, tiny_data, storage):
    tune = {"trials": 2, "algorithm": "random", "space": SPACE, "finalists": 2, "seeds": 3}
    train = {"epochs": 1, "batch_size": 16}
    run = Run(load_spec(tiny_spec(tiny_base, tiny_data, storage, train=train, tune=tune)), Console(), "tune")
    run.size_resources(joined_nodes())
    result = run_search(run)
    finals = result.search.finalists
    assert len(finals) == 2 and all(set(finalist.seeds) == {42, 43, 44} for finalist in finals)
    means = [sum(finalist.seeds.values()) / 3 for finalist in finals]
    assert means[0] == max(means) and finals[0].metrics["macro_f1"] == pytest.approx(means[0])
    assert result.metrics["macro_f1"] == max(finals[0].seeds.values())
    assert result.spec.train.seed in finals[0].seeds

    again = {"trials": 1, "space": SPACE, "warm_start": [run.folder.name]}
    after = Run(load_spec(tiny_spec(tiny_base, tiny_data, storage, train=train, tune=again)), Console(), "tune")
    after.size_resources(joined_nodes())
    assert len(run_search(after).trials) == 1


@pytest.mark.long
def test_more_trials_than_the_cluster_holds_do_not_wait_forever(tiny_base, tiny_data, storage):
    tune = {"trials": 2, "max_concurrent": 10, "algorithm": "random", "space": SPACE, "scheduler": "hyperband"}
    result = search_tiny(
        tiny_base, tiny_data, storage, tune,
        train={"epochs": 1, "batch_size": 16}, cluster={"workers": 2, "cpus_per_worker": 1},
    )  # fmt: skip
    assert len(result.trials) == 2 and all(trial.metric is not None for trial in result.trials)
