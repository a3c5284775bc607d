"""The plan of a run before it starts: sizes, memory and disk from the spec, and from the rows as far as they are known."""

from __future__ import annotations

import shutil
from typing import NamedTuple

from cluster.errors import ResourceError
from cluster.paths import expand_home
from cluster.plan import Demand, Node
from cluster.text import format_bytes
from trainer.data.prepare.passes import estimate_text_bytes
from trainer.data.sources import spec_sources
from trainer.defaults.facts import Choice
from trainer.pipeline.planned_choices import PlannedChoices, plan_choices
from trainer.pipeline.resources import TRAINING_STAGES, ResourcePlan, list_demands, plan_resources
from trainer.planning.disk import disk_space
from trainer.planning.remedies import list_remedies
from trainer.planning.row_facts import RowFacts, facts_of_spec
from trainer.planning.run_memory import RunMemory, run_memory, weights_of_base
from trainer.planning.term import Estimate
from trainer.planning.workers import resolve_workers
from trainer.spec.run import RunSpec


class PlannedRun(NamedTuple):
    """What a run of a spec needs on some nodes."""

    spec: RunSpec
    """With values instead of `auto`, as far as they are known."""
    nodes: list[Node]
    facts: RowFacts
    resources: ResourcePlan
    memory: RunMemory
    disk: Estimate
    demands: list[Demand]
    choices: dict[str, Choice]
    not_chosen: str

    def remedies(self, demand: Demand) -> list[str]:
        """Return what makes a training fit that takes too much memory."""
        if demand.stage not in TRAINING_STAGES:
            return []
        return list_remedies(self.spec, self.facts, self.nodes, demand)

    def check_disk(self) -> None:
        """Raise `ResourceError` if the storage is a folder of this machine that has too little free space."""
        check_disk(self.spec, self.disk)


def plan_run(spec: RunSpec, nodes: list[Node]) -> PlannedRun:
    """Return the plan of a run of `spec` on `nodes`. Few rows are prepared now to know them; many are not."""
    spec, chosen_workers = resolve_workers(spec, nodes)
    resources = plan_resources(spec, nodes)
    planned = plan_choices(spec)
    choices = dict(planned.choices)
    if chosen_workers:
        choices["cluster.workers"] = Choice(chosen_workers.workers, chosen_workers.reason)
    resolved = planned.spec or spec
    facts = planned.facts or facts_of_spec(spec)
    with_ray = not planned.is_small
    cpus = max(node.cpus for node in nodes)
    memory = run_memory(resolved, facts, cpus=cpus, with_ray=with_ray)
    return PlannedRun(
        resolved,
        nodes,
        facts,
        resources,
        memory,
        plan_disk(resolved, facts, planned),
        list_demands(resolved, resources, memory=memory),
        choices,
        planned.unknown_because,
    )


def plan_disk(spec: RunSpec, facts: RowFacts, planned: PlannedChoices) -> Estimate:
    """Return the disk space of a run; nothing is fetched, so rows that are not here yet are not counted."""
    weights = weights_of_base(spec, facts)
    if planned.prepared_bytes is not None or spec_sources.has_fetched_source(spec):
        return disk_space(spec, weights, 0, planned.prepared_bytes)
    files = spec_sources.list_source_files(spec)
    size = sum(file.size for file in files if "://" in file.path)
    size += estimate_text_bytes([file for file in files if "://" not in file.path])
    return disk_space(spec, weights, size, None)


def check_disk(spec: RunSpec, disk: Estimate) -> None:
    """Raise `ResourceError` if the storage folder, or the folder that it will be made in, has too little free space."""
    folder = existing = expand_home(spec.storage)
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if disk.least_bytes > free:
        raise ResourceError(
            f"the run writes {format_bytes(disk.least_bytes)} to {folder}, and {format_bytes(free)} are free there",
            "free some space, set another `storage`, or lower `train.checkpoint.keep`; "
            "`raymill plan --explain` shows the sum",
        )
