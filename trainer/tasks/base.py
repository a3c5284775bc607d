"""The interface of a task: its columns, inputs, requests and model. What it predicts is its `Target`.

A new task is a subclass of `Task`: a file in this package and a line in `trainer.tasks.catalog`, or a file of your own
(`task: my_module:MyTask`; docs/how-to/write-a-task.md). Import torch inside the methods that need it, so that reading data and
parsing specs stay fast.

A *role* is the part that a column plays in the task, such as `text`; the user's column may have another name. Letters
in shapes: B rows, C outputs of the model (classes, tags, or 1 for a number).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.contract.contract import Contract
from trainer.spec.run import RunSpec
from trainer.targets.base import Target
from trainer.tasks.draft_options import DraftOptions
from trainer.tasks.encoder import Columns, Encoder
from trainer.tasks.model_options import ModelOptions
from trainer.tasks.reporting import Reporting
from trainer.tasks.request_options import RequestOptions
from trainer.tasks.row_options import RowOptions

if TYPE_CHECKING:
    import torch


class Task(RowOptions, RequestOptions, ModelOptions, Reporting, DraftOptions, ABC):
    """Base class of all tasks. Methods are plain functions of their arguments and keep no state between calls.

    A task must write the attributes and methods in the first half of this class. It may override the method in the
    second half, and those in the base classes, which hold the defaults:

    - `RowOptions` (row_options.py): target_role, answer_roles, optional_roles, nested_roles, text_roles, binary_roles,
      allowed_issues, used_keys, learns_from_features; check_spec, column_roles, learned_files, write_learned_files,
      split_rows, row_identity, comparable_texts, check, max_length
    - `RequestOptions` (request_options.py): service, request, max_body_bytes, other_bodies; body_inputs
    - `ModelOptions` (model_options.py): models, token_input, step_unit, train; default_metric, model_facts,
      model_on_meta, batch_on_meta, loss_on_meta, objective, step_arithmetic, write_answers, completer, pad_id, augment,
      to_device
    - `Reporting` (reporting.py): model_name, show, sections, profile, check_against_library
    - `DraftOptions` (draft_options.py): recognize, draft
    """

    # ---- Must be written -------------------------------------------------------------------------------------------

    #: The name of the task in a spec. For a custom task, raymill sets it to `module:Class`.
    name: str
    #: Role -> what its column holds, for error messages and docs.
    roles: dict[str, str]
    #: What is predicted: `Classes()`, `Tags()`, `Numbers()`, or a custom target.
    target: Target

    # Rows to model inputs.

    @abstractmethod
    def make_contract(self, spec: RunSpec, folder: Path) -> Contract:
        """Return the contract before anything is learned from the training rows; `unfitted_contract` creates it.

        Write the contract's files, such as a tokenizer, into `folder`.
        """

    @abstractmethod
    def encoder(self, contract: Contract, folder: Path) -> Encoder:
        """Return the encoder that turns cleaned raw values into model inputs, in training and in serving."""

    @abstractmethod
    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Return one batch as tensors. The keys are the names of the arguments of the model's `forward`."""

    # Requests.

    @abstractmethod
    def parse(self, contract: Contract, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        """Return the raw values of a request's `inputs`, by role.

        Raises `RequestError` naming the bad input, for example `inputs[3]`.
        """

    @abstractmethod
    def as_request(self, contract: Contract, columns: Columns) -> list[Any]:
        """Return rows as the JSON values that `parse` takes."""

    @abstractmethod
    def example(self, contract: Contract) -> Any:
        """Return an example input of a request for the documentation, as a JSON value."""

    # Model.

    @abstractmethod
    def new_model(self, contract: Contract, spec: RunSpec) -> Any:
        """Return the model that training starts from, with a head for this contract.

        It is a torch module that takes what `collate` returns and returns an object with `logits` (B, C). To tell
        raymill which parameters have no pre-trained values, wrap it in a `trainer.models.new_model.NewModel`.
        """

    @abstractmethod
    def save_model(self, model: Any, contract: Contract, folder: Path) -> None:
        """Write the trained model into `folder`.

        If the model comes from a library, use a format that this library can load without raymill.
        `model` has the type that `new_model` returned.
        """

    @abstractmethod
    def load_model(self, folder: Path) -> Any:
        """Return the model that `save_model` wrote. Reads safetensors, JSON or similar formats, never pickle."""

    # ---- May be overridden (see also the base classes) -------------------------------------------------------------

    def forward(
        self, model: Any, contract: Contract, inputs: list[np.ndarray], batch_size: int, device: str
    ) -> np.ndarray:
        """Return float32 logits, shape (rows, C), in the order of `inputs`.

        The default runs a torch model on batches of `batch_size` rows.
        """
        from trainer.tasks.forward import torch_forward

        collate = functools.partial(self.collate, contract)
        return torch_forward(model, collate, inputs, batch_size, device, self.target.width(contract.fitted))
