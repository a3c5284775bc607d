"""Registers a finished training as a version, and promotes it through the gate."""

from __future__ import annotations

import json
import platform
from importlib.metadata import distributions
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cluster.errors import DataError, ModelError, UserError
from cluster.files import write_json
from cluster.text import utc_now
from trainer.contract.contract import load_contract
from trainer.data.folder import FILES_LEFT_OUT
from trainer.data.parts import PARTS
from trainer.data.prepared import Prepared
from trainer.inference.evaluate import (
    Evaluation,
    LabeledRows,
    check_finite_scores,
    encode_targets,
)
from trainer.inference.golden import MAX_ROWS, select_rows, write_golden
from trainer.inference.held_out import load_held_out
from trainer.inference.predictor import Predictor
from trainer.inference.scoring import ScoringOptions, ScoringResources, score_rows
from trainer.registry.certainty import ComparedScores, add_certainty
from trainer.registry.gate import GateDecision, decide_promotion
from trainer.registry.registry import LINEAGE_FILE, METRICS_FILE, Registry, Version, copy_files, verify_files
from trainer.runs.folder import SPEC_FILE, save_spec
from trainer.runs.result import RunResult
from trainer.spec.evaluate import METRICS_VERSION, EvaluateSpec
from trainer.spec.run import RunSpec
from trainer.targets.base import Target
from trainer.tasks import profile
from trainer.tasks.catalog import get_task, task_of_contract
from trainer.tasks.encoder import Columns
from trainer.tasks.roles import input_roles

_LIBRARIES = ("ray", "torch", "transformers", "tokenizers", "numpy", "pyarrow", "pillow", "scikit-learn")
# Libraries of the extra `tabular`, listed if they are installed.
_OPTIONAL_LIBRARIES = ("xgboost", "xgboost-cpu", "skops")


def load_registered_rows(version: Version) -> LabeledRows:
    """Return the held-out rows a version was registered with. Raises `ModelError` if they are gone or changed."""
    load_contract(version.folder)  # rejects a version of an earlier raymill, whose lineage has other keys
    folder = Path(version.lineage["prepared_folder"])
    try:
        rows = load_held_out(Prepared(folder))
        if rows.digest != version.lineage["held_out_digest"]:
            raise DataError(
                f"{folder} no longer has the rows that the version was registered with", "restore the folder"
            )
        return rows
    except (ModelError, DataError, OSError) as error:
        raise ModelError(
            f"the held-out rows of {version.ref} cannot be read: {error}", "give labeled rows with `--data FILE`"
        ) from error


def build_lineage(spec: RunSpec, prepared: Prepared, rows_digest: str, folder: Path) -> dict[str, Any]:
    """Return the origin of a model as plain JSON: time, run, data and library versions."""
    libraries = [f"{name} {installed_version(name)}" for name in (*_LIBRARIES, *_installed(_OPTIONAL_LIBRARIES))]
    return {
        "trained": utc_now(),
        "run": str(folder),
        "task": spec.task,
        "model": get_task(spec.task).model_name(spec),
        "contract_fingerprint": prepared.contract.fingerprint,
        "prepared_folder": str(prepared.folder),
        "rows": json.dumps(prepared.summary["rows"]),
        "held_out_digest": rows_digest,
        **_files_left_out(prepared),
        "libraries": ", ".join([f"python {platform.python_version()}", *libraries]),
    }


def _files_left_out(prepared: Prepared) -> dict[str, str]:
    """Return an entry of the lineage about files that hold no rows; {} if there are none."""
    left_out = prepared.summary.get(FILES_LEFT_OUT)
    counts = ", ".join(f"{count['files']} {ending}" for ending, count in (left_out or {}).items())
    return {FILES_LEFT_OUT: counts} if counts else {}


def _installed(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if next(iter(distributions(name=name)), None)]


