"""The gate: may this candidate take the alias? A pure function of two models' figures on the same rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from trainer.spec.run import RunSpec


class Decision(NamedTuple):
    """Whether the alias moves, and why."""

    promoted: bool
    reason: str
    evidence: dict[str, Any]


def decide(
    spec: RunSpec, candidate: dict[str, float], champion: dict[str, float] | None, champion_ref: str = ""
) -> Decision:
    """Compare figures on the same held-out rows by the spec's rule. `champion` is None where the alias is free."""
    metric, rule = spec.evaluate.metric, spec.promote
    if not rule.enabled:
        return Decision(False, "promote.enabled is false", {"metric": metric})
    if metric not in candidate or (champion is not None and metric not in champion):
        whose = "the candidate" if metric not in candidate else champion_ref
        reason = f"{metric} of {whose} cannot be computed on these held-out rows; promote by hand"
        return Decision(False, reason, {"metric": metric})
    value = candidate[metric]
    higher_is_better = spec.evaluate.mode == "max"
    evidence: dict[str, Any] = {
        "metric": metric,
        "candidate": value,
        "min_improvement": rule.min_improvement,
        "minimum": rule.minimum,
    }
    if rule.minimum is not None and (value < rule.minimum if higher_is_better else value > rule.minimum):
        return Decision(False, f"{metric} {value:.4f} misses promote.minimum={rule.minimum:g}", evidence)
    if champion is None:
        return Decision(True, f"{metric} {value:.4f}, and there is no {rule.alias} yet", evidence)
    present = champion[metric]
    evidence |= {"champion": present, "champion_version": champion_ref}
    gain = value - present if higher_is_better else present - value
    if gain > 0 and gain >= rule.min_improvement:
        return Decision(True, f"{metric} {value:.4f} beats {champion_ref}'s {present:.4f}", evidence)
    return Decision(
        False,
        f"{metric} {value:.4f} does not beat {champion_ref}'s {present:.4f} by promote.min_improvement={rule.min_improvement:g}",
        evidence,
    )
