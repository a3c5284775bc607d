"""Points of a search: inside the space whatever the algorithm, and learning from what came of them."""

import pytest

from cluster.errors import SpecError
from trainer.spec.tune import Goal, Tune
from tune.sampler import Sampling

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


def tune_of(**given):
    return Tune.model_validate({"space": SPACE, "trials": 30, **given})


def score(values):
    """The best where the rate is 1e-3; nothing else matters."""
    import math

    return 1.0 - abs(math.log10(values["train.learning_rate"]) + 3) / 4


@pytest.mark.parametrize("algorithm", ["tpe", "optuna", "random", "cmaes"])
def test_every_point_lies_in_the_space(algorithm):
    sampling = Sampling(tune_of(algorithm=algorithm), [F1])
    for number in range(25):
        values = sampling.draw(str(number))
        assert 1e-5 <= values["train.learning_rate"] <= 1e-2
        assert 8 <= values["train.batch_size"] <= 64 and isinstance(values["train.batch_size"], int)
        assert values["train.micro_batch_size"] in (2, 4, 6, 8)
        assert min(abs(values["train.warmup_fraction"] - step / 10) for step in range(5)) < 1e-9
        assert values["data.steps"] in SPACE["data.steps"]["choice"]
        assert ("train.loss.gamma" in values) == (values["train.loss.kind"] == "focal")
        sampling.learn(str(number), values, [score(values)])


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2"])
def test_several_goals(algorithm):
    objective = {"maximize": "macro_f1", "minimize": "model.size_mb"}
    goals = [F1, Goal("model.size_mb", "min")]
    sampling = Sampling(tune_of(algorithm=algorithm, objective=objective), goals)
    for number in range(15):
        values = sampling.draw(str(number))
        sampling.learn(str(number), values, [score(values), float(values["train.batch_size"])])
    assert sum(sampling.importance().values()) == pytest.approx(1.0)


def test_it_learns_from_points_of_others_and_finds_what_matters():
    sampling = Sampling(tune_of(), [F1])
    for exponent in range(20):
        values = {"train.learning_rate": 10 ** (-5 + exponent * 0.15), "train.batch_size": 8, "of.another": 3}
        sampling.learn(f"other{exponent}", values, [score(values)])
    drawn = [sampling.draw(str(number))["train.learning_rate"] for number in range(10)]
    assert sorted(drawn)[5] == pytest.approx(1e-3, rel=5)
    assert next(iter(sampling.importance())) == "train.learning_rate"


def test_failed_trials_and_trials_that_were_ended_early_are_told_too():
    sampling = Sampling(tune_of(), [F1])
    for number in range(12):
        values = sampling.draw(str(number))
        figures = None if number % 3 == 0 else [score(values)]
        epochs = {} if number % 3 == 0 else {1: 0.1, 2: score(values)}
        sampling.learn(str(number), values, figures, epochs, stopped=number % 3 == 1)
    assert sampling.draw("12")


def test_a_search_that_goes_on_draws_other_points_than_before():
    before = Sampling(tune_of(algorithm="random"), [F1])
    first = [before.draw(str(number)) for number in range(5)]
    again = Sampling(tune_of(algorithm="random"), [F1])
    assert [again.draw(str(number)) for number in range(5)] == first
    after = Sampling(tune_of(algorithm="random"), [F1], known=5)
    assert after.draw("5") not in first


def test_a_grid_has_each_point_once():
    space = {
        "train.loss.kind": {"choice": ["auto", "focal"]},
        "train.loss.gamma": {"choice": [1.0, 2.0], "when": {"train.loss.kind": "focal"}},
    }
    tune = Tune.model_validate({"space": space, "algorithm": "grid"})
    assert list(tune.combinations()) == [
        {"train.loss.kind": "auto"},
        {"train.loss.kind": "focal", "train.loss.gamma": 1.0},
        {"train.loss.kind": "focal", "train.loss.gamma": 2.0},
    ]
    assert tune.n_trials == 3


WRONG = [
    ({"space": {"train.epochs": {"uniform": [1, 3], "choice": [1]}}}, "exactly one"),
    ({"space": {"train.epochs": {"loguniform": [1, 3], "step": 1}}}, "step is for uniform and randint"),
    ({"space": {"train.epochs": {"randint": [1, 3], "when": {"train.seed": 1}}}}, "no key of the space with a choice"),
    ({"scheduler": "pbt", "space": {"train.epochs": {"randint": [1, 3]}}}, "may change while training"),
    ({"algorithm": "nsga2"}, "several objectives"),
    ({"objective": {"minimize": "serve.p99_ms"}}, "needs a metric of the task"),
    ({"objective": {"maximize": ["macro_f1", "serve.p99_ms"]}}, "should be minimized"),
    ({"constraints": ["fast please"]}, "serve.p99_ms <= 20"),
    ({"points": [{"train.seed": 1}]}, "no key of the space"),
    ({"objective": {"maximize": "log_loss"}}, "less is better"),
    ({"objective": {"maximize": "bleu"}}, "not computed"),
    ({"objective": {"maximize": "accuracy"}, "evaluate": {"metric": "macro_f1"}}, "take evaluate.metric out"),
]


@pytest.mark.parametrize(("given", "told"), WRONG)
def test_mistakes_are_told(given, told, tmp_path):
    from trainer.tasks.resolve import load

    given = dict(given)
    evaluate = given.pop("evaluate", {})
    tune = {"space": {"train.learning_rate": {"loguniform": [1e-5, 1e-2]}}, **given}
    spec = {"name": "a", "data": {"train": "a.csv"}, "model": {"base": "b"}, "tune": tune, "evaluate": evaluate}
    with pytest.raises(SpecError, match=told):
        load(spec)


@pytest.mark.parametrize("algorithm", ["cmaes", "nsga2"])
def test_a_point_that_names_some_keys_only_does_not_end_the_search_over_the_others(algorithm):
    goals = [F1, Goal("model.size_mb", "min")][: 2 if algorithm == "nsga2" else 1]
    objective = {"maximize": "macro_f1", "minimize": "model.size_mb"} if algorithm == "nsga2" else None
    space = {key: SPACE[key] for key in ("train.learning_rate", "train.warmup_fraction")}
    tune = Tune.model_validate({"space": space, "trials": 30, "algorithm": algorithm, "objective": objective})
    sampling = Sampling(tune, goals)
    sampling.learn("given", {"train.learning_rate": 1e-3}, [0.9, 1.0][: len(goals)])
    for number in range(8):
        values = sampling.draw(str(number))
        sampling.learn(str(number), values, [score(values), 1.0][: len(goals)])
    assert set(sampling.importance()) == set(space)
