"""Evaluate registered models on labeled rows, and predict with them for files."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from cluster.connect import asks_for_ray, connect_to_ray
from cluster.console import Console
from cluster.errors import DataError, ResourceError, SpecError
from cluster.files import write_json
from cluster.machine import count_cores
from cluster.plan import Demand, check_fits, joined_nodes
from cluster.progress import Progress, read_progress, run_in_thread, sum_progress
from cluster.ray_address import OPTION
from trainer.contract.contract import load_contract
from trainer.data.pandas_import import leave_out_pandas
from trainer.data.sources.folder_contents import count_endings
from trainer.data.sources.source_file import INPUT
from trainer.data.sources.source_files import find_source_files, list_left_out
from trainer.inference.answers import ANSWERS_FILE
from trainer.inference.batch_predict import check_files, is_small_input, predict_files
from trainer.inference.evaluate import compute_evaluation, read_labeled
from trainer.inference.scoring import ScoringOptions, ScoringResources, score_rows
from trainer.pipeline.messages import print_files_left_out
from trainer.pipeline.version_spec import load_version_spec
from trainer.registry.register import load_registered_rows
from trainer.registry.registry import Version
from trainer.report.answer_sections import answer_sections
from trainer.report.page import ReportPage, write_page
from trainer.runs.folder import RAY_LOG, REPORT_FILE, lock_run
from trainer.runs.journal import RESULT
from trainer.spec.answers import AnswersSpec
from trainer.spec.format import FormatSpec
from trainer.tasks.catalog import task_of_contract


def evaluate_version(
    version: Version,
    data: str | None,
    reading: FormatSpec,
    storage: Path,
    console: Console,
    address: str | None,
) -> dict[str, Any]:
    """Return the metrics of `version` on `data`, or on the held-out rows it was registered with, and write a report.

    Scores the rows in this process, or in a Ray task if an `address` is given.
    """
    leave_out_pandas()
    contract = load_contract(version.folder)
    rows = read_labeled(data, contract, version.folder, reading) if data else load_registered_rows(version)
    folder = _create_folder(storage, version, "evaluate")
    console.print(f"{version.ref}: {len(rows):,} rows, {folder}", style="bold")
    console.redirect_ray_output(folder / RAY_LOG)
    spec = load_version_spec(version).evaluate
    progress = folder / "progress" / "rows.json"
    started = time.monotonic()

    def score() -> np.ndarray:
        with_ray = address is not None
        resources = ScoringResources(1 if with_ray else os.cpu_count() or 1, with_ray=with_ray)
        options = ScoringOptions(spec.batch_size, progress, spec.answers, folder / ANSWERS_FILE)
        return score_rows(version.folder, rows, resources, options)

    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_run(folder))
        if address is not None:
            stack.enter_context(connect_to_ray(address, source=OPTION, quiet=console.quiet))
        with console.stage("evaluate") as show:
            scores = run_in_thread(score, lambda: show(sum_progress(read_progress(progress.parent))))
    evaluation = compute_evaluation(
        contract, rows, scores, n_bins=spec.calibration_bins, n_mistakes=spec.max_mistakes_shown
    )
    for section in evaluation.sections:
        if section.left_out:
            console.print(f"the report is without '{section.title}'. {section.note}", style="yellow")
    page = ReportPage(
        title=f"{version.ref} on {Path(data).name if data else 'its held-out rows'}",
        subtitle=f"{evaluation.rows:,} {'labeled' if data else 'held-out'} rows",
        metrics=evaluation.metrics,
        main_metric=spec.metric,
        sections=[
            *evaluation.sections,
            *answer_sections(folder, spec.answers),
            *task_of_contract(contract).sections(contract, version.folder),
        ],
        lineage={
            "version": version.ref,
            "evaluated_rows": data or "held-out rows",
            "evaluated_rows_digest": rows.digest,
            **version.lineage,
        },
    )
    write_page(folder / REPORT_FILE, page)
    result = {
        "run": str(folder),
        "model": version.name,
        "version": version.number,
        "fingerprint": contract.fingerprint,
        "metrics": {"test": evaluation.metrics},
        "rows": evaluation.rows,
        "stages": {"evaluate": round(time.monotonic() - started, 2)},
        "report": str(folder / REPORT_FILE),
    }
    write_json(folder / RESULT, result)
    return result


def predict_version(
    version: Version,
    inputs: str | list[str],
    output: Path,
    reading: FormatSpec,
    storage: Path,
    console: Console,
    address: str | None,
    limits: AnswersSpec | None = None,
) -> dict[str, Any]:
    """Write the predictions of `version` for the rows of `inputs`, one or several files, to `output`.

    `limits` are those of answers that a model writes; other models have none.

    Returns the output's path and the counts. Raises `DataError` if no row could be used; the output has the reasons.
    """
    leave_out_pandas()
    contract = load_contract(version.folder)
    if limits is not None and "evaluate.answers" not in task_of_contract(contract).used_keys:
        raise SpecError(
            f"{version.ref} writes no text, so its answers have no tokens to limit",
            "remove `--max-tokens` and `--temperature`",
        )
    files = find_source_files(inputs, INPUT, reading)
    check_files(files, output, contract)
    left_out = count_endings(list_left_out(inputs, INPUT, reading))
    folder = _create_folder(storage, version, "predict")
    console.print(f"{version.ref}: predictions to {output}", style="bold")
    print_files_left_out(console, left_out)
    console.redirect_ray_output(folder / RAY_LOG)
    latest = Progress()

    def on_progress(progress: Progress) -> None:
        nonlocal latest
        latest = progress

    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_run(folder))
        with_ray = asks_for_ray(address) or not is_small_input(files, contract)
        if with_ray:
            with console.stage("ray"):
                stack.enter_context(connect_to_ray(address, source=OPTION, quiet=console.quiet))
        cpus = _cpus_of_actor() if with_ray else float(count_cores())

        def predict() -> dict[str, Any]:
            return predict_files(
                version.folder, files, output, cpus=cpus, on_progress=on_progress, with_ray=with_ray, limits=limits
            )

        with console.stage("predict") as show:
            counts = run_in_thread(predict, lambda: show(latest))
    result = {
        "output": str(output),
        "model": version.name,
        "version": version.number,
        **counts,
        "files_left_out": left_out,
        "stages": {"predict": round(time.monotonic() - started, 2)},
    }
    write_json(folder / RESULT, result)
    if not counts["predicted"]:
        reason, rows = next(iter(counts["bad_rows"].items()))
        raise DataError(
            f"none of the {counts['rows']:,} rows could be used; the reason of {rows:,} is: {reason}",
            f"correct the input, or its `--format`; {output} has the reason of each row",
        )
    return result


def _cpus_of_actor() -> float:
    """Return the cores for the actor that predicts. Raises `ResourceError` if the connected Ray has no core."""
    nodes = joined_nodes()
    check_fits([Demand("predict", "reading and one model", 1, 1, 0, "nothing")], nodes)
    # The actor runs on one node. Half a core or more stays free for Ray Data, which else waits forever.
    largest = max((node.cpus for node in nodes), default=0.0)
    return largest - 1 if largest >= 2 else largest - 0.5


def _create_folder(storage: Path, version: Version, kind: str) -> Path:
    created_at = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = storage / "runs" / f"{version.name}-{kind}-{created_at}-{uuid.uuid4().hex[:6]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{storage} cannot be written: {error.strerror}", "name a folder that you may write to with `--storage`"
        ) from error
    return folder
