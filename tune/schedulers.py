"""The choice of the Ray Tune scheduler that stops the trials of a search early.

The names are `tune.scheduler` in trainer/spec/tune.py.
"""

from __future__ import annotations

import functools
from random import Random
from typing import Any

from trainer.spec.run import RunSpec
from trainer.spec.section import AUTO
from trainer.spec.tune import TuneSpec
from trainer.tasks import catalog as task_catalog
from tune.point import POINT_KEY
from tune.search_space import perturb_point

# ASHA and HyperBand let one in this many trials continue past a rung.
_REDUCTION = 3
# PBT: the worst trials take over the states of the best trials. This is the share of each of the two groups.
_QUANTILE = 0.25
_MIN_TRIALS_FOR_QUANTILE = 4
_MIN_TRIALS_FOR_MEDIAN = 3


def build_scheduler(spec: RunSpec) -> Any:
    """Return Ray Tune's scheduler for a search."""
    from ray.tune.schedulers import (
        ASHAScheduler,
        FIFOScheduler,
        HyperBandScheduler,
        MedianStoppingRule,
        PopulationBasedTraining,
    )

    assert spec.tune is not None
    tune, max_t = spec.tune, max_epochs(spec)
    if not stops_early(spec) or max_t <= tune.grace_epochs:
        return FIFOScheduler()
    if tune.scheduler == "median":
        return MedianStoppingRule(
            time_attr="epoch", grace_period=tune.grace_epochs, min_samples_required=_MIN_TRIALS_FOR_MEDIAN
        )
    if tune.scheduler == "hyperband":
        return HyperBandScheduler(time_attr="epoch", max_t=max_t, reduction_factor=_REDUCTION)
    if tune.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr="epoch",
            perturbation_interval=tune.grace_epochs,
            custom_explore_fn=functools.partial(_explore, tune, Random(tune.seed)),
            quantile_fraction=_QUANTILE if tune.n_trials >= _MIN_TRIALS_FOR_QUANTILE else 0.5,
            log_config=False,
        )
    return ASHAScheduler(time_attr="epoch", max_t=max_t, grace_period=tune.grace_epochs, reduction_factor=_REDUCTION)


def _explore(tune: TuneSpec, random: Random, config: dict[str, Any]) -> dict[str, Any]:
    """Return the new config of a trial that resumes from another trial's weights."""
    return {**config, POINT_KEY: perturb_point(tune, config[POINT_KEY], random)}


def needs_every_checkpoint(spec: RunSpec) -> bool:
    """Return whether trials may pause or resume from other trials, so that each epoch needs a complete checkpoint."""
    return spec.tune is not None and spec.tune.scheduler in ("hyperband", "pbt") and stops_early(spec)


def stops_early(spec: RunSpec) -> bool:
    """Return whether the scheduler may stop or pause trials before their last epoch.

    HyperBand and PBT pause trials and resume them in other processes, which needs the state of the training after every
    epoch. Trials with several workers have that state in their workers' processes, so they work with ASHA and median
    only.
    """
    if spec.tune is None or spec.tune.scheduler == "none":
        return False
    if spec.cluster.workers == 1:
        return True
    # Several workers are stopped by a stop request, which the loop of the estimators does not read.
    return spec.tune.scheduler in ("asha", "median") and not task_catalog.get_task(spec.task).learns_from_features


def max_epochs(spec: RunSpec) -> int:
    """Return the maximum number of epochs of a trial."""
    domain = spec.tune.space.get("train.epochs") if spec.tune else None
    values = domain.sample_values if domain else [AUTO]
    return max(spec.train.n_epochs if value == AUTO else int(value) for value in values)
