"""The stages of one run, each with its progress line, its seconds and its place in the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cluster.connect import joins
from cluster.console import Console
from cluster.errors import DataError
from cluster.files import write_json
from cluster.plan import Node, check
from cluster.progress import Progress, read_all, run_watched, total_of
from trainer import base_model, evaluate, registering, run_folder, tasks, tracking
from trainer.data import prepare as preparing
from trainer.data.prepare import TooManyBadRows
from trainer.data.prepared import Prepared
from trainer.data.sources import SourceFile
from trainer.evaluate import Evaluation, LabelledRows
from trainer.fit import fit, is_alone, start_alone
from trainer.gate import Decision
from trainer.layout import demands, layout
from trainer.registry import Version
from trainer.report import page
from trainer.report.sections import Section
from trainer.result import NOTICES, RESULT, RunResult, read_lines
from trainer.spec import RunSpec
from trainer.tasks.base import Task
from trainer.training.snapshots import Snapshots

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a command did, as `--json` prints it; parts that do not apply are left out there."""

    run: str
    model: str | None = None
    version: int | None = None
    promoted: bool | None = None
    reason: str | None = None
    """Why the gate let the model through, or did not."""
    fingerprint: str | None = None
    prepared: str | None = None
    """The folder of the prepared rows."""
    rows: dict[str, int] = field(default_factory=dict)
    """Prepared rows by part."""
    bad_rows: dict[str, int] = field(default_factory=dict)
    """Rows that could not be used, by reason."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that steps of the spec left out."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    checkpoint: str | None = None
    report: str | None = None
    url: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the parts that apply."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}


class Run:
    """One run while its stages go by. Ray must be connected for `train`, `finish` and a `prepare` that finds nothing."""

    def __init__(self, spec: RunSpec, console: Console, kind: str, folder: Path | None = None) -> None:
        """`folder` is that of a run that goes on; without it the run gets a new one."""
        self.spec, self.console = spec, console
        self.goes_on = folder is not None
        if not folder:
            must_be_there(spec)
        self.folder = folder or run_folder.create(spec, kind)
        self.seconds: dict[str, float] = {}
        self._actor: Any = None
        self._notices = len(read_lines(self.folder / NOTICES))
        console.say(f"{spec.name}: {self.folder}", style="bold")
        console.send_rays_output_to(self.folder / run_folder.RAY_LOG)

    def place(self, nodes: list[Node], *, serving: bool = False) -> None:
        """Work out sizes for these nodes, and refuse at once what can never fit."""
        self.sizes = layout(self.spec, nodes)
        check(demands(self.spec, self.sizes, serving=serving), nodes)

    def stage(self, name: str, work: Callable[[], T], look: Callable[[], Progress]) -> T:
        """Run one stage in a thread, showing `look()` meanwhile, and keep its seconds."""
        started = time.monotonic()
        with self.console.stage(name) as show:
            result = run_watched(work, lambda: show(look()), self.console.look_every_s)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 2)
        return result

    @cached_property
    def files(self) -> list[SourceFile]:
        """The files of the spec's data, named once: a query is read here, so that all stages have the same rows."""
        if preparing.is_fetched(self.spec):
            return self.stage("fetch", lambda: preparing.source_files(self.spec), Progress)
        return preparing.source_files(self.spec)

    def prepare(self, spec: RunSpec | None = None) -> Prepared:
        """Return the prepared rows, found or made; says how many and which could not be used."""
        wanted = spec or self.spec
        latest = Progress()

        def on_progress(progress: Progress) -> None:
            nonlocal latest
            latest = progress

        if self.goes_on and wanted is self.spec:
            known = self._prepared_before()
            if known:
                return known
        quarantine = self.folder / run_folder.QUARANTINE
        try:
            files = self.files  # variants of the spec, as a search prepares them, have the same ones
            prepared = self.stage(
                "prepare", lambda: preparing.prepare(wanted, on_progress, quarantine, files=files), lambda: latest
            )
        except TooManyBadRows as error:
            self.console.table("Bad rows", ["reason", "rows"], list(error.by_reason.items()))
            raise
        self._tell_of(prepared)
        if wanted is self.spec:
            run_folder.note_prepared(self.folder, prepared.folder)
        return prepared

    def _prepared_before(self) -> Prepared | None:
        """Return the rows that this run began with. Raises `DataError` where they are gone and cannot be had again."""
        known = run_folder.prepared_of(self.folder)
        if known is None:
            return None
        if known.is_dir():
            return Prepared(known)
        raise DataError(
            f"the prepared rows of this run are gone: {known}",
            f"begin again with `raymill train --from {self.folder.name}`, which prepares them anew",
        )

    def start_worker_early(self) -> None:
        """Start the process that will train, where preparing its rows leaves it the cores."""
        if is_alone(self.spec) and (
            run_folder.prepared_of(self.folder) or preparing.is_small(self.spec, self.files) or self._is_prepared()
        ):
            self._actor = start_alone(self.spec, float(self.sizes.cpus_per_worker))

    def _is_prepared(self) -> bool:
        return preparing.find(self.spec, self.files) is not None

    def _tell_of(self, prepared: Prepared) -> None:
        rows: dict[str, int] = prepared.summary["rows"]
        bad: dict[str, int] = prepared.summary["quarantined"]
        left_out: dict[str, int] = prepared.summary["left_out"]
        labels = tasks.of(prepared.contract).target.labels(prepared.contract.fitted)
        counts = ", ".join(f"{count:,} {part}" for part, count in rows.items())
        repeated = prepared.summary["repeated"]
        more = f" (and {repeated:,} repetitions by balance)" if repeated else ""
        self.console.say(f"             {counts} rows{more}" + (f", {len(labels)} labels" if labels else ""))
        if left_out:
            self.console.table("Rows left out by your steps", ["step", "rows"], list(left_out.items()))
        if bad:
            share = sum(bad.values()) / int(prepared.summary["rows_in_all"])
            self.console.table(f"Bad rows, {share:.2%} of all", ["reason", "rows"], list(bad.items()))
            self.console.say(f"             listed in {prepared.folder / preparing.QUARANTINE}")

    def train(self, prepared: Prepared) -> RunResult:
        """Train once, or go on with it."""
        files = self.files if self.spec.data.mode == "streaming" else None
        cpus = float(self.sizes.cpus_per_worker)
        return self.stage(
            "train", lambda: fit(self.spec, prepared.folder, self.folder, cpus, files, self._actor), self._training
        )

    def say_how_to_go_on(self) -> None:
        """Name the command that goes on with this training if a checkpoint was kept, or with this search."""
        steps = Snapshots(self.folder, keep=1).steps()
        if self.spec.tune is not None and (self.folder / "trials").is_dir():
            where = "with the trials there are"
        elif steps:
            where = f"from step {steps[0]}"
        else:
            return
        self.console.say(
            f"to go on {where}: raymill {run_folder.kind_of(self.folder)} --resume {self.folder}", style="yellow"
        )

    def _training(self) -> Progress:
        """Say what is new that should be seen, and return how far the training is."""
        notices = read_lines(self.folder / NOTICES)
        for notice in notices[self._notices :]:
            self.console.say(f"             {notice['text']}", style="yellow")
        self._notices = len(notices)
        return total_of(read_all(self.folder / "progress"))

    def finish(self, result: RunResult) -> Outcome:
        """Evaluate on the held-out rows, register, pass the gate, and write the report."""
        prepared = Prepared(result.prepared)
        task = tasks.of(prepared.contract)
        rows = registering.held_out(prepared)
        evaluation = self._evaluate(result, prepared, rows)
        origin = registering.lineage(result.spec, prepared, rows.digest, self.folder)
        size = {"cpus": float(self.sizes.cpus_per_worker), "gpus": self.spec.cluster.gpus_per_worker}
        started = time.monotonic()
        version = registering.register(result, evaluation, rows, origin)
        decision = registering.through_the_gate(self.spec, version, evaluation, rows, **size)
        self._report(
            result,
            task,
            title=f"{version.name}, version {version.number}",
            lineage={"version": version.ref, **origin},
            evaluation=evaluation,
            sections=task.sections(prepared.contract, version.folder),
            decision=decision,
        )
        self.seconds["register"] = round(time.monotonic() - started, 2)
        self.console.say(f"  register   {self.seconds['register']:6.1f} s", style="green")
        outcome = self.outcome(
            model=version.name,
            version=version.number,
            promoted=decision.promoted,
            reason=decision.reason,
            fingerprint=prepared.contract.fingerprint,
            metrics={"test": evaluation.metrics, "validation": result.metrics},
            report=str(self.folder / page.FILE),
        )
        self.send_to_trackers(version, self.spec.promote.alias if decision.promoted else None)
        return outcome

    def keep(self, result: RunResult) -> Outcome:
        """Write the report of a training, or a search, that nothing is registered of."""
        prepared = Prepared(result.prepared)
        lineage = {
            "run": str(self.folder),
            "prepared data": str(result.prepared),
            "checkpoint": str(result.checkpoint),
        }
        self._report(result, tasks.of(prepared.contract), title=f"{self.spec.name}: training", lineage=lineage)
        outcome = self.outcome(
            fingerprint=prepared.contract.fingerprint,
            metrics={"validation": result.metrics},
            checkpoint=str(result.checkpoint),
            report=str(self.folder / page.FILE),
        )
        self.send_to_trackers()
        return outcome

    def _report(
        self,
        result: RunResult,
        task: Task,
        *,
        title: str,
        lineage: dict[str, Any],
        evaluation: Evaluation | None = None,
        sections: Sequence[Section] = (),
        decision: Decision | None = None,
    ) -> None:
        """Write the spec that made the result, and the page about it."""
        run_folder.save_spec(result.spec, self.folder / "best.yaml")
        page.write(
            self.folder / page.FILE,
            title=title,
            metric=self.spec.evaluate.metric,
            evaluation=evaluation,
            sections=sections,
            loss=task.target.loss,
            lineage=lineage,
            result=result,
            decision=decision,
            spec_text=(self.folder / run_folder.SPEC).read_text(encoding="utf-8"),
        )

    def send_to_trackers(self, version: Version | None = None, alias: str | None = None) -> None:
        """Send what the run left to the places that the spec tracks it in."""
        tracking.finished(self.spec, self.folder, lambda text: self.console.say(text, style="yellow"), version, alias)

    def _evaluate(self, result: RunResult, prepared: Prepared, rows: LabelledRows) -> Evaluation:
        progress = self.folder / "progress-evaluate" / "rows.json"
        judge, cpus, gpus = self.spec.evaluate, self.sizes.cpus_per_worker, self.spec.cluster.gpus_per_worker

        def score() -> np.ndarray:
            if not joins(self.spec.cluster.address) and not gpus:
                # This process loads the model anyway, to register it: another one would import torch once more.
                return evaluate.score_here(
                    str(result.checkpoint), rows.columns, cpus, False, judge.batch_size, progress
                )
            return evaluate.score(
                result.checkpoint, rows, cpus=float(cpus), gpus=gpus, batch_size=judge.batch_size, progress=progress
            )

        scores = self.stage("evaluate", score, lambda: total_of(read_all(progress.parent)))
        return evaluate.judge(prepared.contract, rows, scores, n_bins=judge.calibration_bins, n_mistakes=judge.mistakes)

    def outcome(self, **parts: Any) -> Outcome:
        """Return the outcome with these parts and the seconds so far, and keep it in the run's folder."""
        found = Outcome(run=str(self.folder), stages=dict(self.seconds), **parts)
        write_json(self.folder / RESULT, found.as_dict())
        return found


def must_be_there(spec: RunSpec, *, fetch: bool = True) -> None:
    """Raise for a task, column part, file or base model that is not there; needs no Ray and reads no rows.

    Without `fetch` a model of the hub is not looked at: it would be downloaded.
    """
    task = tasks.get(spec.task)
    task.columns(spec)
    preparing.must_be_there(spec)
    if fetch or spec.model.base is None or base_model.is_local(spec.model.base):
        task.check_spec(spec)
