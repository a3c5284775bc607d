"""From a finished training to a registered version, and through the gate to its alias."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import distributions
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import DataError, ModelError, UserError
from cluster.files import write_json
from trainer.contract import contract as contracts
from trainer.data.prepared import Prepared
from trainer.inference import evaluate, golden
from trainer.inference.evaluate import Evaluation, LabelledRows
from trainer.inference.held_out import held_out
from trainer.inference.predictor import Predictor
from trainer.registry import registry
from trainer.registry.gate import Decision, decide
from trainer.registry.registry import Registry, Version
from trainer.runs import folder as run_folder
from trainer.runs.result import RunResult
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog
from trainer.tasks import profile
from trainer.tasks.encoder import Columns

_LIBRARIES = ("ray", "torch", "transformers", "tokenizers", "numpy", "pyarrow", "pillow", "scikit-learn")


# Those of the extra `tabular`, where they are.
_MORE_LIBRARIES = ("xgboost", "xgboost-cpu", "skops")


def held_out_of(version: Version) -> LabelledRows:
    """Return the rows a version was registered with. Raises `ModelError` where they are not there any more."""
    place = Path(version.lineage["prepared data"])
    try:
        rows = held_out(Prepared(place))
        if rows.digest != version.lineage["digest of the held-out rows"]:
            raise DataError(f"{place} holds other rows than those it was registered with", "restore the folder")
        return rows
    except (ModelError, DataError, OSError) as error:
        raise ModelError(
            f"the held-out rows of {version.ref} cannot be read: {error}", "give labelled rows with --data FILE"
        ) from error


def lineage(spec: RunSpec, prepared: Prepared, rows_digest: str, folder: Path) -> dict[str, Any]:
    """Return where a model comes from, as plain JSON."""
    return {
        "trained": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "run": str(folder),
        "task": spec.task,
        "model": task_catalog.get(spec.task).model_name(spec),
        "contract fingerprint": prepared.contract.fingerprint,
        "prepared data": str(prepared.folder),
        "rows": json.dumps(prepared.summary["rows"]),
        "digest of the held-out rows": rows_digest,
        "libraries": ", ".join(
            [
                f"python {platform.python_version()}",
                *[f"{name} {installed(name)}" for name in (*_LIBRARIES, *_there(_MORE_LIBRARIES))],
            ]
        ),
    }


def _there(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if next(iter(distributions(name=name)), None)]


def register(result: RunResult, evaluation: Evaluation, rows: LabelledRows, origin: dict[str, Any]) -> Version:
    """Make the next version of `result.spec.name` from its checkpoint, figures, golden rows, profile and lineage.

    Raises `ModelError` naming row and field if the base library's own tokenizer gives a golden row other ids.
    """
    prepared = Prepared(result.prepared)

    def fill(folder: Path) -> None:
        registry.copy_files(result.checkpoint, folder)
        predictor = Predictor(folder)
        _write_golden(folder, predictor, evaluation.scores, rows.columns)
        test = {"rows": evaluation.rows, "rows_digest": evaluation.rows_digest, **evaluation.metrics}
        write_json(folder / registry.METRICS, {"test": test, "validation": result.metrics})
        write_json(folder / registry.LINEAGE, origin)
        write_json(folder / profile.FILE, _profile_of(folder, predictor, prepared))
        run_folder.save_spec(result.spec, folder / run_folder.SPEC)

    return Registry(result.spec.storage).register(result.spec.name, fill)


def provisional(result: RunResult, storage: Path) -> Version:
    """Put a training's model into a registry of its own, to be served and measured there. No test row is looked at."""
    prepared = Prepared(result.prepared)
    rows = prepared.part("validation")
    columns = {
        role: rows.raw(role, golden.ROWS) for role in task_catalog.of(prepared.contract).subjects(prepared.contract)
    }

    def fill(folder: Path) -> None:
        registry.copy_files(result.checkpoint, folder)
        predictor = Predictor(folder)
        encoded = predictor.prepared(columns).inputs
        _write_golden(folder, predictor, predictor.scores(encoded), columns)
        write_json(folder / registry.METRICS, {"validation": result.metrics})
        write_json(folder / registry.LINEAGE, {"run": str(result.folder)})
        run_folder.save_spec(result.spec, folder / run_folder.SPEC)

    return Registry(str(storage)).register(result.spec.name, fill)


