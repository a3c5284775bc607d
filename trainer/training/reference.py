"""Log-probabilities under the model that training starts from, computed once and stored in the run's folder.

    reference.safetensors   for each part a float64 array, shape (rows, sequences of a row); the digest of what it is for

So no second model is in memory while the first one learns, and a run that resumes reads the same numbers again. With
LoRA, the model that training starts from is the base: its new matrices add nothing yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.digests import file_digests
from cluster.files import json_sha256, sync_file
from trainer.models.base_model import locate_base_model
from trainer.models.causal.judge import judge_rows
from trainer.optim.distributed.collectives import all_gather_object, broadcast_object
from trainer.optim.precision import Precision, autocast
from trainer.spec.run import RunSpec
from trainer.training.context import TrainContext

#: The file in a run's folder.
REFERENCE_FILE = "reference.safetensors"
_PASS_TOKENS = 8192
# Rows whose sequences are in memory at a time, over all workers.
_BLOCK_ROWS = 4096

#: Returns the sequences of one row.
SequencesOf = Callable[[int], Sequence[np.ndarray]]


def reference_columns(
    context: TrainContext, model: Any, precision: Precision, parts: dict[str, tuple[int, SequencesOf]]
) -> dict[str, np.ndarray]:
    """Return for each part the log-probabilities of the answers of its rows, float64, shape (rows, sequences).

    `parts` maps a part to its number of rows and the sequences of a row. They are read from the run's folder, or computed
    with `model` and stored there. All ranks call this.
    """
    path = context.folder / REFERENCE_FILE
    key = _key(context)
    stored = _load(path, key) if context.worker.rank == 0 else None
    columns: dict[str, np.ndarray] | None = broadcast_object(stored, context.worker)  # all ranks
    if columns is None:
        columns = {
            part: answer_log_probs(context, model, precision, n_rows, sequences_of)
            for part, (n_rows, sequences_of) in parts.items()
        }
        if context.worker.rank == 0:
            _save(path, columns, key)
    return columns


def answer_log_probs(
    context: TrainContext, model: Any, precision: Precision, n_rows: int, sequences_of: SequencesOf
) -> np.ndarray:
    """Return the log-probability of the answer in each sequence of `n_rows` rows, float64, shape (rows, sequences).

    Each rank computes its share. All ranks call this, and all get the same result. `model` is in training mode afterwards
    if it was before.
    """
    worker, was_training = context.worker, model.training
    blocks = []
    for start in range(0, n_rows, _BLOCK_ROWS):
        own = range(start + worker.rank, min(start + _BLOCK_ROWS, n_rows), worker.workers)
        sequences = [sequence for row in own for sequence in sequences_of(row)]
        with autocast(precision, worker.device_type):
            max_rows = context.spec.evaluate.batch_size
            statistics = judge_rows(model, sequences, max_rows, _PASS_TOKENS, worker.device)
        blocks.append((np.array(own, np.int64), -statistics[:, 0].reshape(len(own), -1)))
    model.train(was_training)
    gathered = all_gather_object(blocks, worker)  # all ranks
    parts = [block for rank_blocks in gathered for block in rank_blocks if len(block[0])]
    columns = np.zeros((n_rows, parts[0][1].shape[1] if parts else 0))
    for rows, values in parts:
        columns[rows] = values
    return columns


def _key(context: TrainContext) -> str:
    """Return a digest of all that the log-probabilities depend on: the start model, the rows and the method."""
    spec, prepared = context.spec, context.prepared
    return json_sha256(
        {
            "model": _model_identity(spec),
            "prepared": prepared.folder.name,
            "fingerprint": prepared.contract.fingerprint,
            "method": spec.train.method.kind,
        }
    )


def _model_identity(spec: RunSpec) -> Any:
    """Return what identifies the start model: the digests of its files, or the config and the seed of a new one."""
    if spec.model.base is None:
        return {"config": spec.model.config, "seed": spec.train.seed}
    files = sorted(path for path in locate_base_model(spec.model.base).iterdir() if path.suffix in _MODEL_FILES)
    return dict(zip([path.name for path in files], file_digests(files), strict=True))


_MODEL_FILES = {".safetensors", ".json", ".gguf"}


def _load(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """Return the stored columns; None if there are none, or if they belong to another model or other rows."""
    from safetensors import SafetensorError, safe_open

    with contextlib.suppress(OSError, SafetensorError), safe_open(path, "numpy") as file:
        if (file.metadata() or {}).get("key") == key:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    return None


def _save(path: Path, columns: dict[str, np.ndarray], key: str) -> None:
    from safetensors.numpy import save_file

    beside = path.with_name(f".{path.name}.new")
    save_file({name: np.ascontiguousarray(values) for name, values in columns.items()}, beside, {"key": key})
    sync_file(beside)
    beside.replace(path)
