"""The end of a run: evaluate on the held-out rows, register, pass the gate, write the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.connect import joins
from cluster.progress import read_all, total_of
from trainer.charts.section import Section
from trainer.data.prepared import Prepared
from trainer.inference import evaluate, held_out
from trainer.inference.evaluate import Evaluation, LabelledRows
from trainer.pipeline.outcome import Outcome
from trainer.pipeline.run import Run
from trainer.registry import register
from trainer.registry.gate import Decision
from trainer.registry.registry import Version
from trainer.report import page
from trainer.runs import folder as run_folder
from trainer.runs.result import RunResult
from trainer.tasks import catalog as task_catalog
from trainer.tasks.base import Task
from trainer.training.tracking import trackers


def register_result(run: Run, result: RunResult) -> Outcome:
    """Evaluate the trained model on the held-out rows, register it, pass it through the gate, and write the report."""
    prepared = Prepared(result.prepared)
    task = task_catalog.of(prepared.contract)
    rows = held_out.held_out(prepared)
    evaluation = _evaluate(run, result, prepared, rows)
    lineage = register.lineage(result.spec, prepared, rows.digest, run.folder)
    size = {"cpus": float(run.sizes.cpus_per_worker), "gpus": run.spec.cluster.gpus_per_worker}
    started = time.monotonic()
    version = register.register(result, evaluation, rows, lineage)
    decision = register.through_the_gate(run.spec, version, evaluation, rows, **size)
    _write_report(
        run,
        result,
        task,
        title=f"{version.name}, version {version.number}",
        lineage={"version": version.ref, **lineage},
        evaluation=evaluation,
        sections=task.sections(prepared.contract, version.folder),
        decision=decision,
    )
    seconds = run.stages.seconds["register"] = round(time.monotonic() - started, 2)
    run.console.say(f"  register   {seconds:6.1f} s", style="green")
    outcome = run.outcome(
        model=version.name,
        version=version.number,
        promoted=decision.promoted,
        reason=decision.reason,
        fingerprint=prepared.contract.fingerprint,
        metrics={"test": evaluation.metrics, "validation": result.metrics},
        report=str(run.folder / page.FILE),
    )
    _send_to_trackers(run, version, run.spec.promote.alias if decision.promoted else None)
    return outcome


def finish_training(run: Run, result: RunResult) -> Outcome:
    """Write the report of a training or a search whose model is not registered."""
    prepared = Prepared(result.prepared)
    lineage = {
        "run": str(run.folder),
        "prepared_rows": str(result.prepared),
        "checkpoint": str(result.checkpoint),
    }
    task = task_catalog.of(prepared.contract)
    _write_report(run, result, task, title=f"{run.spec.name}: training", lineage=lineage)
    outcome = run.outcome(
        fingerprint=prepared.contract.fingerprint,
        metrics={"validation": result.metrics},
        checkpoint=str(result.checkpoint),
        report=str(run.folder / page.FILE),
    )
    _send_to_trackers(run)
    return outcome


def _evaluate(run: Run, result: RunResult, prepared: Prepared, rows: LabelledRows) -> Evaluation:
    progress = run.folder / "progress-evaluate" / "rows.json"
    spec, cpus, gpus = run.spec.evaluate, run.sizes.cpus_per_worker, run.spec.cluster.gpus_per_worker

    def score() -> np.ndarray:
        if not joins(run.spec.cluster.address) and not gpus:
            # This process loads the model to register it anyway; another process would import torch again.
            return evaluate.score_here(str(result.checkpoint), rows.columns, cpus, False, spec.batch_size, progress)
        return evaluate.score(
            result.checkpoint, rows, cpus=float(cpus), gpus=gpus, batch_size=spec.batch_size, progress=progress
        )

    scores = run.stages.run("evaluate", score, lambda: total_of(read_all(progress.parent)))
    return evaluate.judge(prepared.contract, rows, scores, n_bins=spec.calibration_bins, n_mistakes=spec.mistakes)


def _write_report(
    run: Run,
    result: RunResult,
    task: Task,
    *,
    title: str,
    lineage: dict[str, Any],
    evaluation: Evaluation | None = None,
    sections: Sequence[Section] = (),
    decision: Decision | None = None,
) -> None:
    """Write the spec that made the result, and the report."""
    run_folder.save_spec(result.spec, run.folder / "best.yaml")
    page.write(
        run.folder / page.FILE,
        title=title,
        metric=run.spec.evaluate.metric,
        evaluation=evaluation,
        sections=sections,
        loss=task.target.loss,
        lineage=lineage,
        result=result,
        decision=decision,
        spec_text=(run.folder / run_folder.SPEC).read_text(encoding="utf-8"),
    )


def _send_to_trackers(run: Run, version: Version | None = None, alias: str | None = None) -> None:
    trackers.finished(run.spec, run.folder, lambda text: run.console.say(text, style="yellow"), version, alias)
