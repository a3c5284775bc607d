"""Checkpoints: every tensor that a step changes, and the training's state. A checkpoint is complete or absent.

    checkpoints/step-00000200/state.safetensors     trainable weights, buffers, optimizer, EMA
                              state.json            train state, precision, digest of the tensors

No random generator's state is stored: each step seeds its generators from (seed, epoch, step, rank).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.errors import ResourceError
from cluster.files import file_sha256, new_folder, read_json, remove_leftovers, write_json

if TYPE_CHECKING:
    import torch

FOLDER = "checkpoints"
_TENSORS, _STATE = "state.safetensors", "state.json"
_PREFIX = "step-"


class LoadedCheckpoint(NamedTuple):
    """The content of a checkpoint that was read back."""

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints in one run's folder."""

    def __init__(self, run: Path, keep: int) -> None:
        self._folder, self._keep = run / FOLDER, keep

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, the newest first, without reading them."""
        names = [path.name.removeprefix(_PREFIX) for path in self._folder.glob(f"{_PREFIX}*")]
        return sorted((int(step) for step in names if step.isdigit()), reverse=True)

    def save(self, step: int, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint, then delete all but the newest `keep`.

        `tensors` are on the CPU, and no two share memory. Raises `ResourceError` if the checkpoint cannot be written;
        earlier checkpoints then stay.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        final = self._path(step)
        shutil.rmtree(final, ignore_errors=True)  # it exists if the run resumed from an earlier checkpoint
        try:
            self._folder.mkdir(exist_ok=True)  # not the run's folder: it is missing if the storage is not mounted
            with new_folder(final) as folder:
                save_file(tensors, folder / _TENSORS)
                write_json(folder / _STATE, {**state, "sha256": file_sha256(folder / _TENSORS)})
        except (OSError, SafetensorError) as error:
            raise ResourceError(
                f"{final} cannot be written: {error}", "check the free space of the storage folder"
            ) from error
        for old in self.steps()[self._keep :]:
            shutil.rmtree(self._path(old), ignore_errors=True)

    def load_newest(self, notify: Callable[[str], None]) -> LoadedCheckpoint | None:
        """Return the newest complete checkpoint; skip damaged checkpoints, and report each to `notify`.

        Raises `ResourceError` if a checkpoint cannot be read.
        """
        for step in self.steps():
            try:
                return self.load(step)
            except (FileNotFoundError, ValueError, KeyError) as error:
                notify(f"the checkpoint of step {step} is damaged ({error}) and was skipped")
            except OSError as error:  # it may be complete, and readable later
                raise ResourceError(
                    f"the checkpoint of step {step} in {self._folder} cannot be read: {error.strerror or error}",
                    "check that the storage is available and readable, then run again with `--resume`",
                ) from error
        return None

    def best_epochs(self) -> set[int]:
        """Return the best epoch recorded in each checkpoint."""
        epochs = set()
        for step in self.steps():
            with contextlib.suppress(OSError, ValueError, KeyError):
                epochs.add(int(read_json(self._path(step) / _STATE)["position"]["best_epoch"]))
        return epochs

    def load(self, step: int, *, verify: bool = True) -> LoadedCheckpoint:
        """Return the checkpoint of `step`; its tensors are mapped, and read from the file where they are used.

        With `verify`, read the whole file first and compare its digest. Raises `OSError`, `ValueError` or `KeyError` if
        the checkpoint is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = self._path(step)
        state = read_json(folder / _STATE)
        if verify and file_sha256(folder / _TENSORS) != state["sha256"]:
            raise ValueError(f"the SHA-256 of {_TENSORS} differs from state.json")
        try:
            return LoadedCheckpoint(step, load_file(folder / _TENSORS), state)
        except SafetensorError as error:
            raise ValueError(f"{_TENSORS} cannot be read") from error

    def delete_after(self, step: int) -> None:
        """Delete checkpoints of later steps and the remains of interrupted writes: the run resumes from `step`."""
        for later in self.steps():
            if later > step:
                shutil.rmtree(self._path(later), ignore_errors=True)
        remove_leftovers(self._folder, older_than_s=0.0)

    def _path(self, step: int) -> Path:
        return self._folder / f"{_PREFIX}{step:08d}"
