"""The contract: the exact rules that turn a raw row into model inputs, fixed in training and replayed by serving.

It is plain JSON beside the weights and the tokenizer's file. Its SHA-256 is the fingerprint. The fingerprint covers
everything that changes a model's input: columns, steps with their parameters and fitted values, tokenizer files, task,
and `PREPARATION_VERSION`. It does not cover the order of rows, paths, the machine or the number of blocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cluster.errors import ModelError
from cluster.files import file_sha256, json_sha256, read_json, write_json

#: Version of the code that turns rows into inputs, and of the names in a contract. Raise it when a raw row would give a
#: different model input than before (tests pin the inputs), or when a step or a parameter is renamed. A model with
#: another version is refused. Rows are prepared again, because the version is part of a prepared folder's key.
PREPARATION_VERSION = 4

CONTRACT_FILE = "contract.json"


class Step(BaseModel):
    """One named step of preparation with its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    params: dict[str, Any]


class Contract(BaseModel):
    """The rules that turn the raw rows of one model into its inputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    columns: dict[str, str]
    """Role in the task -> name of the user's column."""
    types: dict[str, str] = {}
    """Role in the task -> type of its raw values, for example `text`."""
    steps: list[Step]
    """Steps of preparation, in order; the same for a training row and a request."""
    fitted: dict[str, Any]
    """Values learned from the training rows, for example the list of labels."""
    files: dict[str, str]
    """File beside the contract, for example the tokenizer's -> its SHA-256."""
    preparation_version: int = PREPARATION_VERSION

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of everything that changes a model's input."""
        return json_sha256(self.model_dump(mode="json"))

    def step_params(self, name: str) -> dict[str, Any]:
        """Return the parameters of the step `name`. Raises `KeyError` if the contract has no such step."""
        params = {step.name: step.params for step in self.steps}
        return params[name]

    def save(self, folder: Path) -> None:
        """Write contract.json into `folder`, which must already hold the files that the contract names."""
        write_json(folder / CONTRACT_FILE, {"fingerprint": self.fingerprint, **self.model_dump(mode="json")})


def load_contract(folder: Path) -> Contract:
    """Return the contract in `folder` after checking its version, its fingerprint and the digests of its files.

    Raises `ModelError` naming the file that is missing or changed, or that another version of raymill wrote.
    """
    path = folder / CONTRACT_FILE
    try:
        raw = read_json(path)
        fingerprint, version = raw.pop("fingerprint"), raw["preparation_version"]
        # The version is compared first, because a contract of another version may have other fields.
        contract = Contract.model_validate(raw) if version == PREPARATION_VERSION else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is missing or damaged: {error}", "train again, or restore the folder") from error
    if contract is None:
        raise ModelError(
            f"{path} was written by another version of raymill: it has preparation version {version}, "
            f"and this raymill reads version {PREPARATION_VERSION}",
            "train again, or use the raymill that trained the model",
        )
    if contract.fingerprint != fingerprint:
        raise ModelError(f"{path} was changed: its fingerprint does not match its content", "restore the folder")
    for name, digest in contract.files.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise ModelError(
                f"{folder / name} is missing or changed: its SHA-256 differs from the contract's", "restore the folder"
            )
    return contract
