"""The sampler of a search: points inside the space with every algorithm, and learning from results."""

import pytest

from trainer.spec.objective import Goal
from trainer.spec.tune import TuneSpec
from tune.sampler import Sampler

F1 = Goal("macro_f1", "max")
SPACE = {
    "train.learning_rate": {"loguniform": [1e-5, 1e-2]},
    "train.batch_size": {"lograndint": [8, 64]},
    "train.micro_batch_size": {"randint": [2, 8], "step": 2},
    "train.warmup_fraction": {"uniform": [0.0, 0.4], "step": 0.1},
    "data.steps": {"choice": [[], [{"strip_html": {}}]]},
    "train.loss.kind": {"choice": ["auto", "focal"]},
    "train.loss.gamma": {"uniform": [1.0, 3.0], "when": {"train.loss.kind": "focal"}},
}


def tune_spec(**options):
    return TuneSpec.model_validate({"space": SPACE, "trials": 30, **options})


def score(values):
    """Return a score that is best at a learning rate of 1e-3 and depends on nothing else."""
    import math

    return 1.0 - abs(math.log10(values["train.learning_rate"]) + 3) / 4


@pytest.mark.parametrize("algorithm", ["tpe", "random", "cmaes"])
def test_every_point_lies_in_the_space(algorithm):
    sampler = Sampler(tune_spec(algorithm=algorithm), [F1])
    for number in range(25):
        values = sampler.ask(str(number))
        assert 1e-5 <= values["train.learning_rate"] <= 1e-2
        assert 8 <= values["train.batch_size"] <= 64 and isinstance(values["train.batch_size"], int)
        assert values["train.micro_batch_size"] in (2, 4, 6, 8)
        assert min(abs(values["train.warmup_fraction"] - step / 10) for step in range(5)) < 1e-9
        assert values["data.steps"] in SPACE["data.steps"]["choice"]
        assert ("train.loss.gamma" in values) == (values["train.loss.kind"] == "focal")
        sampler.tell(str(number), values, [score(values)])


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2"])
def test_several_goals(algorithm):
    objective = {"maximize": "macro_f1", "minimize": "model.size_mb"}
    goals = [F1, Goal("model.size_mb", "min")]
    sampler = Sampler(tune_spec(algorithm=algorithm, objective=objective), goals)
    for number in range(15):
        values = sampler.ask(str(number))
        sampler.tell(str(number), values, [score(values), float(values["train.batch_size"])])
    assert sum(sampler.importance().values()) == pytest.approx(1.0)


def test_it_learns_from_other_searches_and_finds_the_important_key():
    sampler = Sampler(tune_spec(), [F1])
    for exponent in range(20):
        values = {"train.learning_rate": 10 ** (-5 + exponent * 0.15), "train.batch_size": 8, "another.key": 3}
        sampler.tell(f"other{exponent}", values, [score(values)])
    rates = [sampler.ask(str(number))["train.learning_rate"] for number in range(10)]
    assert sorted(rates)[5] == pytest.approx(1e-3, rel=5)
    assert next(iter(sampler.importance())) == "train.learning_rate"


def test_it_accepts_failed_and_stopped_trials():
    sampler = Sampler(tune_spec(), [F1])
    for number in range(12):
        values = sampler.ask(str(number))
        scores = None if number % 3 == 0 else [score(values)]
        epochs = {} if number % 3 == 0 else {1: 0.1, 2: score(values)}
        sampler.tell(str(number), values, scores, epochs, stopped=number % 3 == 1)
    assert sampler.ask("12")


def test_a_resumed_search_draws_new_points():
    before = Sampler(tune_spec(algorithm="random"), [F1])
    first = [before.ask(str(number)) for number in range(5)]
    again = Sampler(tune_spec(algorithm="random"), [F1])
    assert [again.ask(str(number)) for number in range(5)] == first
    after = Sampler(tune_spec(algorithm="random"), [F1], known=5)
    assert after.ask("5") not in first


@pytest.mark.parametrize("algorithm", ["cmaes", "nsga2"])
def test_a_point_with_some_keys_does_not_end_the_search_over_the_others(algorithm):
    goals = [F1, Goal("model.size_mb", "min")][: 2 if algorithm == "nsga2" else 1]
    objective = {"maximize": "macro_f1", "minimize": "model.size_mb"} if algorithm == "nsga2" else None
    space = {key: SPACE[key] for key in ("train.learning_rate", "train.warmup_fraction")}
    tune = TuneSpec.model_validate({"space": space, "trials": 30, "algorithm": algorithm, "objective": objective})
    sampler = Sampler(tune, goals)
    sampler.tell("initial", {"train.learning_rate": 1e-3}, [0.9, 1.0][: len(goals)])
    for number in range(8):
        values = sampler.ask(str(number))
        sampler.tell(str(number), values, [score(values), 1.0][: len(goals)])
    assert set(sampler.importance()) == set(space)
