"""The gate: strictly better on the same rows, or the alias stays."""

import pytest

from trainer.registry.gate import decide
from trainer.tasks.resolve import load


def spec(**promote):
    metric = promote.pop("metric", "macro_f1")
    return load(
        {
            "name": "a",
            "data": {"train": "t.csv"},
            "model": {"base": "b"},
            "promote": promote,
            "evaluate": {"metric": metric},
        }
    )


@pytest.mark.parametrize(
    ("rule", "candidate", "champion", "promoted"),
    [
        ({}, 0.5, None, True),
        ({}, 0.5, 0.5, False),
        ({}, 0.51, 0.5, True),
        ({}, 0.49, 0.5, False),
        ({"min_improvement": 0.02}, 0.51, 0.5, False),
        ({"min_improvement": 0.02}, 0.53, 0.5, True),
        ({"minimum": 0.6}, 0.5, None, False),
        ({"minimum": 0.6}, 0.6, None, True),
        ({"enabled": False}, 0.9, None, False),
        ({"metric": "log_loss"}, 0.4, 0.5, True),
        ({"metric": "log_loss"}, 0.6, 0.5, False),
        ({"metric": "log_loss", "minimum": 0.3}, 0.4, None, False),
    ],
)
def test_the_rule(rule, candidate, champion, promoted):
    metric = rule.get("metric", "macro_f1")
    decision = decide(spec(**rule), {metric: candidate}, None if champion is None else {metric: champion}, "a@1")
    assert decision.promoted is promoted
    assert decision.reason


def test_a_figure_that_is_not_there_promotes_nobody():
    by = spec(metric="roc_auc")
    found = decide(by, {"accuracy": 0.9}, {"roc_auc": 0.5}, "a@1")
    assert not found.promoted and "roc_auc of the candidate cannot be computed" in found.reason
    found = decide(by, {"roc_auc": 0.9}, {"rmse": 0.5}, "a@1")
    assert not found.promoted and "roc_auc of a@1 cannot be computed" in found.reason
