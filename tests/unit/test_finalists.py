"""The finalists of a search and its winner."""

import pytest

from trainer.runs.result import TrialRecord
from trainer.spec.objective import Constraint, Goal
from trainer.tasks.load_spec import load_spec
from tune.finalists import best_run_name, points_with_more_seeds, rank_trials, score_finalists, select_finalists
from tune.objectives import list_goals, pareto_front, violated_constraints


def spec_of(**tune):
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-2]}, "model.base": {"choice": ["small", "large"]}}
    tune = {"space": space, "trials": 20, **tune}
    return load_spec({"name": "a", "data": {"train": "a.csv"}, "model": {"base": "large"}, "tune": tune})


def trial(name, f1, base="large", size=90.0, seed=None):
    values = {"train.learning_rate": 1e-3, "model.base": base, **({"train.seed": seed} if seed else {})}
    metrics = {"macro_f1": f1, "model.size_mb": size, "train.seconds": 3.0} if f1 is not None else {}
    return TrialRecord(name, values, f1, 3, 3.0, [], metrics=metrics)


def test_no_other_candidate_dominates_the_pareto_front():
    goals = [Goal("macro_f1", "max"), Goal("serve.p99_ms", "min")]
    values = [(0.9, 20.0), (0.8, 5.0), (0.7, 6.0), (0.9, 25.0), (0.95, 90.0)]
    front = pareto_front(goals, [{"macro_f1": f1, "serve.p99_ms": ms} for f1, ms in values])
    assert front == [True, True, False, False, True]


def test_constraints():
    constraints = [Constraint("serve.p99_ms", "<=", 20.0), Constraint("macro_f1", ">", 0.5)]
    assert violated_constraints(constraints, {"serve.p99_ms": 20.0, "macro_f1": 0.5}) == ["macro_f1 > 0.5"]
    assert violated_constraints(constraints, {"macro_f1": 0.6}) == ["serve.p99_ms <= 20"]
    assert violated_constraints(constraints, {"macro_f1": 0.6}, ignore_missing=True) == []


def test_one_finalist_of_each_serving_cost_comes_before_a_second():
    spec = spec_of(objective={"maximize": "macro_f1", "minimize": "serve.p99_ms"}, finalists=3)
    trials = [trial("1", 0.9), trial("2", 0.95), trial("3", 0.7, "small", 20.0), trial("4", None), trial("5", 0.94)]
    assert [trial.name for trial in select_finalists(spec, trials)] == ["2", "3", "5"]
    assert rank_trials(spec_of(constraints=["model.size_mb <= 50"]), trials)[0].name == "3"


def test_the_best_on_average_wins_with_its_best_seed():
    spec = spec_of(seeds=3, finalists=2)
    two = [trial("0001", 0.95), trial("0002", 0.94)]
    points = points_with_more_seeds(spec, two)
    assert [point.name for point in points] == [f"{name}-seed-{seed}" for name in ("0001", "0002") for seed in (43, 44)]
    scores = {"0001-seed-43": 0.80, "0001-seed-44": 0.81, "0002-seed-43": 0.93, "0002-seed-44": 0.96}
    reseeded = [trial(name, f1, seed=int(name[-2:])) for name, f1 in scores.items()]
    scored = score_finalists(spec, two, reseeded, {})
    assert scored[0].name == "0002" and scored[0].metrics["macro_f1"] == pytest.approx((0.94 + 0.93 + 0.96) / 3)
    assert best_run_name(spec, scored[0]) == "0002-seed-44"


def test_a_finalist_that_costs_too_much_to_serve_is_last():
    spec = spec_of(objective={"maximize": "macro_f1", "minimize": "serve.p99_ms"}, constraints=["serve.p99_ms <= 20"])
    two = [trial("0001", 0.95), trial("0002", 0.9, "small")]
    serving = {"0001": {"serve.p99_ms": 30.0}, "0002": {"serve.p99_ms": 9.0}}
    scored = score_finalists(spec, two, [], serving)
    assert [finalist.name for finalist in scored] == ["0002", "0001"] and all(finalist.on_front for finalist in scored)
    assert scored[1].violated == ["serve.p99_ms <= 20"]
    assert [goal.name for goal in list_goals(spec)] == ["macro_f1", "serve.p99_ms"]
