"""The spec's search space: which rows its values need prepared, and what Ray Tune's population-based training changes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from trainer import spec_load
from trainer.spec import RunSpec
from trainer.spec_tune import CHANGEABLE, Domain, Tune

#: Keys of the space that change the prepared rows, so that each of their values is prepared before the search.
_PREPARED_KEYS = ("data.", "model.base")


def prepared_variants(spec: RunSpec) -> dict[str, RunSpec]:
    """Return one spec for each combination of values that needs rows prepared in its own way, by `preparation_of`."""
    assert spec.tune is not None
    keys = [key for key in spec.tune.order if key.startswith(_PREPARED_KEYS)]
    points = itertools.product(*[[*(spec.tune.space[key].choice or []), *_left_out(spec.tune, key)] for key in keys])
    values = [{key: value for key, value in zip(keys, point, strict=True) if value is not _OUT} for point in points]
    values += [{key: value for key, value in point.items() if key in keys} for point in spec.tune.points]
    return {preparation_of(point): spec_load.with_values(spec, point) for point in values}


_OUT = object()


def _left_out(tune: Tune, key: str) -> list[Any]:
    """Return a mark for "not searched" where the key depends on others."""
    return [_OUT] if tune.space[key].when else []


def preparation_of(values: Mapping[str, Any]) -> str:
    """Return which prepared variant a trial with these values uses, as a key that compares equal for the same one."""
    return repr(sorted((key, value) for key, value in values.items() if key.startswith(_PREPARED_KEYS)))


def changeable(tune: Tune) -> dict[str, Any]:
    """Return Ray Tune's samplers of the keys that may change while a training goes on."""
    return {key: _sampler(domain) for key, domain in tune.space.items() if key in CHANGEABLE}


def _sampler(domain: Domain) -> Any:
    import ray.tune

    if domain.choice is not None:
        return list(domain.choice)
    if domain.uniform is not None:
        low, high = domain.uniform
        return ray.tune.quniform(low, high, domain.step) if domain.step else ray.tune.uniform(low, high)
    assert domain.loguniform is not None  # no changeable key takes whole numbers
    return ray.tune.loguniform(*domain.loguniform)
