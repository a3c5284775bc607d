"""Which trainings of a search end early: Ray Tune's schedulers, as the spec names them."""

from __future__ import annotations

import functools
from random import Random
from typing import Any

from trainer.spec.run import RunSpec
from trainer.spec.tune import Tune
from trainer.tasks import catalog as task_catalog
from tune.point import POINT
from tune.search_space import changed

# Of the trials that reach a rung, ASHA and HyperBand let one in this many go on.
_REDUCTION = 3
# The share of PBT's trials that take over from as many others.
_QUANTILE = 0.25


def scheduler_of(spec: RunSpec) -> Any:
    """Return the scheduler of a search."""
    from ray.tune.schedulers import (
        ASHAScheduler,
        FIFOScheduler,
        HyperBandScheduler,
        MedianStoppingRule,
        PopulationBasedTraining,
    )

    assert spec.tune is not None
    tune, longest = spec.tune, longest_training(spec)
    if not ends_early(spec) or longest <= tune.grace_epochs:
        return FIFOScheduler()
    if tune.scheduler == "median":
        return MedianStoppingRule(time_attr="epoch", grace_period=tune.grace_epochs, min_samples_required=3)
    if tune.scheduler == "hyperband":
        return HyperBandScheduler(time_attr="epoch", max_t=longest, reduction_factor=_REDUCTION)
    if tune.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr="epoch",
            perturbation_interval=tune.grace_epochs,
            custom_explore_fn=functools.partial(_explored, tune, Random(tune.seed)),
            quantile_fraction=_QUANTILE if tune.n_trials >= 4 else 0.5,
            log_config=False,
        )
    return ASHAScheduler(time_attr="epoch", max_t=longest, grace_period=tune.grace_epochs, reduction_factor=_REDUCTION)


def _explored(tune: Tune, random: Random, config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a training that goes on from another's weights."""
    return {**config, POINT: changed(tune, config[POINT], random)}


def pauses(spec: RunSpec) -> bool:
    """Whether the scheduler has trials wait, or go on from others' checkpoints, so that each epoch needs a whole one."""
    return spec.tune is not None and spec.tune.scheduler in ("hyperband", "pbt") and ends_early(spec)


def ends_early(spec: RunSpec) -> bool:
    """Whether trials may be ended before their last epoch.

    HyperBand and PBT have trials wait and go on elsewhere, which takes a training's state with every epoch; those with
    several workers have it in their own processes.
    """
    if spec.tune is None or spec.tune.scheduler == "none":
        return False
    if spec.cluster.workers == 1:
        return True
    # Those that are no torch loops do not look whether they are to end.
    return spec.tune.scheduler in ("asha", "median") and not task_catalog.get(spec.task).learns_from_features


def longest_training(spec: RunSpec) -> int:
    """Return the most epochs that a trial may take."""
    domain = spec.tune.space.get("train.epochs") if spec.tune else None
    return int(max(domain.edges)) if domain else spec.train.epochs
