"""The plan of a run: what its stages need, what the nodes have, what `auto` stands for, memory and disk with formulas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.session import is_on_this_machine

if TYPE_CHECKING:
    from cluster.plan import Node
    from trainer.planning.term import Estimate
    from trainer.spec.run import RunSpec


def plan(
    spec: str | Path | RunSpec | Mapping[str, Any],
    *,
    overrides: Iterable[str] = (),
    nodes: str | Path | None = None,
) -> dict[str, Any]:
    """Return the processes that will run with their CPUs, GPUs and memory, the nodes, and the values of `auto`.

    `nodes` is a file with the nodes of a cluster that is not there yet; by default, the plan is for this machine or for
    the cluster that the spec joins. Keys of the result:

    - `nodes`: the CPUs, GPUs and bytes of memory of each node.
    - `stages`: for each stage its processes, and what one process and all of them need. `memory_each` is the expected
      peak in bytes, an upper bound if the rows are not known yet; 0 if it is not known.
    - `memory` and `disk`: the terms of each sum, with their formulas; `unknown` says why a sum is not complete.
    - `chosen`: the value and the reason of each key that is `auto`; `not_chosen` says why they are not known yet, for
      example because many rows are not prepared. Few rows are prepared in a temporary folder to know them.

    Raises `ResourceError` with the totals, and with what would fit, if the processes do not fit, and every error that
    `run` raises before it reads rows.
    """
    from cluster.plan import check_fits
    from trainer.pipeline.planned_run import plan_run
    from trainer.pipeline.run import check_references
    from trainer.tasks.load_spec import load_spec

    loaded = load_spec(spec, overrides)
    check_references(loaded, fetch=False)
    planned = plan_run(loaded, _nodes(loaded, nodes))
    check_fits(planned.demands, planned.nodes, planned.remedies)
    if nodes is None:  # the storage of a cluster that is not there yet has another size than a folder here
        planned.check_disk()
    memory = planned.memory
    return {
        "nodes": [node._asdict() for node in planned.nodes],
        "stages": [
            {**demand._asdict(), "cpus": demand.cpus, "gpus": demand.gpus, "memory": demand.memory}
            for demand in planned.demands
        ],
        "cpus_per_worker": planned.resources.cpus_per_worker,
        "workers": planned.spec.cluster.min_workers,
        "trials_at_once": planned.resources.trials_at_once,
        "memory": {
            "prepare": _as_dict(memory.prepare),
            "train": _as_dict(memory.train.main),
            "train on a GPU": _as_dict(memory.train.gpu),
            "evaluate": _as_dict(memory.evaluate),
            "serve": _as_dict(memory.serve),
        },
        "disk": _as_dict(planned.disk),
        "chosen": {key: choice._asdict() for key, choice in planned.choices.items()},
        "not_chosen": planned.not_chosen,
    }


def _nodes(spec: RunSpec, file: str | Path | None) -> list[Node]:
    """Return the nodes to plan for."""
    from cluster.connect import connect_to_ray
    from cluster.node_file import read_nodes
    from cluster.plan import joined_nodes, local_nodes

    if file is not None:
        return read_nodes(Path(file))
    if is_on_this_machine(spec):
        return local_nodes(spec.cluster.cpus)
    with connect_to_ray(spec.cluster.address):
        return joined_nodes()


def _as_dict(estimate: Estimate) -> dict[str, Any]:
    return {
        "bytes": estimate.bytes,
        "is_upper_bound": estimate.is_bound,
        "unknown": estimate.unknown,
        "terms": [term._asdict() for term in estimate.terms],
    }
