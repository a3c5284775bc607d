"""A file with the nodes of a cluster that is not there yet, for `raymill plan --nodes`.

nodes:
  - {count: 2, cpus: 16, memory: 64GiB}
  - {count: 4, cpus: 32, memory: 256GiB, gpus: 8, gpu_type: A100-80G}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cluster.accelerators import known_types, memory_of_type
from cluster.errors import ResourceError, SpecError, suggest
from cluster.plan import Node

#: The share of a node's memory that Ray keeps for its object store by default.
OBJECT_STORE_SHARE = 0.3
_UNITS = {"": 1, "B": 1} | {
    f"{letter}{binary}B": base**power
    for power, letter in enumerate("kMGT", 1)
    for binary, base in (("", 1000), ("i", 1024))
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def parse_size(value: Any) -> int:
    """Return a size such as `64GiB`, `500 MB` or a number of bytes. Raises `ValueError` for anything else."""
    match = _SIZE.fullmatch(str(value).strip())
    unit = match.group(2) if match else "?"
    size = _UNITS.get(unit, _UNITS.get(f"{unit[:1].lower()}{unit[1:]}" if unit[:1] == "K" else "?"))
    if match is None or size is None:
        raise ValueError(f"{value!r} is no size; write for example 64GiB, 500MB or a number of bytes")
    return round(float(match.group(1)) * size)


_Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]


class _Nodes(BaseModel):
    """Equal nodes."""

    model_config = ConfigDict(extra="forbid")
    count: Annotated[int, Field(ge=1, le=100_000)] = 1
    cpus: Annotated[float, Field(gt=0)]
    memory: _Size
    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_type: str = ""
    gpu_memory: _Size | None = None

    @model_validator(mode="after")
    def _check_gpus_have_memory(self) -> _Nodes:
        if self.gpus and self.gpu_memory is None and not memory_of_type(self.gpu_type):
            known = suggest(self.gpu_type, known_types()) if self.gpu_type else f"types: {', '.join(known_types())}"
            raise ValueError(f"gpus without a known gpu_type; {known}; or set gpu_memory, for example 24GB")
        return self


class _NodeFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    nodes: Annotated[list[_Nodes], Field(min_length=1)]


def read_nodes(path: Path) -> list[Node]:
    """Return the nodes that a file describes. A node's memory is what Ray leaves for processes, without object store.

    Raises `ResourceError` if the file cannot be read, `SpecError` if it does not describe nodes.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResourceError(f"{path} cannot be read: {error.strerror}", "give the path of a file with nodes") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is no YAML: {error}", "write `nodes: [{cpus: 16, memory: 64GiB}]`") from error
    try:
        groups = _NodeFile.model_validate(value).nodes
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SpecError(
            f"{path}: {where}: {first['msg']}",
            "write `nodes:`, a list of `{count, cpus, memory, gpus, gpu_type}`; docs/how-to/cluster.md has an example",
        ) from error
    return [node for group in groups for node in [_node(group)] * group.count]


def _node(group: _Nodes) -> Node:
    memory = round(group.memory * (1 - OBJECT_STORE_SHARE))
    gpu_memory = (group.gpu_memory or memory_of_type(group.gpu_type)) if group.gpus else 0
    return Node(group.cpus, float(group.gpus), memory, group.gpu_type if group.gpus else "", gpu_memory)