def _profile_of(folder: Path, predictor: Predictor, prepared: Prepared) -> dict[str, Any]:
    """Return the profile of the rows that the model in `folder` was trained on."""
    parts = {name: prepared.part(name) for name in ("train", "validation", "test")}
    found = profile.build(parts, prepared.contract)
    of_inputs = predictor.task.profile(parts, prepared.contract, predictor.model, folder)
    return {**found, **of_inputs, "columns": prepared.columns}


def _write_golden(folder: Path, predictor: Predictor, scores: np.ndarray, columns: Columns) -> None:
    """Keep some of the rows that `scores`, float64 of shape (B, C), are for; `columns` are in the same order."""
    kept, raw = golden.to_keep(predictor, columns)
    inputs = predictor.encode(raw) if kept else []
    cleaned, _ = predictor.clean(raw) if kept else (raw, [])
    checked = predictor.task.library_agrees(predictor.contract, folder, cleaned, inputs)
    requests = predictor.task.as_request(predictor.contract, raw)
    golden.write(folder, inputs, requests, scores[kept], checked)


def through_the_gate(
    spec: RunSpec, candidate: Version, evaluation: Evaluation, rows: LabelledRows, *, cpus: float, gpus: float
) -> Decision:
    """Promote `candidate` if it beats the present holder of the alias on the same rows; the move keeps the evidence."""
    models = Registry(spec.storage)
    while True:
        number = models.aliases(spec.name).get(spec.promote.alias)
        decision = _decide(spec, models, number, candidate, evaluation, rows, cpus, gpus)
        evidence = {"reason": decision.reason, "rows_digest": rows.digest, **decision.evidence}
        # If another run moved the alias meanwhile, the candidate has to beat the new holder.
        if not decision.promoted or models.promote(candidate, spec.promote.alias, evidence, instead_of=number):
            return decision


def _decide(
    spec: RunSpec,
    models: Registry,
    number: int | None,
    candidate: Version,
    evaluation: Evaluation,
    rows: LabelledRows,
    cpus: float,
    gpus: float,
) -> Decision:
    if number is None or not spec.promote.enabled:
        return decide(spec, evaluation.metrics, None)
    try:
        champion = models.find(f"{spec.name}@{number}")
        _must_compare(candidate, champion)
        figures = _on_the_same_rows(spec, candidate, champion, rows, cpus, gpus)
    except UserError as error:
        reason = f"the present {spec.promote.alias} cannot be judged ({error.problem}); promote by hand"
        return Decision(False, reason, {"metric": spec.evaluate.metric})
    return decide(spec, evaluation.metrics, figures, champion.ref)


def _must_compare(candidate: Version, champion: Version) -> None:
    """Raise `ModelError` where the two read other columns or predict something else: the rows of one are none of the other.

    Where rows are split by their content, other columns also mean that other rows were held out.
    """
    ours, theirs = contracts.load(candidate.folder), contracts.load(champion.folder)
    mine, other = task_catalog.of(ours), task_catalog.of(theirs)
    if mine.target.kind != other.target.kind:
        raise ModelError(f"{champion.ref} predicts a {other.target.kind}, not a {mine.target.kind}", "use another name")
    if set(mine.subjects(ours)) != set(other.subjects(theirs)):
        raise ModelError(f"{champion.ref} reads other columns", "use another name, or promote by hand")


def _on_the_same_rows(
    spec: RunSpec, candidate: Version, champion: Version, rows: LabelledRows, cpus: float, gpus: float
) -> dict[str, float]:
    recorded: dict[str, Any] = champion.metrics["test"]
    if recorded["rows_digest"] == rows.digest:
        return {name: value for name, value in recorded.items() if isinstance(value, float)}
    registry.verify(champion)
    scores = evaluate.score(
        champion.folder, rows, cpus=cpus, gpus=gpus, batch_size=spec.evaluate.batch_size, progress=None
    )
    # A champion that knows other labels is judged by the candidate's list: what it cannot say scores 0.
    ours, theirs = contracts.load(candidate.folder), contracts.load(champion.folder)
    target = task_catalog.of(ours).target
    in_ours = target.aligned(scores, theirs.fitted, ours.fitted)
    return target.metrics(in_ours, evaluate.targets_of(ours, rows), spec.evaluate.calibration_bins)
