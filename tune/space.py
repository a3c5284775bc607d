"""The spec's search space as Ray Tune's."""

from __future__ import annotations

import itertools
from typing import Any

from trainer import spec_load
from trainer.spec import Domain, RunSpec, Tune

#: Keys of the space that change the prepared rows, so that each of their values is prepared before the search.
_PREPARED_KEYS = ("data.", "model.base")


def to_ray(space: dict[str, Domain]) -> dict[str, Any]:
    """Return the space with Ray Tune's samplers (upper bounds of whole numbers included, as the spec has them)."""
    import ray.tune

    def one(domain: Domain) -> Any:
        if domain.choice is not None:
            return ray.tune.choice(domain.choice)
        if domain.uniform is not None:
            return ray.tune.uniform(*domain.uniform)
        if domain.loguniform is not None:
            return ray.tune.loguniform(*domain.loguniform)
        assert domain.randint is not None
        low, high = domain.randint
        return ray.tune.randint(low, high + 1)

    return {key: one(domain) for key, domain in space.items()}


def grid(tune: Tune) -> list[dict[str, Any]]:
    """Return the combinations of a grid search, in the order of the spec, at most `tune.trials` of them."""
    keys = list(tune.space)
    values = [tune.space[key].choice or [] for key in keys]
    combinations = [dict(zip(keys, point, strict=True)) for point in itertools.product(*values)]
    return combinations[: tune.n_trials]


def prepared_variants(spec: RunSpec) -> dict[str, RunSpec]:
    """Return one spec for each combination of values that needs rows prepared in its own way, by `preparation_of`."""
    assert spec.tune is not None
    keys = [key for key in spec.tune.space if key.startswith(_PREPARED_KEYS)]
    points = itertools.product(*[spec.tune.space[key].choice or [] for key in keys])
    values = [dict(zip(keys, point, strict=True)) for point in points]
    return {preparation_of(point): spec_load.with_values(spec, point) for point in values}


def preparation_of(values: dict[str, Any]) -> str:
    """Return which prepared variant a trial with these values uses, as a key that compares equal for the same one."""
    return repr(sorted((key, value) for key, value in values.items() if key.startswith(_PREPARED_KEYS)))
