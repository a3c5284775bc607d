"""The contract: everything that turns a raw row into a model's input, fitted once and shared by training and serving.

Plain JSON and a tokenizer file beside the weights, under one SHA-256 fingerprint. What the fingerprint covers is what
changes a model's input: columns, steps with their parameters and fitted values, tokenizer files, task, code version.
Row order, paths, machine and number of blocks are not in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.errors import ModelError
from cluster.files import read_json, sha256, sha256_of, write_json

#: Raise it when the same raw row would give another model input than before; tests pin the present behaviour.
PREPARATION_VERSION = 2

FILE = "contract.json"


class Step(BaseModel):
    """One named step of preparation and its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    params: dict[str, Any]


class Contract(BaseModel):
    """How raw rows of one model become its inputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    columns: dict[str, str]
    """Part in the task -> name of the user's column."""
    types: dict[str, str] = {}
    """Part in the task -> what a raw value of it must be, as `text`."""
    steps: list[Step]
    """What is done to a row, in order; the same for a training row and a request."""
    fitted: dict[str, Any]
    """What was learned from the training rows, as the list of labels."""
    files: dict[str, str]
    """File beside the contract -> its SHA-256, as the tokenizer's."""
    preparation_version: int = PREPARATION_VERSION

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over everything that changes a model's input."""
        return sha256_of(self.model_dump(mode="json"))

    def step(self, name: str) -> dict[str, Any]:
        """Return the parameters of the step called `name`. Raises `KeyError` for one that is not there."""
        params = {step.name: step.params for step in self.steps}
        return params[name]

    def save(self, folder: Path) -> None:
        """Write contract.json into `folder`; the files it names must lie there already."""
        write_json(folder / FILE, {"fingerprint": self.fingerprint, **self.model_dump(mode="json")})


def load(folder: Path) -> Contract:
    """Return the contract in `folder` after checking its fingerprint and the digests of its files.

    Raises `ModelError` naming the file that is missing or changed.
    """
    path = folder / FILE
    try:
        raw = read_json(path)
        stated = raw.pop("fingerprint")
        contract = Contract.model_validate(raw)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} is missing or damaged: {error}", "train again, or restore the folder") from error
    if contract.fingerprint != stated:
        raise ModelError(f"{path} was changed: its fingerprint does not match its content", "restore the folder")
    if contract.preparation_version != PREPARATION_VERSION:
        raise ModelError(
            f"{path} was written for preparation version {contract.preparation_version}, this raymill has {PREPARATION_VERSION}",
            "serve it with the raymill that trained it, or train again",
        )
    for name, digest in contract.files.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise ModelError(
                f"{folder / name} is missing or changed: its SHA-256 is not the contract's", "restore the folder"
            )
    return contract
