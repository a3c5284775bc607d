"""How sure the gate's decision is, if it was made on few held-out rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from trainer.inference.significance import SIGNIFICANT, metric_range, paired_p_value
from trainer.registry.gate import GateDecision
from trainer.spec.evaluate import EvaluateSpec
from trainer.targets.base import Target

# On more rows, a difference that matters is rarely chance, and the tests take long.
FEW_ROWS = 1000


class ComparedScores(NamedTuple):
    """The scores of both models on the same held-out rows."""

    targets: np.ndarray
    """As `Target.array` returns them, for B rows."""
    candidate: np.ndarray
    """Shape (B, C)."""
    champion: np.ndarray | None
    """In the same columns, which may be followed by others; None without a champion."""


def add_certainty(decision: GateDecision, target: Target, spec: EvaluateSpec, scores: ComparedScores) -> GateDecision:
    """Return the decision with the number of rows and, if they are few, with a note on how sure it is.

    Two models are compared by a paired test. The metric of one model, compared with nothing or with
    `promote.min_value`, gets the range of a bootstrap.
    """
    evidence = {**decision.evidence, "rows": len(scores.targets)}
    decision = decision._replace(evidence=evidence)
    if "candidate" not in evidence or len(scores.targets) >= FEW_ROWS:
        return decision
    if "champion" not in evidence:
        return _add_range(decision, target, spec, scores)
    if scores.champion is None:
        return decision
    return _add_test(decision, target, spec, scores.targets, _same_width(scores.candidate, scores.champion))


def _add_test(
    decision: GateDecision, target: Target, spec: EvaluateSpec, targets: np.ndarray, scores: list[np.ndarray]
) -> GateDecision:
    candidate, champion = decision.evidence["candidate"], decision.evidence["champion"]
    start = f"There are only {len(targets):,} held-out rows"
    if candidate == champion:
        return _with_note(decision, {"p_value": 1.0}, f"{start}, and both models are equally good on them.")
    candidate_leads = (candidate > champion) is (spec.mode == "max")
    better, worse = scores if candidate_leads else scores[::-1]

    def metric(values: np.ndarray) -> float:
        value = target.metric(spec.metric, values, targets, spec.calibration_bins)
        return float("nan") if value is None else value

    p_value = paired_p_value(better, worse, metric, higher_is_better=spec.mode == "max")
    leader = "the candidate" if candidate_leads else decision.evidence["champion_version"]
    conclusion = "the lead is probably real" if p_value < SIGNIFICANT else "the lead may be chance"
    note = (
        f"{start}: if both models were equally good, {leader} would still lead by as much with a probability of "
        f"{p_value:.2g} (paired test), so {conclusion}."
    )
    return _with_note(decision, {"p_value": p_value}, note)


def _add_range(decision: GateDecision, target: Target, spec: EvaluateSpec, scores: ComparedScores) -> GateDecision:
    def metric(values: np.ndarray, rows: np.ndarray) -> float | None:
        try:
            return target.metric(spec.metric, values, scores.targets[rows], spec.calibration_bins)
        except Exception:  # the metric of a user's own target may raise for rows that are all of one kind
            return None

    bounds = metric_range(scores.candidate, metric)
    if bounds is None:
        return decision
    note = (
        f"There are only {len(scores.targets):,} held-out rows: {spec.metric} is between {bounds[0]:.4f} and "
        f"{bounds[1]:.4f} in 95 % of random samples of them (bootstrap)."
    )
    return _with_note(decision, {"range_95": list(bounds)}, note)


def _with_note(decision: GateDecision, evidence: dict[str, Any], note: str) -> GateDecision:
    return decision._replace(evidence={**decision.evidence, **evidence, "note": note}, note=note)


def _same_width(candidate: np.ndarray, champion: np.ndarray) -> list[np.ndarray]:
    """Return both scores in the columns of the champion's; the candidate has a score of 0 in columns that it lacks."""
    missing = champion.shape[1] - candidate.shape[1]
    return [np.pad(candidate, ((0, 0), (0, missing))), champion]
