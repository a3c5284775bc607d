"""One run: its folder, its resources and its stages up to a trained model."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.console import Console
from cluster.errors import DataError
from cluster.files import write_json
from cluster.plan import Node, check
from cluster.progress import Progress, read_all, total_of
from trainer.data.prepare import prepare as preparing
from trainer.data.prepare.quarantine import TooManyBadRows
from trainer.data.prepared import Prepared
from trainer.data.sources import of_spec
from trainer.data.sources.resolve import SourceFile
from trainer.models import base_model
from trainer.pipeline.messages import NoticePrinter, print_row_counts
from trainer.pipeline.outcome import Outcome
from trainer.pipeline.resources import demands, layout
from trainer.pipeline.stage_runner import StageRunner
from trainer.runs import folder as run_folder
from trainer.runs.journal import RESULT
from trainer.runs.result import RunResult
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog
from trainer.training.launch import fit, is_alone, start_alone


class Run:
    """A run between its stages. Ray must be connected for `train`, and for a `prepare` that finds no prepared rows.

    `trainer.pipeline.finish` evaluates, registers and reports its result.
    """

    def __init__(self, spec: RunSpec, console: Console, kind: str, folder: Path | None = None) -> None:
        """`folder` is that of a resumed run; a new run gets a new folder."""
        self.spec, self.console = spec, console
        self.is_resumed = folder is not None
        if not folder:
            must_be_there(spec)
        self.folder = folder or run_folder.create(spec, kind)
        self.stages = StageRunner(console)
        self._notices = NoticePrinter(console, self.folder)
        self._actor: Any = None
        console.say(f"{spec.name}: {self.folder}", style="bold")
        console.send_rays_output_to(self.folder / run_folder.RAY_LOG)

    def size_resources(self, nodes: list[Node], *, serving: bool = False) -> None:
        """Choose CPUs per worker and concurrent trials for these nodes. Raises `ResourceError` if the spec cannot fit."""
        self.sizes = layout(self.spec, nodes)
        check(demands(self.spec, self.sizes, serving=serving), nodes)

    @cached_property
    def files(self) -> list[SourceFile]:
        """The files of the spec's data. They are listed, and queries are run, once: all stages use the same rows."""
        if of_spec.is_fetched(self.spec):
            return self.stages.run("fetch", lambda: of_spec.source_files(self.spec), Progress)
        return of_spec.source_files(self.spec)

    def prepare(self, spec: RunSpec | None = None) -> Prepared:
        """Return the prepared rows, found or made, and print their counts. A search passes variants of its spec."""
        wanted = spec or self.spec
        if self.is_resumed and wanted is self.spec:
            known = self._prepared_before()
            if known:
                return known
        prepared = self._prepare(wanted)
        print_row_counts(self.console, prepared)
        if wanted is self.spec:
            run_folder.note_prepared(self.folder, prepared.folder)
        return prepared

    def _prepare(self, spec: RunSpec) -> Prepared:
        latest = Progress()

        def on_progress(progress: Progress) -> None:
            nonlocal latest
            latest = progress

        files = self.files  # the same for all variants of the spec
        quarantine = self.folder / run_folder.QUARANTINE
        try:
            return self.stages.run(
                "prepare", lambda: preparing.prepare(spec, on_progress, quarantine, files=files), lambda: latest
            )
        except TooManyBadRows as error:
            self.console.table("Bad rows", ["reason", "rows"], list(error.by_reason.items()))
            raise

    def _prepared_before(self) -> Prepared | None:
        """Return the rows that this run began with. Raises `DataError` if their folder is gone."""
        known = run_folder.prepared_of(self.folder)
        if known is None:
            return None
        if known.is_dir():
            return Prepared(known)
        raise DataError(
            f"the prepared rows of this run are gone: {known}",
            f"train again with `raymill train --from {self.folder.name}`, which prepares them again",
        )

    def start_worker_early(self) -> None:
        """Start the training process now if preparing the rows leaves it the cores."""
        if is_alone(self.spec) and (
            run_folder.prepared_of(self.folder)
            or preparing.is_small(self.spec, self.files)
            or preparing.find(self.spec, self.files) is not None
        ):
            self._actor = start_alone(self.spec, float(self.sizes.cpus_per_worker))

    def train(self, prepared: Prepared) -> RunResult:
        """Train once, or resume the training."""
        files = self.files if self.spec.data.mode == "streaming" else None
        cpus = float(self.sizes.cpus_per_worker)

        def look() -> Progress:
            self._notices.print_new()
            return total_of(read_all(self.folder / "progress"))

        return self.stages.run(
            "train", lambda: fit(self.spec, prepared.folder, self.folder, cpus, files, self._actor), look
        )

    def outcome(self, **parts: Any) -> Outcome:
        """Return the outcome with these parts and the seconds so far, and write it into the run's folder."""
        outcome = Outcome(run=str(self.folder), stages=dict(self.stages.seconds), **parts)
        write_json(self.folder / RESULT, outcome.as_dict())
        return outcome


def must_be_there(spec: RunSpec, *, fetch: bool = True) -> None:
    """Raise for a task, column role, file or base model that does not exist. Needs no Ray and reads no rows.

    Without `fetch`, a hub model is not checked: the check would download it.
    """
    task = task_catalog.get(spec.task)
    task.columns(spec)
    of_spec.must_be_there(spec)
    if fetch or spec.model.base is None or base_model.is_local(spec.model.base):
        task.check_spec(spec)
