"""The spec's search space: which rows its values need prepared, and what Ray Tune's population-based training changes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from trainer.spec.run import RunSpec
from trainer.spec.tune import CHANGEABLE, Domain, Tune
from trainer.tasks import resolve

#: Keys of the space that change the prepared rows, so that each of their values is prepared before the search.
_PREPARED_KEYS = ("data.", "model.base")
_ANEW, _FACTORS = 0.25, (0.8, 1.2)


def prepared_variants(spec: RunSpec, tried: Sequence[Mapping[str, Any]] = ()) -> dict[str, RunSpec]:
    """Return one spec for each combination of values that needs rows prepared in its own way, by `preparation_of`.

    `tried` are the values of trials that were begun with another space.
    """
    assert spec.tune is not None
    keys = [key for key in spec.tune.order if key.startswith(_PREPARED_KEYS)]
    points = itertools.product(*[[*(spec.tune.space[key].choice or []), *_left_out(spec.tune, key)] for key in keys])
    values = [{key: value for key, value in zip(keys, point, strict=True) if value is not _OUT} for point in points]
    values += [{key: value for key, value in point.items() if key in keys} for point in spec.tune.points]
    values += [{key: value for key, value in point.items() if key.startswith(_PREPARED_KEYS)} for point in tried]
    return {preparation_of(point): resolve.with_values(spec, point) for point in values}


_OUT = object()


def _left_out(tune: Tune, key: str) -> list[Any]:
    """Return a mark for "not searched" where the key depends on others."""
    return [_OUT] if tune.space[key].when else []


def preparation_of(values: Mapping[str, Any]) -> str:
    """Return which prepared variant a trial with these values uses, as a key that compares equal for the same one."""
    return repr(sorted((key, value) for key, value in values.items() if key.startswith(_PREPARED_KEYS)))


def changed(tune: Tune, values: Mapping[str, Any], random: Random) -> dict[str, Any]:
    """Return a point near `values` for a training that takes over another's weights: in the space, and on its steps.

    Keys that may change while a training goes on are drawn anew one time in four, else multiplied by 0.8 or 1.2, as
    population-based training does (Jaderberg et al. 2017).
    """
    found = dict(values)
    for key in CHANGEABLE:
        if key in tune.space and key in values:
            found[key] = _near(tune.space[key], values[key], random)
    return found


def _near(domain: Domain, value: Any, random: Random) -> Any:
    if domain.choice is not None:
        return random.choice(domain.choice)
    bounds = domain.uniform or domain.loguniform
    assert bounds is not None  # no changeable key takes whole numbers
    low, high = bounds
    if random.random() < _ANEW:
        drawn = low * (high / low) ** random.random() if domain.loguniform else random.uniform(low, high)
    else:
        drawn = value * random.choice(_FACTORS)
    drawn = min(high, max(low, drawn))
    return min(high, low + round((drawn - low) / domain.step) * domain.step) if domain.step else drawn
