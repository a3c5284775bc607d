"""One run: its folder, its resources and its stages up to a trained model."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from cluster.connect import asks_for_ray
from cluster.console import Console
from cluster.errors import DataError
from cluster.files import write_json
from cluster.plan import Demand, Node, check_fits
from cluster.progress import Progress, read_progress, sum_progress
from cluster.room_watch import RoomWatch
from trainer.data.folder import QUARANTINE
from trainer.data.pandas_import import leave_out_pandas
from trainer.data.prepare import prepare as preparing
from trainer.data.prepare.quarantine import TooManyBadRows
from trainer.data.prepared import Prepared
from trainer.data.sources import spec_sources
from trainer.data.sources.source_file import SourceFile
from trainer.defaults.facts import Choice
from trainer.defaults.resolve import ResolvedSpec, resolve_once
from trainer.models import base_model
from trainer.pipeline.messages import NoticePrinter, print_choices, print_row_counts
from trainer.pipeline.outcome import Outcome
from trainer.pipeline.resources import check_training_fits, list_demands, plan_resources
from trainer.pipeline.stage_gauges import StageGauges
from trainer.pipeline.stage_runner import StageRunner
from trainer.planning.workers import resolve_workers
from trainer.runs.folder import (
    RAY_LOG,
    create_run,
    read_prepared_path,
    save_prepared_path,
    save_resolved_spec,
)
from trainer.runs.journal import RESULT, append_notice, read_notices
from trainer.runs.result import RunResult
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog
from trainer.tasks.columns import columns_of
from trainer.training.launch import is_single_worker, launch_training, start_single_worker
from trainer.training.stop_request import request_stop

T = TypeVar("T")


class Run:
    """One run of a spec. Its methods run its stages, and it holds what they share.

    If it `needs_ray`, Ray must be connected for `train`, and for `prepare` unless the rows were prepared earlier.

    `trainer.pipeline.finish` evaluates, registers and reports its result.
    """

    def __init__(self, spec: RunSpec, console: Console, kind: str, folder: Path | None = None) -> None:
        """Create the run's folder, or take `folder` to resume the run in it."""
        self.spec, self.console = spec, console
        self.is_resumed = folder is not None
        if not folder:
            check_references(spec)
        self.folder = folder or create_run(spec, kind)
        self.gauges = StageGauges(spec, self.folder)
        self.stages = StageRunner(console, self.gauges)
        self._notices = NoticePrinter(console, self.folder)
        self._actor: Any = None
        console.print(f"{spec.name}: {self.folder}", style="bold")
        console.redirect_ray_output(self.folder / RAY_LOG)

    def size_resources(self, nodes: list[Node], *, serving: bool = False) -> None:
        """Choose the sizes that the spec leaves open for these nodes. Raises `ResourceError` if it does not fit."""
        self.spec, workers = resolve_workers(self.spec, nodes)
        if workers:
            print_choices(self.console, {"cluster.workers": Choice(workers.workers, workers.reason)})
        self.resources, self._nodes = plan_resources(self.spec, nodes), nodes
        check_fits(list_demands(self.spec, self.resources, serving=serving), nodes)

    @cached_property
    def files(self) -> list[SourceFile]:
        """The files of the spec's data. Files are listed and queries run only once, so all stages use the same rows."""
        if spec_sources.has_fetched_source(self.spec):
            return self.stages.run("fetch", lambda: spec_sources.list_source_files(self.spec), Progress)
        return spec_sources.list_source_files(self.spec)

    @cached_property
    def needs_ray(self) -> bool:
        """Whether Ray must be connected. It need not for few rows and one worker on this machine's CPUs.

        A Ray that was asked for, or to which this process is connected, is used in any case.
        """
        spec = self.spec
        is_small = spec.tune is None and is_single_worker(spec) and not spec.cluster.gpus_per_worker
        return asks_for_ray(spec.cluster.address) or not is_small or self.prepares_with_ray

    @cached_property
    def prepares_with_ray(self) -> bool:
        """Whether the rows are too many to prepare them in this process, and were not prepared earlier."""
        if self.is_resumed and read_prepared_path(self.folder):
            return False
        return not preparing.is_small_data(self.spec, self.files) and not preparing.find_prepared(self.spec, self.files)

    def prepare(self, spec: RunSpec | None = None) -> Prepared:
        """Prepare the rows, or reuse rows that were prepared earlier, and print their counts.

        A search passes variants of the run's spec. A resumed run uses the rows that it started with.
        """
        spec = spec or self.spec
        is_own_spec = spec is self.spec
        if self.is_resumed and is_own_spec and (earlier := self._rows_before_interruption()):
            return earlier
        prepared = self._prepare(spec)
        self.gauges.publish_rows(prepared.summary)
        print_row_counts(self.console, prepared)
        if is_own_spec:
            save_prepared_path(self.folder, prepared.folder)
        return prepared

    def _prepare(self, spec: RunSpec) -> Prepared:
        latest = Progress()

        def on_progress(progress: Progress) -> None:
            nonlocal latest
            latest = progress

        def prepare() -> Prepared:
            return preparing.prepare_rows(spec, on_progress, quarantine, files=files)

        if not self.needs_ray:
            leave_out_pandas()  # Ray Data imports it anyway
        files = self.files  # the same for all variants of the spec
        quarantine = self.folder / QUARANTINE
        try:
            if self.prepares_with_ray and asks_for_ray(self.spec.cluster.address):
                return self._run_watched(Demand("prepare", "", 1, 1, 0, "cluster.cpus"), prepare, lambda: latest)
            return self.stages.run("prepare", prepare, lambda: latest)
        except TooManyBadRows as error:
            self.console.table("Bad rows", ["reason", "rows"], list(error.by_reason.items()))
            raise

    def _rows_before_interruption(self) -> Prepared | None:
        """Return the rows that this run started with. Raises `DataError` if their folder is gone."""
        folder = read_prepared_path(self.folder)
        if folder is None:
            return None
        if folder.is_dir():
            return Prepared(folder)
        raise DataError(
            f"the prepared rows of this run are gone: {folder}",
            f"train again with `raymill train --from {self.folder.name}`, which prepares the rows again",
        )

    def start_worker_early(self) -> None:
        """Start the training process now if there is one and preparing the rows leaves enough cores for it."""
        if self.needs_ray and is_single_worker(self.spec) and not self.prepares_with_ray:
            self._actor = start_single_worker(self.spec, float(self.resources.cpus_per_worker))

    def train(self, prepared: Prepared) -> RunResult:
        """Train once, or resume the training."""
        spec = self._resolve(prepared)
        check_training_fits(spec, prepared, self.resources, self._nodes)
        files = self.files if spec.data.mode == "streaming" else None
        cpus = float(self.resources.cpus_per_worker)

        def progress() -> Progress:
            self._notices.print_new()
            return sum_progress(read_progress(self.folder / "progress"))

        def train() -> RunResult:
            return launch_training(
                spec, prepared.folder, self.folder, cpus, files, self._actor, with_ray=self.needs_ray
            )

        try:
            return self.run_on_machines("train", train, progress)
        except KeyboardInterrupt:
            if not self.needs_ray:
                request_stop(self.folder)  # nobody kills the thread that trains in this process
            raise

    def run_on_machines(self, stage: str, work: Callable[[], T], progress: Callable[[], Progress]) -> T:
        """Run a training or a search. On a cluster, show when it waits for machines, and stop if that takes too long."""
        cluster = self.spec.cluster
        if not (self.needs_ray and asks_for_ray(cluster.address)):
            return self.stages.run(stage, work, progress)
        cpus = float(self.resources.cpus_per_worker)
        least = Demand(stage, "", cluster.min_workers, cpus, cluster.gpus_per_worker, "cluster.workers")
        return self._run_watched(least, work, progress)

    def _run_watched(self, least: Demand, work: Callable[[], T], progress: Callable[[], Progress]) -> T:
        with RoomWatch(least, self.spec.cluster.wait_for_machines_s) as room:
            latest = Progress()

            def progress_or_wait() -> Progress:
                nonlocal latest
                waiting = room.check()
                with contextlib.suppress(OSError):  # the storage does not answer
                    latest = progress()
                return latest.model_copy(update={"note": waiting}) if waiting else latest

            return self.stages.run(least.stage, work, progress_or_wait)

    def _resolve(self, prepared: Prepared) -> RunSpec:
        """Return the spec with values instead of `auto`; print and store what was chosen."""
        resolved = resolve_once(self.spec, prepared, self.folder)
        self.record_choices(resolved)
        return resolved.spec

    def record_choices(self, resolved: ResolvedSpec) -> None:
        """Print the values that raymill chose, and store the spec with them: resuming and repeating use it."""
        if resolved.choices:
            print_choices(self.console, resolved.choices)
            save_resolved_spec(resolved.spec, self.folder)

    def notice(self, text: str) -> None:
        """Record something that the run leaves out while the rest goes on, and print it."""
        append_notice(self.folder, text)
        self._notices.print_new()

    def write_outcome(self, **fields: Any) -> Outcome:
        """Write the outcome, with these fields, the notices and the stages' seconds so far, into the run's folder.

        Metrics that are not finite are left out. Returns the outcome.
        """
        metrics = {part: self._finite(part, values) for part, values in fields.pop("metrics", {}).items()}
        self._notices.print_new()
        notices = read_notices(self.folder)
        outcome = Outcome(
            run=str(self.folder), stages=dict(self.stages.seconds), notices=notices, metrics=metrics, **fields
        )
        write_json(self.folder / RESULT, outcome.as_dict())
        return outcome

    def add_notices(self, outcome: Outcome) -> Outcome:
        """Return an outcome with the notices since it was written, and write it again if there are any."""
        notices = read_notices(self.folder)
        if notices == outcome.notices:
            return outcome
        outcome = dataclasses.replace(outcome, notices=notices)
        write_json(self.folder / RESULT, outcome.as_dict())
        return outcome

    def _finite(self, part: str, metrics: Mapping[str, float]) -> dict[str, float]:
        for name, value in metrics.items():
            if not math.isfinite(value):
                self.notice(f"{name} of the {part} rows is {value} and left out of the result")
        return {name: value for name, value in metrics.items() if math.isfinite(value)}


def check_references(spec: RunSpec, *, fetch: bool = True) -> None:
    """Raise if the spec names a task, column role, file or base model that does not exist.

    Needs no Ray and reads no rows. Without `fetch`, a hub model is not checked: the check would download it.
    """
    task = task_catalog.get_task(spec.task)
    columns_of(task, spec)
    spec_sources.check_sources_exist(spec)
    if fetch or spec.model.base is None or base_model.is_local_base(spec.model.base):
        task.check_spec(spec)