def register_version(result: RunResult, evaluation: Evaluation, rows: LabeledRows, lineage: dict[str, Any]) -> Version:
    """Create the next version of `result.spec.name` from its checkpoint, metrics, golden rows, profile and lineage.

    Raises `ModelError` naming row and field if the library that made the base model encodes a golden row differently.
    """
    prepared = Prepared(result.prepared)

    def fill(folder: Path) -> None:
        copy_files(result.checkpoint, folder)
        predictor = Predictor(folder)
        _write_golden_rows(folder, predictor, evaluation.scores, rows.columns)
        test = {
            "rows": evaluation.rows,
            "rows_digest": evaluation.rows_digest,
            "metrics_version": METRICS_VERSION,
            "calibration_bins": result.spec.evaluate.calibration_bins,
            **evaluation.metrics,
        }
        write_json(folder / METRICS_FILE, {"test": test, "validation": result.metrics})
        write_json(folder / LINEAGE_FILE, lineage)
        write_json(folder / profile.PROFILE_FILE, _build_profile(folder, predictor, prepared))
        save_spec(result.spec, folder / SPEC_FILE)

    return Registry(result.spec.storage).register(result.spec.name, fill)


def register_candidate(result: RunResult, storage: Path) -> Version:
    """Register a training's model in a separate registry, to measure it in serving. Does not read any test row."""
    prepared = Prepared(result.prepared)
    rows = prepared.part("validation")
    task = task_of_contract(prepared.contract)
    columns = {role: rows.raw(role, MAX_ROWS) for role in input_roles(task, prepared.contract)}

    def fill(folder: Path) -> None:
        copy_files(result.checkpoint, folder)
        predictor = Predictor(folder)
        encoded = predictor.encode_with_reasons(columns).inputs
        _write_golden_rows(folder, predictor, predictor.scores(encoded), columns)
        write_json(folder / METRICS_FILE, {"validation": result.metrics})
        write_json(folder / LINEAGE_FILE, {"run": str(result.folder)})
        save_spec(result.spec, folder / SPEC_FILE)

    return Registry(str(storage)).register(result.spec.name, fill)


def _build_profile(folder: Path, predictor: Predictor, prepared: Prepared) -> dict[str, Any]:
    """Return the profile of the rows that the model in `folder` was trained on."""
    parts = {name: prepared.part(name) for name in PARTS}
    targets = profile.build_profile(parts, prepared.contract)
    inputs = predictor.task.profile(parts, prepared.contract, predictor.model, folder)
    return {**targets, **inputs, "columns": prepared.feature_profile}


def _write_golden_rows(folder: Path, predictor: Predictor, scores: np.ndarray, columns: Columns) -> None:
    """Write golden rows chosen from `columns`; `scores`, float64 of shape (B, C), are in the same order."""
    selected, raw = select_rows(predictor, columns)
    inputs = predictor.encode(raw) if selected else []
    cleaned, _ = predictor.clean(raw) if selected else (raw, [])
    library_note = predictor.task.check_against_library(predictor.contract, folder, cleaned, inputs)
    requests = predictor.task.as_request(predictor.contract, raw)
    width = predictor.task.target.width(predictor.contract.fitted)  # further columns are statistics of written answers
    write_golden(folder, inputs, requests, scores[selected, :width], library_note)


class _ChampionFigures(NamedTuple):
    """The champion on the candidate's held-out rows."""

    metrics: dict[str, float]
    scores: np.ndarray | None
    """As `Target.align_scores` returns them; None if the metrics were stored with the version."""
    note: str = ""
    """What to know about the metrics; a sentence or nothing."""


class _Candidate(NamedTuple):
    """A registered version, its evaluation on the held-out rows, and the resources for scoring the champion on them."""

    spec: RunSpec
    version: Version
    evaluation: Evaluation
    rows: LabeledRows
    resources: ScoringResources
    champion_answers: Path | None
    """The file for the champion's answers, if the spec asks for answers."""


def promote_if_better(
    spec: RunSpec,
    version: Version,
    evaluation: Evaluation,
    rows: LabeledRows,
    resources: ScoringResources,
    champion_answers: Path | None = None,
) -> GateDecision:
    """Promote `version` if it beats the champion on the same rows. The registry stores the evidence for it.

    `champion_answers` is the file for the champion's answers, if the spec asks for answers.
    """
    candidate = _Candidate(spec, version, evaluation, rows, resources, champion_answers)
    registry = Registry(spec.storage)
    while True:
        champion_number = registry.aliases(spec.name).get(spec.promote.alias)
        decision = _compare_with_champion(candidate, registry, champion_number)
        evidence = {"reason": decision.reason, "rows_digest": rows.digest, **decision.evidence}
        # If another run moved the alias meanwhile, the candidate has to beat the new champion.
        if not decision.promoted or registry.promote(version, spec.promote.alias, evidence, expected=champion_number):
            return decision


