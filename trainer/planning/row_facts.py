"""What the plan knows of the rows: counts and lengths from prepared rows, else upper bounds from the spec."""

from __future__ import annotations

from typing import NamedTuple

from trainer.data.prepared import Prepared
from trainer.features.fitted import FittedFeatures, embedding_sizes, output_names
from trainer.models.base_model import is_local_base, locate_base_model, max_positions
from trainer.models.model_facts import read_config
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog

# Distinct tokens are counted for at most this many tokens of training rows; of more, most of a vocabulary is used.
_MAX_TOKENS_COUNTED = 20_000_000
# Without rows, the number of classes is not known; their weights are few.
_OUTPUTS = 2


class RowFacts(NamedTuple):
    """The facts about the rows that memory and disk depend on."""

    longest: int
    """Longest input in tokens; 0 if all inputs have the same size."""
    outputs: int
    """Outputs of the model: classes, tags, or 1 for a number."""
    rows: int | None = None
    """Training rows; None if they are not known."""
    validation_rows: int = 0
    used_tokens: int | None = None
    """Distinct tokens of the training and validation rows; None if they are not known, or not counted."""
    columns: int = 0
    """Columns of numbers that an estimator sees."""
    id_columns: int = 0
    """Columns of categories that an estimator sees."""

    @property
    def is_known(self) -> bool:
        """Whether the facts are those of prepared rows. Others are upper bounds."""
        return self.rows is not None


def facts_of_prepared(spec: RunSpec, prepared: Prepared, *, count_tokens: bool = True) -> RowFacts:
    """Return the facts of prepared rows. Distinct tokens are counted with `count_tokens`, which reads all of them."""
    task, fitted = task_catalog.get_task(spec.task), prepared.contract.fitted
    outputs = task.target.width(fitted)
    counts = prepared.summary["rows"]
    if task.learns_from_features:
        features = FittedFeatures.model_validate(fitted["features"])
        columns, ids = len(output_names(features)), len(embedding_sizes(features))
        return RowFacts(0, outputs, int(counts["train"]), int(counts["validation"]), columns=columns, id_columns=ids)
    parts = [prepared.part("validation")]
    if spec.data.mode == "prepared":
        parts.append(prepared.part("train"))
    longest = max((int(part.lengths.max()) for part in parts if len(part)), default=0)
    used = None
    n_tokens = sum(int(part.lengths.sum()) for part in parts)
    if count_tokens and task.token_input and spec.data.mode == "prepared" and n_tokens <= _MAX_TOKENS_COUNTED:
        used = len(set().union(*(part.tokens().tolist() for part in parts)))
    return RowFacts(
        longest if task.token_input else 0, outputs, int(counts["train"]), int(counts["validation"]), used_tokens=used
    )


def facts_of_spec(spec: RunSpec) -> RowFacts:
    """Return upper bounds from the spec alone; nothing is downloaded."""
    task = task_catalog.get_task(spec.task)
    if not task.token_input:
        return RowFacts(0, _OUTPUTS, columns=len(spec.data.features))
    longest = spec.data.max_length
    if spec.model.base is not None and is_local_base(spec.model.base):
        longest = min(longest, max_positions(read_config(locate_base_model(spec.model.base))))
    return RowFacts(longest, _OUTPUTS)
