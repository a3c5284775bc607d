"""A point of the search space, and its form in the config of a Ray Tune trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

#: The key of a trial's config that holds its point. At the top level, Ray Tune would read the dots in our keys as
#: nesting.
POINT_KEY = "point"
_NAME_KEY = "trial"


class Point(NamedTuple):
    """The values that one trial tries."""

    name: str
    values: dict[str, Any]


def trial_name(number: int) -> str:
    """Return the name of a trial by its number, for example `0007`."""
    return f"{number:04d}"


def to_ray_config(point: Point) -> dict[str, Any]:
    """Return a point as the config of a Ray Tune trial."""
    return {POINT_KEY: {**point.values, _NAME_KEY: point.name}}


def values_in_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the point in a trial's config."""
    return {key: value for key, value in config[POINT_KEY].items() if key != _NAME_KEY}


def ray_trial_name(trial: Any) -> str:
    """Return the name for a Ray Tune trial. A trial's config may be replaced while it runs; its name stays."""
    return str(trial.config[POINT_KEY][_NAME_KEY])
