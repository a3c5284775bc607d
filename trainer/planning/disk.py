"""The disk space that a run takes in its storage: prepared rows, checkpoints and models."""

from __future__ import annotations

from trainer.planning.encoder_shape import WeightCounts
from trainer.planning.model_memory import state_bytes
from trainer.planning.term import Estimate, Term, times, without_empty
from trainer.spec.run import RunSpec

# Bytes of prepared rows for each byte of text: the raw text, token ids of 4 bytes for some 4 characters, and the index.
_SHARD_BYTES_PER_BYTE = 2.2


def disk_space(spec: RunSpec, weights: WeightCounts | None, source_bytes: int, prepared_bytes: int | None) -> Estimate:
    """Return the space of a run of `spec`.

    `source_bytes` are those of its files as text; `prepared_bytes` those of its rows if they are prepared. `weights` is
    None if the model's size is not known or does not matter.
    """
    if prepared_bytes is not None:
        shards = Term("prepared rows", "as they are", f"{prepared_bytes:,}", prepared_bytes)
    else:
        name, formula = "prepared rows", f"{_SHARD_BYTES_PER_BYTE} x bytes of the files as text"
        shards = times(name, formula, _SHARD_BYTES_PER_BYTE, source_bytes, is_bound=True)
    if weights is None:
        return Estimate(without_empty([shards]))
    is_adapter = spec.model.lora is not None and spec.model.lora.save == "adapter"
    saved = weights.trained if is_adapter else weights.all
    model = 4 * saved
    trials = spec.tune.n_trials if spec.tune else 1
    at_once = f"{trials} trials x " if spec.tune else ""
    checkpoint = spec.train.checkpoint
    keeps = checkpoint.keep + 1 if checkpoint.every_minutes is not None or checkpoint.every_steps is not None else 0
    return Estimate(
        without_empty(
            [
                shards,
                times(
                    "checkpoints to resume from",
                    f"{at_once}(keep + the one being written) x bytes of weights and moments",
                    *([trials] if spec.tune else []),
                    keeps,
                    state_bytes(spec, weights.trained),
                ),
                times(
                    "best models of the run",
                    f"{at_once}(the best, those that checkpoints name, the one being written) x 4 x weights",
                    *([trials] if spec.tune else []),
                    keeps + 1,
                    model,
                ),
                times("registered version", "4 bytes x weights", 4, saved),
            ]
        )
    )
