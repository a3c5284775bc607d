"""The search space of a spec: the prepared rows that its values need, and the changes of values by PBT."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from trainer.spec.run import RunSpec
from trainer.spec.space import DomainSpec
from trainer.spec.tune import MUTABLE_KEYS, TuneSpec

#: Prefixes of the keys that change the prepared rows. The rows of every value are prepared before the search.
_PREPARATION_KEYS = ("data.", "model.base")
# Population-based training resamples a value with this probability, and otherwise multiplies it by one of the factors.
_RESAMPLE_PROBABILITY, _FACTORS = 0.25, (0.8, 1.2)
# Marks a key that is left out of a point.
_OMITTED = object()


def points_to_prepare(spec: RunSpec, tried: Sequence[Mapping[str, Any]] = ()) -> dict[str, dict[str, Any]]:
    """Return each combination of values that needs its own prepared rows, by `preparation_key`.

    `tried` are the values of trials that were started earlier, possibly with another space.
    """
    assert spec.tune is not None
    keys = [key for key in spec.tune.ordered_keys if key.startswith(_PREPARATION_KEYS)]
    options = [[*(spec.tune.space[key].choice or []), *_omission(spec.tune, key)] for key in keys]
    points = [
        {key: value for key, value in zip(keys, values, strict=True) if value is not _OMITTED}
        for values in itertools.product(*options)
    ]
    points += [{key: value for key, value in point.items() if key in keys} for point in spec.tune.initial_points]
    points += [{key: value for key, value in point.items() if key.startswith(_PREPARATION_KEYS)} for point in tried]
    return {preparation_key(point): point for point in points}


def _omission(tune: TuneSpec, key: str) -> list[Any]:
    """Return `[_OMITTED]` if the key is conditional, so that a point may lack it, else []."""
    return [_OMITTED] if tune.space[key].when else []


def preparation_key(values: Mapping[str, Any]) -> str:
    """Return a key that is equal for all trials which use the same prepared rows."""
    return repr(sorted((key, value) for key, value in values.items() if key.startswith(_PREPARATION_KEYS)))


def perturb_point(tune: TuneSpec, values: Mapping[str, Any], random: Random) -> dict[str, Any]:
    """Return a point near `values`, in the space and on its steps, for a trial that takes over another trial's weights.

    Keys that may change during training are resampled one time in four, and otherwise multiplied by 0.8 or 1.2, as in
    population-based training (Jaderberg et al. 2017).
    """
    changes = {
        key: _perturb_value(tune.space[key], values[key], random)
        for key in MUTABLE_KEYS
        if key in tune.space and key in values
    }
    return {**values, **changes}


def _perturb_value(domain: DomainSpec, value: Any, random: Random) -> Any:
    if domain.choice is not None:
        return random.choice(domain.choice)
    bounds = domain.uniform or domain.loguniform
    assert bounds is not None  # no mutable key is an integer
    low, high = bounds
    if random.random() < _RESAMPLE_PROBABILITY:
        new = low * (high / low) ** random.random() if domain.loguniform else random.uniform(low, high)
    else:
        new = value * random.choice(_FACTORS)
    new = min(high, max(low, new))
    return min(high, low + round((new - low) / domain.step) * domain.step) if domain.step else new


def spec_without_search(spec: RunSpec) -> dict[str, Any]:
    """Return a spec as raw values without its `tune:` section: the base of every trial's spec."""
    raw = spec.model_dump(mode="json", exclude_unset=True)
    raw.pop("tune", None)
    return raw
