"""The gate: the alias moves only if the candidate is strictly better on the same rows."""

import pytest

from trainer.registry.gate import decide_promotion
from trainer.tasks.load_spec import load_spec


def spec(**promote):
    metric = promote.pop("metric", "macro_f1")
    return load_spec(
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
        ({"min_value": 0.6}, 0.5, None, False),
        ({"min_value": 0.6}, 0.6, None, True),
        ({"enabled": False}, 0.9, None, False),
        ({"metric": "log_loss"}, 0.4, 0.5, True),
        ({"metric": "log_loss"}, 0.6, 0.5, False),
        ({"metric": "log_loss", "min_value": 0.3}, 0.4, None, False),
    ],
)
def test_the_promotion_rule(rule, candidate, champion, promoted):
    metric = rule.get("metric", "macro_f1")
    decision = decide_promotion(
        spec(**rule), {metric: candidate}, None if champion is None else {metric: champion}, "a@1"
    )
    assert decision.promoted is promoted
    assert decision.reason


def test_a_missing_metric_promotes_nothing():
    roc_auc = spec(metric="roc_auc")
    decision = decide_promotion(roc_auc, {"accuracy": 0.9}, {"roc_auc": 0.5}, "a@1")
    assert not decision.promoted and "roc_auc of the candidate cannot be computed" in decision.reason
    decision = decide_promotion(roc_auc, {"roc_auc": 0.9}, {"rmse": 0.5}, "a@1")
    assert not decision.promoted and "roc_auc of a@1 cannot be computed" in decision.reason
