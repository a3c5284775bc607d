"""TODO docstring."""

from __future__ import annotations

from typing import Any, NamedTuple


class Point(NamedTuple):
    """What one trial tries."""

    name: str
    values: dict[str, Any]


# A trial's config for Ray Tune holds its values and its name in one place: dots mean something else to Ray Tune.
POINT, _NAME = "point", "trial"


def config_of(point: Point) -> dict[str, Any]:
    """Return a point as Ray Tune has it."""
    return {POINT: {**point.values, _NAME: point.name}}


def name_of(trial: Any) -> str:
    """Return what Ray Tune is to call a trial; its config may become another's while it runs, its name does not."""
    return str(trial.config[POINT][_NAME])
