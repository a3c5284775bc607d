"""What a task is: the one place that knows its columns, inputs, model, loss, metrics and HTTP answers.

A new task is a new file with a subclass of `Task` and one line in `trainer.tasks`. Every method is a plain function of
its arguments; torch is imported inside the methods that need it, so that reading data and parsing specs stay light.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trainer.contract import Contract
from trainer.spec import RunSpec

if TYPE_CHECKING:
    import torch


class Task(ABC):
    """Preparation, model and answers of one kind of learning.

    Letters in shapes: B rows, C classes, T tokens.
    """

    name: str
    #: Part in the task -> what the column holds, for error messages and docs.
    roles: dict[str, str]
    #: The part that a request has.
    subject: str
    #: The part that holds what is to be predicted; requests do not have it.
    target: str

    @abstractmethod
    def begin(self, spec: RunSpec, folder: Path) -> Contract:
        """Return the unfitted contract and write its files (tokenizer) into `folder`."""

    @abstractmethod
    def check(self, rows: pa.Table) -> pa.Array:
        """Return for each row why it cannot be used, or null. `rows` has a string column for each role it knows.

        Missing and empty values, lengths and declared labels are looked at for all tasks alike, in `trainer.data.checks`.
        """

    @abstractmethod
    def encoder(self, contract: Contract, folder: Path) -> Encoder:
        """Return the function that turns raw values into model inputs; it is the same in training and serving."""

    @abstractmethod
    def fit(self, contract: Contract, targets: Mapping[str, int], declared: list[str] | None = None) -> Contract:
        """Return the contract with what the training rows' targets teach (the labels); `targets` counts each value.

        With `declared` values these are all there may be. Raises `DataError`.
        """

    @abstractmethod
    def target_ids(self, contract: Contract, targets: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return int32 ids, shape (B,), of the targets; -1 where the contract does not know one."""

    @abstractmethod
    def new_model(self, contract: Contract, base: Path, spec: RunSpec) -> torch.nn.Module:
        """Return the pre-trained model with a new head for this contract."""

    @abstractmethod
    def load_model(self, folder: Path) -> torch.nn.Module:
        """Return a trained model from a checkpoint folder. Safetensors only."""

    @abstractmethod
    def save_model(self, model: torch.nn.Module, contract: Contract, folder: Path) -> None:
        """Write the model so that transformers' own `from_pretrained(folder)` reads it."""

    @abstractmethod
    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Return the padded tensors of one batch, each of shape (B, T)."""

    @abstractmethod
    def pad_id(self, contract: Contract) -> int:
        """Return the id that `collate` fills up with."""

    @abstractmethod
    def loss_sum(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the summed loss of a batch: logits (B, C), targets (B,). Summed, so that workers' parts add up.

        `weights` (C,) weighs the rows of each class.
        """

    @abstractmethod
    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return float64 probabilities, shape (B, C), of float logits (B, C)."""

    @abstractmethod
    def metrics(self, scores: np.ndarray, targets: np.ndarray, n_bins: int) -> dict[str, float]:
        """Return the figures of `trainer.spec.Metric` for scores (B, C) and target ids (B,)."""

    @abstractmethod
    def answer(self, contract: Contract, scores: np.ndarray) -> list[dict[str, Any]]:
        """Return one JSON object for each row of scores (B, C), as HTTP clients and files see it."""


class Encoder(ABC):
    """Cleaned values of requests or rows to model inputs."""

    @abstractmethod
    def __call__(self, values: list[str]) -> list[np.ndarray]:
        """Return one int32 array of token ids for each value."""

    def column(self, values: pa.Array) -> pa.ListArray:
        """Return the same for a whole block of rows, as a list<int32> column."""
        found = self(values.to_pylist())
        offsets = np.cumsum([0, *map(len, found)], dtype=np.int32)
        joined = np.concatenate(found) if found else np.empty(0, np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(joined, pa.int32()))


def resolve_columns(task: Task, given: dict[str, str]) -> dict[str, str]:
    """Return the user's column for each role of the task; raises `SpecError` for a role the task does not have."""
    from cluster.errors import SpecError, nearest

    for role in given:
        if role not in task.roles:
            raise SpecError(f"data.columns has '{role}', which {task.name} does not use", nearest(role, task.roles))
    columns = {role: given.get(role, role) for role in task.roles}
    if len(set(columns.values())) < len(columns):
        raise SpecError(f"data.columns={columns} gives one column two parts", "name a different column for each part")
    return columns
