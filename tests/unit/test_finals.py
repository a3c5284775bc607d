"""Who gets into a search's finals, and who wins."""

import pytest

from trainer.runs.result import TrialRecord
from trainer.spec.tune import Goal, Rule
from trainer.tasks.resolve import load
from tune import finalists
from tune.objectives import broken, front, goals_of


def spec_of(**tune):
    space = {"train.learning_rate": {"loguniform": [1e-5, 1e-2]}, "model.base": {"choice": ["small", "large"]}}
    tune = {"space": space, "trials": 20, **tune}
    return load({"name": "a", "data": {"train": "a.csv"}, "model": {"base": "large"}, "tune": tune})


def trial(name, f1, base="large", size=90.0, seed=None):
    values = {"train.learning_rate": 1e-3, "model.base": base, **({"train.seed": seed} if seed else {})}
    figures = {"macro_f1": f1, "model.size_mb": size, "train.seconds": 3.0} if f1 is not None else {}
    return TrialRecord(name, values, f1, 3, 3.0, [], figures=figures)


def test_the_front_is_what_nothing_beats():
    goals = [Goal("macro_f1", "max"), Goal("serve.p99_ms", "min")]
    figures = [(0.9, 20.0), (0.8, 5.0), (0.7, 6.0), (0.9, 25.0), (0.95, 90.0)]
    found = front(goals, [{"macro_f1": f1, "serve.p99_ms": ms} for f1, ms in figures])
    assert found == [True, True, False, False, True]


def test_constraints():
    rules = [Rule("serve.p99_ms", "<=", 20.0), Rule("macro_f1", ">", 0.5)]
    assert broken(rules, {"serve.p99_ms": 20.0, "macro_f1": 0.5}) == ["macro_f1 > 0.5"]
    assert broken(rules, {"macro_f1": 0.6}) == ["serve.p99_ms <= 20"]
    assert broken(rules, {"macro_f1": 0.6}, known=True) == []


def test_one_of_each_costly_kind_comes_before_a_second():
    spec = spec_of(objective={"maximize": "macro_f1", "minimize": "serve.p99_ms"}, finalists=3)
    trials = [trial("1", 0.9), trial("2", 0.95), trial("3", 0.7, "small", 20.0), trial("4", None), trial("5", 0.94)]
    assert [one.name for one in finalists.chosen(spec, trials)] == ["2", "3", "5"]
    assert finalists.ranked(spec_of(constraints=["model.size_mb <= 50"]), trials)[0].name == "3"


def test_the_best_on_average_wins_with_its_best_seed():
    spec = spec_of(seeds=3, finalists=2)
    two = [trial("0001", 0.95), trial("0002", 0.94)]
    points = finalists.more_seeds(spec, two)
    assert [point.name for point in points] == [f"{name}-seed-{seed}" for name in ("0001", "0002") for seed in (43, 44)]
    of = {"0001-seed-43": 0.80, "0001-seed-44": 0.81, "0002-seed-43": 0.93, "0002-seed-44": 0.96}
    more = [trial(name, f1, seed=int(name[-2:])) for name, f1 in of.items()]
    judged = finalists.judged(spec, two, more, {})
    assert judged[0].name == "0002" and judged[0].figures["macro_f1"] == pytest.approx((0.94 + 0.93 + 0.96) / 3)
    assert finalists.best_seed(spec, judged[0]) == "0002-seed-44"


def test_what_serving_costs_rules_out():
    spec = spec_of(objective={"maximize": "macro_f1", "minimize": "serve.p99_ms"}, constraints=["serve.p99_ms <= 20"])
    two = [trial("0001", 0.95), trial("0002", 0.9, "small")]
    served = {"0001": {"serve.p99_ms": 30.0}, "0002": {"serve.p99_ms": 9.0}}
    judged = finalists.judged(spec, two, [], served)
    assert [one.name for one in judged] == ["0002", "0001"] and all(one.on_front for one in judged)
    assert judged[1].broken == ["serve.p99_ms <= 20"]
    assert [goal.name for goal in goals_of(spec)] == ["macro_f1", "serve.p99_ms"]
