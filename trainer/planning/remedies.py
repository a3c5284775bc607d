"""What makes a training fit that takes too much memory: each change is computed again, and only named if it then fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cluster.accelerators import known_types, memory_of_type
from cluster.errors import UserError
from cluster.plan import Demand, Node, capacity
from cluster.text import format_bytes
from trainer.planning.pass_size import step_unit, units_per_pass
from trainer.planning.row_facts import RowFacts
from trainer.planning.training_memory import worker_memory
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog
from trainer.tasks.load_spec import override_spec


def list_remedies(spec: RunSpec, facts: RowFacts, nodes: list[Node], demand: Demand) -> list[str]:
    """Return changes with which the training of `demand` fits on `nodes`, as parts of a sentence.

    Of each kind of change, the mildest that fits is named, with the memory that a worker then needs.
    """
    remedies = []
    for strengths in _kinds_of_changes(spec, nodes):
        for changes in strengths:
            needed = _memory_if_it_fits(spec, changes, facts, nodes, demand)
            if needed:
                keys = " and ".join(f"`{key}: {_as_yaml(value)}`" for key, value in changes.items())
                remedies.append(f"set {keys} ({format_bytes(needed)} each)")
                break
    return [*remedies, *_other_machine(nodes, demand)]


def _kinds_of_changes(spec: RunSpec, nodes: list[Node]) -> list[list[dict[str, Any]]]:
    """Return the kinds of changes, each in its strengths, the mildest first."""
    task = task_catalog.get_task(spec.task)
    if task.learns_from_features or task.train is not None:
        return []
    key = f"train.{step_unit(spec).pass_key}"
    fewer_rows: list[dict[str, Any]] = [{key: count} for count in _smaller_passes(spec)]
    kinds = [fewer_rows]
    if not spec.train.gradient_checkpointing:
        checkpointing: dict[str, Any] = {"train.gradient_checkpointing": True}
        kinds.append([checkpointing, *({**checkpointing, **fewer} for fewer in fewer_rows)])
    sharded: list[dict[str, Any]] = [
        {"cluster.strategy": "fsdp", "cluster.workers": count} for count in _more_workers(spec, nodes)
    ]
    kinds.append(sharded)
    if spec.model.lora is None and not spec.train.freeze:
        lora: dict[str, Any] = {"model.lora": {"rank": 16}}
        kinds.append([lora, *({**lora, **fewer} for fewer in fewer_rows)])
    return kinds


def _as_yaml(value: Any) -> str:
    return json.dumps(value).replace('"', "")


def _smaller_passes(spec: RunSpec) -> list[int]:
    """Return powers of two below the rows or tokens of a pass, the largest first."""
    size, least = units_per_pass(spec, spec.cluster.min_workers), step_unit(spec).smallest_pass
    return [2**power for power in range(size.bit_length() - 1, -1, -1) if least <= 2**power < size]


def _more_workers(spec: RunSpec, nodes: list[Node]) -> list[int]:
    room = capacity(nodes, spec.cluster.cpus_per_worker or 1, spec.cluster.gpus_per_worker)
    return [count for count in (2, 4, 8, 16, 32, 64) if spec.cluster.min_workers < count <= room]


def _memory_if_it_fits(
    spec: RunSpec, changes: Mapping[str, Any], facts: RowFacts, nodes: list[Node], demand: Demand
) -> int:
    """Return the bytes that a worker of the changed spec needs on its device; 0 if it does not fit or cannot be."""
    try:
        changed = override_spec(spec, changes)
        memory = worker_memory(changed, facts)
    except UserError:
        return 0  # the task, the model or another key does not allow the change
    if memory.main.unknown or memory.gpu.unknown:
        return 0
    processes = max(demand.processes, changed.cluster.min_workers)
    room = capacity(nodes, demand.cpus_each, demand.gpus_each, memory.main.bytes, memory.gpu.bytes)
    return (memory.gpu.bytes or memory.main.bytes) if room >= processes else 0


def _other_machine(nodes: list[Node], demand: Demand) -> list[str]:
    """Return the smallest known type of GPU with enough memory, or the memory that a node must have."""
    need = demand.least_gpu_memory_each
    if need and capacity(nodes, demand.cpus_each, demand.gpus_each, 0, need) < demand.processes:
        names = [name for name in known_types() if memory_of_type(name) >= need]
        return [f"use a GPU with {format_bytes(memory_of_type(names[0]))}, such as {names[0]}"] if names else []
    return [f"use a node with {format_bytes(demand.least_memory_each)} for each process"]