def _compare_with_champion(candidate: _Candidate, registry: Registry, champion_number: int | None) -> GateDecision:
    spec, metrics = candidate.spec, candidate.evaluation.metrics
    ours = load_contract(candidate.version.folder)
    target, targets = task_of_contract(ours).target, encode_targets(ours, candidate.rows)
    scores = ComparedScores(targets, candidate.evaluation.scores, None)
    if champion_number is None or not spec.promote.enabled:
        return add_certainty(decide_promotion(spec, metrics, None), target, spec.gate_evaluation, scores)
    try:
        champion = registry.find(f"{spec.name}@{champion_number}")
        _check_comparable(candidate.version, champion)
        figures = _evaluate_champion(candidate, champion, target, targets)
    except UserError as error:
        reason = (
            f"the current {spec.promote.alias} cannot be evaluated ({error.problem}); "
            "promote the version with `raymill models promote`"
        )
        return GateDecision(False, reason, {"metric": spec.gate_evaluation.metric})
    decision = decide_promotion(spec, metrics, figures.metrics, champion.ref)
    if figures.note:
        decision = decision._replace(note=figures.note, evidence={**decision.evidence, "note": figures.note})
    return add_certainty(decision, target, spec.gate_evaluation, scores._replace(champion=figures.scores))


def _check_comparable(candidate: Version, champion: Version) -> None:
    """Raise `ModelError` if the two cannot be evaluated on the same rows: their columns or kinds of target differ.

    If rows are split by content, other columns also mean that other rows were held out.
    """
    ours, theirs = load_contract(candidate.folder), load_contract(champion.folder)
    our_task, their_task = task_of_contract(ours), task_of_contract(theirs)
    if our_task.target.kind != their_task.target.kind:
        raise ModelError(
            f"{champion.ref} predicts a {their_task.target.kind}, not a {our_task.target.kind}", "use another name"
        )
    if set(input_roles(our_task, ours)) != set(input_roles(their_task, theirs)):
        raise ModelError(
            f"{champion.ref} reads other columns than the new version",
            "use another name, or promote with `raymill models promote`",
        )


def _evaluate_champion(
    candidate: _Candidate, champion: Version, target: Target, targets: np.ndarray
) -> _ChampionFigures:
    """Return the champion's metrics on the candidate's rows, computed as the candidate's are.

    If the champion cannot be loaded, for example because the code of its task has changed, the metrics that it was
    registered with replace them, provided that they mean the same on the same rows. Raises `UserError` otherwise.
    """
    spec, rows = candidate.spec, candidate.rows
    try:
        verify_files(champion)
        options = ScoringOptions(
            spec.evaluate.batch_size, answers=spec.evaluate.answers, answers_file=candidate.champion_answers
        )
        scores = score_rows(champion.folder, rows, candidate.resources, options)
        check_finite_scores(scores, champion.ref)
    except UserError as error:
        stored = _stored_metrics(champion, rows, spec.evaluate)
        if stored is None:
            raise
        note = f"{champion.ref} cannot be evaluated now ({error.problem}), so its stored metrics were compared."
        return _ChampionFigures(stored, None, note)
    # A champion with other labels is evaluated on the candidate's labels; a label it does not know scores 0.
    ours, theirs = load_contract(candidate.version.folder), load_contract(champion.folder)
    aligned = target.align_scores(scores, theirs.fitted, ours.fitted)
    return _ChampionFigures(target.metrics(aligned, targets, spec.evaluate.calibration_bins), aligned)


def _stored_metrics(champion: Version, rows: LabeledRows, spec: EvaluateSpec) -> dict[str, float] | None:
    """Return the metrics that a version was registered with; None if they are not comparable with new ones on `rows`."""
    stored: dict[str, Any] = champion.metrics.get("test", {})
    same = {
        "rows_digest": rows.digest,
        "metrics_version": METRICS_VERSION,
        "calibration_bins": spec.calibration_bins,
    }
    if any(stored.get(name) != value for name, value in same.items()):
        return None
    return {name: value for name, value in stored.items() if isinstance(value, float)}
