"""The types of value that a key of the spec takes, read from the pydantic classes.

`trainer.spec.yaml_reader` asks before it reads a scalar: a key for a text gets the scalar as it is written.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from trainer.spec.run import RunSpec

#: The keys and list indexes on the way to a value, for example ("data", "labels", 0).
Path = tuple[str | int, ...]

#: A type of scalar. `any`: the spec does not say.
ScalarType = Literal["text", "integer", "number", "boolean", "null", "any"]

_SCALARS: dict[Any, ScalarType] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    Any: "any",
}


class KeyType(NamedTuple):
    """What a key takes."""

    scalars: frozenset[ScalarType]
    has_containers: bool
    """Whether it takes a list or a mapping."""

    @property
    def is_text(self) -> bool:
        """Whether the key takes nothing but a text, or null."""
        return "text" in self.scalars and self.scalars <= {"text", "null"} and not self.has_containers


_ANYTHING = KeyType(frozenset({"any"}), True)


def split_key(key: str) -> list[str]:
    """Return the names in a dotted key. The keys of the search space contain dots themselves: `tune.space.KEY`."""
    if key.startswith("tune.space."):
        return ["tune", "space", key.removeprefix("tune.space.")]
    return key.split(".")


@functools.lru_cache(maxsize=4096)
def key_type(path: Path) -> KeyType:
    """Return what the key at `path` takes: anything if there is no such key, so that the key itself is refused."""
    searched = _searched_key(path)
    if searched is not None:
        return key_type(searched)
    annotations: list[Any] = [RunSpec]
    for part in path:
        annotations = [inner for annotation in annotations for inner in _below(annotation, part)]
    if not annotations:
        return _ANYTHING
    scalars: set[ScalarType] = set()
    for annotation in annotations:
        scalars |= _scalar_types(annotation)
    return KeyType(frozenset(scalars), any(_is_container(annotation) for annotation in annotations))


def _searched_key(path: Path) -> Path | None:
    """Return the key that a value of a search is for, or None if `path` is no value of a search."""
    match path:
        case ("tune", "space", str(key), "choice", int(), *rest):
            return (*split_key(key), *rest)
        # One value, or a list of values.
        case ("tune", "space", str(), "when", str(key), *rest):
            return (*split_key(key), *rest[1:])
        case ("tune", "initial_points", int(), str(key), *rest):
            return (*split_key(key), *rest)
    return None


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation such as `Annotated[str, ...] | list[str] | None` names."""
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *metadata = get_args(annotation)
        yield from _alternatives(_input_type(metadata, base))
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part)
    else:
        yield annotation


def _input_type(metadata: Any, base: Any) -> Any:
    """Return the type that a validator in `metadata` says it takes, else `base`: the short forms of steps and features."""
    inputs = [getattr(item, "json_schema_input_type", PydanticUndefined) for item in metadata]
    return next((kind for kind in inputs if kind is not PydanticUndefined), base)


def _below(annotation: Any, part: str | int) -> Iterator[Any]:
    """Yield the types of the key or the item `part` in a value of type `annotation`."""
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if annotation is Any:
        yield Any
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        if field is not None:
            yield from _alternatives(_input_type(field.metadata, field.annotation))
    elif origin is dict:
        yield from _alternatives(arguments[1] if arguments else Any)
    elif origin is list:
        yield from _alternatives(arguments[0] if arguments else Any)
    elif origin is tuple and isinstance(part, int):
        if arguments[-1] is Ellipsis:
            yield from _alternatives(arguments[0])
        elif part < len(arguments):
            yield from _alternatives(arguments[part])


def _scalar_types(annotation: Any) -> set[ScalarType]:
    if get_origin(annotation) is Literal:
        return {_SCALARS[type(value)] for value in get_args(annotation)}
    return {_SCALARS[annotation]} if annotation in _SCALARS else set()


def _is_container(annotation: Any) -> bool:
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return is_section or annotation is Any or (get_origin(annotation) or annotation) in (dict, list, tuple)
