"""The `tune.space:` key of a spec: the values that a search may give to other keys, and which keys depend on others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from trainer.spec.renames import new_key
from trainer.spec.section import SpecSection


class DomainSpec(SpecSection):
    """The values that a search may give to one key. Exactly one kind of domain is given."""

    choice: list[Any] | None = None
    """One of these values."""
    uniform: tuple[float, float] | None = None
    """A float between the two bounds."""
    loguniform: tuple[float, float] | None = None
    """A float between the two bounds, uniform in its logarithm."""
    randint: tuple[int, int] | None = None
    """An integer between the two bounds, both included."""
    lograndint: tuple[int, int] | None = None
    """An integer between the two bounds, both included, uniform in its logarithm."""
    step: Annotated[float, Field(gt=0)] | None = None
    """`uniform` and `randint`: only the lower bound and multiples of the step above it."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Search this key only if other keys of the space have these values (one, or a list of them), for example
    `{train.loss.kind: focal}`. Otherwise the key keeps its value in the spec."""

    @model_validator(mode="after")
    def _check_one_kind(self) -> DomainSpec:
        kinds = [(kind, value) for kind, value in self if value is not None and kind not in ("step", "when")]
        if len(kinds) != 1:
            raise ValueError("give exactly one of choice, uniform, loguniform, randint, lograndint")
        kind, value = kinds[0]
        if kind == "choice" and not value:
            raise ValueError("choice is empty; list at least one value")
        if kind != "choice" and not value[0] < value[1]:
            raise ValueError(f"{kind}: {list(value)} must rise; put the lower bound first")
        if kind.startswith("log") and value[0] <= 0:
            raise ValueError(f"{kind}: {list(value)} must be above 0")
        if self.step is not None and kind not in ("uniform", "randint"):
            raise ValueError(f"step is for uniform and randint, not for {kind}; remove `step`")
        if self.step is not None and kind == "randint" and self.step != int(self.step):
            raise ValueError(f"step={self.step} must be a whole number for randint")
        return self

    @property
    def sample_values(self) -> list[Any]:
        """The values with which the spec is checked before a search: all values of a choice, or the bounds of a range.

        For a range of floats without a step, also a value between the bounds.
        """
        if self.choice is not None:
            return list(self.choice)
        for bounds in (self.uniform, self.loguniform):
            if bounds is not None:
                low, high = bounds
                # Also try a value between the bounds: a key that takes only integers rejects it.
                return [low, high] if self.step else [low, low + (high - low) * 0.618, high]
        return list(self.randint or self.lograndint or ())

    def allows(self, parent: str, value: Any) -> bool:
        """Return whether `when` allows this key to be searched while the key `parent` has `value`."""
        values = self.when[parent]
        return value in values if isinstance(values, list) else bool(value == values)


def check_conditions(space: Mapping[str, DomainSpec]) -> None:
    """Raise `ValueError` for a `when` that names an unknown key or value, or for keys that wait for each other."""
    for key, domain in space.items():
        for parent, condition in domain.when.items():
            if parent not in space or space[parent].choice is None:
                renamed = f"; it is renamed, use {new_key(parent)}" if new_key(parent) else ""
                raise ValueError(
                    f"space.{key}.when names {parent}, which is not a key of the space with a choice{renamed}"
                )
            values = condition if isinstance(condition, list) else [condition]
            unknown = [value for value in values if value not in (space[parent].choice or [])]
            if unknown:
                raise ValueError(f"space.{key}.when: {parent} is never {unknown[0]!r}; its choice does not list it")
    circular = sorted(set(space) - set(order_keys(space)))
    if circular:
        raise ValueError(f"space: {' and '.join(circular)} wait for each other in `when`; remove one `when`")


def order_keys(space: Mapping[str, DomainSpec]) -> list[str]:
    """Return the keys of a space, each after the keys that its `when` names, without keys that wait for each other."""
    ordered: list[str] = []
    while True:
        ready = [
            key
            for key, domain in space.items()
            if key not in ordered and all(parent in ordered for parent in domain.when)
        ]
        if not ready:
            return ordered
        ordered += ready


def is_key_searched(space: Mapping[str, DomainSpec], key: str, values: Mapping[str, Any]) -> bool:
    """Return whether `key` is searched while the keys before it have `values`."""
    return all(parent in values and space[key].allows(parent, values[parent]) for parent in space[key].when)


def iterate_grid(space: Mapping[str, DomainSpec]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the choices of a space once, in the order of the spec."""
    ordered, seen = order_keys(space), set()
    for values in itertools.product(*[space[key].choice or [] for key in ordered]):
        point: dict[str, Any] = {}
        for key, value in zip(ordered, values, strict=True):
            if is_key_searched(space, key, point):
                point[key] = value
        if repr(point) not in seen:
            seen.add(repr(point))
            yield {key: point[key] for key in space if key in point}
