"""The end of a run: evaluate on the held-out rows, register, pass the gate, write the report."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from cluster.connect import joins_cluster
from cluster.progress import read_progress, sum_progress
from trainer.charts.section import ReportSection, sections_or_reason
from trainer.data.prepared import Prepared
from trainer.defaults.facts import Choice
from trainer.defaults.resolve import read_choices
from trainer.inference.answers import ANSWERS_FILE, CHAMPION_ANSWERS_FILE
from trainer.inference.evaluate import Evaluation, LabeledRows, compute_evaluation
from trainer.inference.held_out import load_held_out
from trainer.inference.scoring import ScoringOptions, ScoringResources, score_rows
from trainer.pipeline.outcome import Outcome
from trainer.pipeline.run import Run
from trainer.registry.register import build_lineage, promote_if_better, register_version
from trainer.registry.registry import Version
from trainer.report.answer_sections import answer_sections
from trainer.report.page import ReportPage, write_page
from trainer.report.search_sections import search_sections, trial_sections
from trainer.report.training_sections import choice_sections, learning_curve_sections, notice_sections, step_sections
from trainer.runs.folder import REPORT_FILE, SPEC_FILE, save_spec
from trainer.runs.journal import NOTICES, read_json_lines
from trainer.runs.result import RunResult
from trainer.targets.metrics.summary import metrics_line
from trainer.tasks.base import Task
from trainer.tasks.catalog import task_of_contract
from trainer.training.tracking import trackers


def register_result(run: Run, result: RunResult) -> Outcome:
    """Evaluate the trained model on the held-out rows, register it, pass it through the gate, and write the report."""
    prepared = Prepared(result.prepared)
    task = task_of_contract(prepared.contract)
    rows = load_held_out(prepared)
    evaluation = _evaluate(run, result, prepared, rows)
    lineage = build_lineage(result.spec, prepared, rows.digest, run.folder)
    started = time.monotonic()
    version = register_version(result, evaluation, rows, lineage)
    champion_answers = run.folder / CHAMPION_ANSWERS_FILE
    decision = promote_if_better(run.spec, version, evaluation, rows, _scoring_resources(run), champion_answers)
    _write_report(
        run,
        result,
        ReportPage(
            title=f"{version.name}, version {version.number}",
            subtitle=f"{evaluation.rows:,} held-out rows{_describe_folds(result)}",
            metrics=evaluation.metrics,
            main_metric=run.spec.evaluate.metric,
            sections=[
                *_overview_sections(result, run.spec.evaluate.metric, task),
                *evaluation.sections,
                *sections_or_reason("Answers", lambda: answer_sections(run.folder, run.spec.evaluate.answers)),
                *sections_or_reason("Model", lambda: task.sections(prepared.contract, version.folder)),
                *_detail_sections(run, result),
            ],
            lineage={"version": version.ref, **lineage},
            decision=decision,
            spec_text=_read_spec_text(run),
        ),
    )
    seconds = run.stages.seconds["register"] = round(time.monotonic() - started, 2)
    run.console.print(f"  register   {seconds:6.1f} s", style="green")
    outcome = run.write_outcome(
        model=version.name,
        version=version.number,
        promoted=decision.promoted,
        reason=decision.reason,
        note=decision.note or None,
        fingerprint=prepared.contract.fingerprint,
        metrics={"test": evaluation.metrics, "validation": result.metrics},
        chosen=_chosen(run, result),
        report=str(run.folder / REPORT_FILE),
    )
    _send_to_trackers(run, version, run.spec.promote.alias if decision.promoted else None)
    return run.add_notices(outcome)


def finish_training(run: Run, result: RunResult) -> Outcome:
    """Write the report of a training or a search whose model is not registered."""
    prepared = Prepared(result.prepared)
    metric = run.spec.evaluate.metric
    overview = _overview_sections(result, metric, task_of_contract(prepared.contract))
    _write_report(
        run,
        result,
        ReportPage(
            title=f"{run.spec.name}: training",
            subtitle="metrics on the validation rows",
            metrics={name: value for name, value in result.metrics.items() if name != "train_loss"},
            main_metric=metric,
            sections=[*overview, *_detail_sections(run, result)],
            lineage={
                "run": str(run.folder),
                "prepared_folder": str(result.prepared),
                "checkpoint": str(result.checkpoint),
            },
            spec_text=_read_spec_text(run),
        ),
    )
    outcome = run.write_outcome(
        fingerprint=prepared.contract.fingerprint,
        metrics={"validation": result.metrics},
        chosen=_chosen(run, result),
        checkpoint=str(result.checkpoint),
        report=str(run.folder / REPORT_FILE),
    )
    _send_to_trackers(run)
    return run.add_notices(outcome)


def _evaluate(run: Run, result: RunResult, prepared: Prepared, rows: LabeledRows) -> Evaluation:
    progress = run.folder / "progress-evaluate" / "rows.json"
    spec, resources = run.spec.evaluate, _scoring_resources(run)

    def score() -> np.ndarray:
        options = ScoringOptions(spec.batch_size, progress, spec.answers, run.folder / ANSWERS_FILE)
        return score_rows(result.checkpoint, rows, resources, options)

    scores = run.stages.run("evaluate", score, lambda: sum_progress(read_progress(progress.parent)))
    return compute_evaluation(
        prepared.contract, rows, scores, n_bins=spec.calibration_bins, n_mistakes=spec.max_mistakes_shown
    )


def _scoring_resources(run: Run) -> ScoringResources:
    cluster = run.spec.cluster
    # On this machine, this process loads the model to register it anyway; another one would import torch again.
    with_ray = joins_cluster(cluster.address) or cluster.gpus_per_worker > 0
    return ScoringResources(float(run.resources.cpus_per_worker), cluster.gpus_per_worker, with_ray)


def _overview_sections(result: RunResult, metric: str, task: Task) -> list[ReportSection]:
    loss = task.target.loss_metric
    return [
        *sections_or_reason("Learning curves", lambda: learning_curve_sections(result, metric, loss)),
        *sections_or_reason("Trials", lambda: trial_sections(result, metric)),
    ]


def _detail_sections(run: Run, result: RunResult) -> list[ReportSection]:
    return [
        *sections_or_reason("Search", lambda: search_sections(result, run.spec.evaluate.metric)),
        *choice_sections(_choices(run, result)),
        *sections_or_reason("Training by step", lambda: step_sections(result.folder)),
    ]


def _choices(run: Run, result: RunResult) -> dict[str, Choice]:
    """Return what raymill chose: for the whole run, and in a search for the winner."""
    return {**read_choices(run.folder), **read_choices(result.folder)}


def _chosen(run: Run, result: RunResult) -> dict[str, dict[str, Any]]:
    return {key: choice._asdict() for key, choice in _choices(run, result).items()}


def _describe_folds(result: RunResult) -> str:
    folds = result.spec.train.folds
    if not folds:
        return ""
    metrics = metrics_line(result.metrics).replace("  ", ", ")
    return f"; validation metrics are means over {folds} folds{f': {metrics}' if metrics else ''}"


def _read_spec_text(run: Run) -> str:
    return (run.folder / SPEC_FILE).read_text(encoding="utf-8")


def _write_report(run: Run, result: RunResult, page: ReportPage) -> None:
    """Write the spec of the result as best.yaml, and the report with the run's notices."""
    save_spec(result.spec, run.folder / "best.yaml")
    for section in page.sections:
        if section.left_out:
            run.notice(f"the report is without '{section.title}'. {section.note}")
    notices = notice_sections(read_json_lines(run.folder / NOTICES))
    write_page(run.folder / REPORT_FILE, dataclasses.replace(page, sections=[*page.sections, *notices]))


def _send_to_trackers(run: Run, version: Version | None = None, alias: str | None = None) -> None:
    trackers.publish_run(run.spec, run.folder, run.notice, version, alias)
