"""What a task is: the one place that knows its columns, inputs and model. What it predicts is its `Target`.

A new task is a new file with a subclass of `Task` and one line in `trainer.tasks`, or a file of the user's own
(`task: my_module:MyTask`; docs/tasks.md). Every method is a plain function of its arguments; torch is imported inside the
methods that need it, so that reading data and parsing specs stay light.

A *role* is a part of a row, as `text`; the user's column for it may have another name. Letters in shapes: B rows, C outputs
of the model (classes, tags, or 1 for a number).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from cluster.errors import SpecError, nearest
from trainer.contract.contract import Contract
from trainer.models import base_model, custom
from trainer.spec.run import RunSpec
from trainer.targets.base import OPTIONAL, Target
from trainer.tasks.encoder import Columns, Encoder
from trainer.tasks.rows import Rows

if TYPE_CHECKING:
    import torch

    from trainer.charts.section import Section
    from trainer.features.fitted import Fitted as Features


class Task(ABC):
    """Preparation, model and request format of one kind of learning."""

    name: str
    #: Role -> what the column holds, for error messages and docs.
    roles: dict[str, str]
    #: The role that is to be predicted; requests do not have it.
    target_role: str = "label"
    target: Target
    #: How one input of a request looks, and what `model` may be: for people, as `raymill tasks` prints them.
    request = ""
    models = ""
    #: Roles that hold texts: cleaned by the spec's steps and held to `data.max_chars`.
    texts: tuple[str, ...] = ()
    #: Roles that hold bytes: read as they are, or from the file that a csv's cell names.
    binary: frozenset[str] = frozenset()
    #: Checks of the whole data (`data.allow`) that make no sense for these rows.
    allows: frozenset[str] = frozenset()
    #: Those of `OPTIONAL` that it goes by, beside its target's; others are refused.
    uses: frozenset[str] = OPTIONAL
    #: Keys of a spec that mean something else than their stated default where they are left out.
    own_defaults: frozenset[str] = frozenset()
    #: Whether inputs are made of `data.features`, fitted on the training rows: encoded only after all of them were read.
    learns_from_features = False
    #: The tensor of `collate` that holds token ids, of which training may leave unused embedding rows out.
    token_input: str | None = None
    #: What `serve.max_body_bytes` is where the spec does not say.
    max_body_bytes = 1 << 20
    #: A training loop of the task's own, in place of raymill's (`trainer.training.run`); takes the same arguments.
    train: Callable[..., None] | None = None
    #: How inputs that are no JSON are sent, for people: options of curl, and what they mean. `body_inputs` reads them.
    other_bodies: tuple[tuple[str, str], ...] = ()

    def unused(self) -> list[str]:
        """Return the keys of a spec that mean nothing to this task or its target."""
        return sorted(OPTIONAL - self.uses - self.target.uses)

    # -- rows

    def columns(self, spec: RunSpec) -> dict[str, str]:
        """Return the user's column for each role that is read; raises `SpecError` for a role the task does not have."""
        return resolve_columns(self, spec.data.columns)

    def subjects(self, contract: Contract) -> list[str]:
        """Return the roles of an input, in order: all but the target."""
        return [role for role in contract.columns if role != self.target_role]

    def check_spec(self, spec: RunSpec) -> None:
        """Raise `SpecError` or `ModelError` for what this task cannot do; reads no rows. Here: the base model is there."""
        if spec.model.base is None:
            raise SpecError(f"model.base is missing; {self.name} starts from a pre-trained model",
                            "give a hub id, a folder, or package://NAME/folder")  # fmt: skip
        base_model.locate(spec.model.base)
        custom.check(spec)

    def model_name(self, spec: RunSpec) -> str:
        """Return what is trained, for people: lineage and reports."""
        new = f"new, {spec.model.config.get('model_type')}" if spec.model.config else "the task's own"
        return spec.model.base or new

    @abstractmethod
    def begin(self, spec: RunSpec, folder: Path) -> Contract:
        """Return the unfitted contract and write its files (tokenizer) into `folder`."""

    def check(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        """Return columns of reasons why rows cannot be used, null where they can, beside what all tasks look at alike.

        `rows` has a column for each role it knows (files to predict have no target): strings, or bytes for `binary` roles.
        Missing and empty values, lengths and declared labels are looked at in `trainer.data.prepare.row_checks`.
        """
        return (
            self.target.check(self.target_role, rows[self.target_role]) if self.target_role in rows.column_names else []
        )

    @abstractmethod
    def encoder(self, contract: Contract, folder: Path) -> Encoder:
        """Return the function that turns cleaned raw values into model inputs; the same in training and serving."""

    def longest(self, contract: Contract) -> int | None:
        """Return the most numbers that `encoder` leaves of an input, where it cuts longer ones; None where it never does."""
        return None

    def fit(self, contract: Contract, tally: Mapping[str, int], declared: list[str] | None = None) -> Contract:
        """Return the contract with what the training rows' targets teach. Raises `DataError`."""
        fitted = self.target.fit(self.target_role, tally, declared)
        return contract.model_copy(update={"fitted": {**contract.fitted, **fitted}})

    def with_features(self, contract: Contract, features: Features) -> Contract:
        """Return the contract with the fitted columns of `data.features`, if the model's inputs are made of them."""
        if not self.learns_from_features:
            return contract
        fitted = {**contract.fitted, "features": features.model_dump(mode="json")}
        return contract.model_copy(update={"fitted": fitted})

    # -- requests

    @abstractmethod
    def parse(self, contract: Contract, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        """Return the raw values by role of a request's `inputs`; raises `RequestError` naming `inputs[place]`."""

    @abstractmethod
    def as_request(self, contract: Contract, columns: Columns) -> list[Any]:
        """Return rows as the JSON values that `parse` takes."""

    @abstractmethod
    def example(self, contract: Contract) -> Any:
        """Return one input of a request as documentation shows it, a JSON value."""

    def show(self, contract: Contract, columns: Columns) -> list[str]:
        """Return how a report shows each row's input; `markupsafe.Markup` for a picture."""
        return [" | ".join(str(value) for value in row) for row in zip(*columns.values(), strict=True)]

    def body_inputs(self, contract: Contract, body: bytes, content_type: str) -> list[Any] | None:
        """Return the inputs of a request that is no JSON (an image, a form), or None if this type is not known."""
        return None

    # -- model

    @abstractmethod
    def new_model(self, contract: Contract, spec: RunSpec) -> Any:
        """Return the model that training starts from, with a head for this contract."""

    @abstractmethod
    def load_model(self, folder: Path) -> Any:
        """Return a trained model from a checkpoint folder. No pickle: safetensors, JSON and the like."""

    @abstractmethod
    def save_model(self, model: Any, contract: Contract, folder: Path) -> None:
        """Write the model so that its own library reads it without raymill, where there is one."""

    @abstractmethod
    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Return the tensors of one batch, by the name of the model's argument."""

    def augment(
        self, spec: RunSpec, contract: Contract, batch: dict[str, torch.Tensor], targets: torch.Tensor, seed: int
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return a training batch and its targets changed at random, the same for the same `seed`. Here: as they are."""
        return batch, targets

    def pad_id(self, contract: Contract) -> int:
        """Return the id that `collate` fills `token_input` up with."""
        return 0

    def forward(
        self, model: Any, contract: Contract, inputs: list[np.ndarray], batch_size: int, device: str
    ) -> np.ndarray:
        """Return float32 logits, shape (rows, C), in the order of `inputs`."""
        from trainer.tasks.forward import torch_forward

        collate = functools.partial(self.collate, contract)
        return torch_forward(model, collate, inputs, batch_size, device, self.target.width(contract.fitted))

    def to_device(self, model: Any, device: str, threads: int) -> Any:
        """Return the loaded model ready to predict on `device`, on a CPU with so many threads."""
        import torch

        torch.set_num_threads(threads)
        return model.to(device).eval()

    def backend(self, spec: RunSpec) -> Literal["torch", "xgboost", "none"]:
        """Return how the workers of a training are joined: by torch.distributed, XGBoost's collective, or not at all."""
        return "torch"

    def profile(self, parts: Mapping[str, Rows], contract: Contract, model: Any, folder: Path) -> dict[str, Any]:
        """Return what `profile.json` says about the inputs of these rows, beside what it says of all tasks' rows."""
        return {}

    def library_agrees(self, contract: Contract, folder: Path, columns: Columns, inputs: list[np.ndarray]) -> str:
        """Hold `inputs` against those that the model's own library makes of the same cleaned rows, where it can.

        Returns in a sentence what was compared. Raises `ModelError` naming the first difference.
        """
        return "not compared: the model's library has no preparation of its own"

    def sections(self, contract: Contract, folder: Path) -> list[Section]:
        """Return sections of the report about the model in `folder`, beside those of the target."""
        return []


def resolve_columns(task: Task, given: dict[str, str]) -> dict[str, str]:
    """Return the user's column for each role of the task; raises `SpecError` for a role the task does not have."""
    for role in given:
        if role not in task.roles:
            raise SpecError(f"data.columns has '{role}', which {task.name} does not use", nearest(role, task.roles))
    columns = {role: given.get(role, role) for role in task.roles}
    if len(set(columns.values())) < len(columns):
        raise SpecError(f"data.columns={columns} gives one column two parts", "name a different column for each part")
    return columns
