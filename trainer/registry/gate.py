"""The gate: decides whether an alias moves to a new version. Depends only on two models' metrics on the same rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from trainer.spec.run import RunSpec


class GateDecision(NamedTuple):
    """Whether the alias moves, and why."""

    promoted: bool
    reason: str
    evidence: dict[str, Any]
    note: str = ""
    """How sure the decision is, or what else to know about it; a sentence or nothing."""


def decide_promotion(
    spec: RunSpec, candidate: dict[str, float], champion: dict[str, float] | None, champion_ref: str = ""
) -> GateDecision:
    """Compare metrics on the same held-out rows. `champion` is None if the alias is not set.

    The rule is `promote` in trainer/spec/evaluate.py.
    """
    metric, rule = spec.gate_evaluation.metric, spec.promote
    if not rule.enabled:
        return GateDecision(False, "promote.enabled is false", {"metric": metric})
    if metric not in candidate or (champion is not None and metric not in champion):
        model = "the candidate" if metric not in candidate else champion_ref
        reason = (
            f"{metric} of {model} cannot be computed on these held-out rows; "
            "promote the candidate with `raymill models promote`"
        )
        return GateDecision(False, reason, {"metric": metric})
    value = candidate[metric]
    higher_is_better = spec.gate_evaluation.mode == "max"
    evidence: dict[str, Any] = {
        "metric": metric,
        "candidate": value,
        "min_improvement": rule.min_improvement,
        "minimum": rule.min_value,
    }
    if rule.min_value is not None and (value < rule.min_value if higher_is_better else value > rule.min_value):
        return GateDecision(False, f"{metric} {value:.4f} misses promote.min_value={rule.min_value:g}", evidence)
    if champion is None:
        return GateDecision(True, f"{metric} {value:.4f}, and there is no {rule.alias} yet", evidence)
    champion_value = champion[metric]
    evidence |= {"champion": champion_value, "champion_version": champion_ref}
    gain = value - champion_value if higher_is_better else champion_value - value
    if gain > 0 and gain >= rule.min_improvement:
        return GateDecision(True, f"{metric} {value:.4f} beats {champion_value:.4f} of {champion_ref}", evidence)
    required = f" by promote.min_improvement={rule.min_improvement:g}" if rule.min_improvement else ""
    reason = f"{metric} {value:.4f} does not beat {champion_value:.4f} of {champion_ref}{required}"
    return GateDecision(False, reason, evidence)
