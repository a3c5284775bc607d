"""KubeRay's rules about what is deleted after a job: the older fields, and `deletionRules`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

# What is deleted must be deleted in this order.
_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")


def deletion_problems(spec: dict[str, Any], *, scales: bool) -> Iterator[str]:
    """Yield what the operator refuses in a `RayJobSpec`. `scales`: its cluster has an autoscaler."""
    shuts_down = bool(spec.get("shutdownAfterJobFinishes"))
    if not shuts_down and (spec.get("ttlSecondsAfterFinished") or 0) > 0:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true"
    if (spec.get("ttlSecondsAfterFinished") or 0) < 0:
        yield f"ttlSecondsAfterFinished={spec['ttlSecondsAfterFinished']} is negative"
    strategy = spec.get("deletionStrategy")
    if strategy is None:
        return
    rules = strategy.get("deletionRules") or []
    if rules and shuts_down:
        yield "deletionStrategy.deletionRules and shutdownAfterJobFinishes exclude each other"
    policies = [strategy.get(key, {}).get("policy") for key in ("onSuccess", "onFailure") if key in strategy]
    if shuts_down and "DeleteNone" in policies:
        yield "deletionStrategy: DeleteNone contradicts shutdownAfterJobFinishes: true"
    if scales and "DeleteWorkers" in [*policies, *[rule.get("policy") for rule in rules]]:
        yield "deletionStrategy: DeleteWorkers is not possible with an autoscaler"
    yield from _rule_problems(rules)


def _rule_problems(rules: list[dict[str, Any]]) -> Iterator[str]:
    """Yield rules that occur twice, and seconds that would delete in the wrong order: workers, cluster, job."""
    seconds: dict[tuple[str, str], dict[str, int]] = {}
    for index, rule in enumerate(rules):
        condition = rule.get("condition") or {}
        status = next((key for key in ("jobStatus", "jobDeploymentStatus") if condition.get(key)), "")
        known = seconds.setdefault((status, condition.get(status, "")), {})
        if rule["policy"] in known:
            yield f"deletionRules[{index}]: {rule['policy']} at {status}={condition[status]} occurs twice"
        known[rule["policy"]] = condition.get("ttlSeconds", 0)
    for (_, status), known in seconds.items():
        ordered = [(policy, known[policy]) for policy in _ORDER if policy in known]
        for (earlier, first), (later, second) in pairwise(ordered):
            if second < first:
                yield f"deletionRules: at {status}, {later} after {second} s is before {earlier} after {first} s"
