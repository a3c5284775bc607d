"""What a training keeps to go on from: every tensor that a step changes, and its position. Whole or not there.

    checkpoints/step-00000200/state.safetensors     weights that learn, buffers, optimiser, running mean
                              state.json            position, precision, digest of the tensors

No generator's state is kept: each step begins its random numbers anew from (seed, epoch, step, rank).
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.errors import ResourceError
from cluster.files import new_folder, read_json, sha256, sweep, write_json

if TYPE_CHECKING:
    import torch

FOLDER = "checkpoints"
_TENSORS, _STATE = "state.safetensors", "state.json"
_PREFIX = "step-"


class Snapshot(NamedTuple):
    """One that was read back."""

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


class Snapshots:
    """Those of one run's folder."""

    def __init__(self, run: Path, keep: int) -> None:
        self._folder, self._keep = run / FOLDER, keep

    def steps(self) -> list[int]:
        """Return the steps there is one of, the newest first; none of them has been looked into."""
        found = [path.name.removeprefix(_PREFIX) for path in self._folder.glob(f"{_PREFIX}*")]
        return sorted((int(step) for step in found if step.isdigit()), reverse=True)

    def write(self, step: int, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Write one, then remove those beyond the newest so many. `tensors` are on the CPU, no two of the same memory.

        Raises `ResourceError` where there is no room; those before stay.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        final = self._place(step)
        shutil.rmtree(final, ignore_errors=True)  # a run that went on from before it makes it again
        try:
            with new_folder(final) as folder:
                save_file(tensors, folder / _TENSORS)
                write_json(folder / _STATE, {**state, "sha256": sha256(folder / _TENSORS)})
        except (OSError, SafetensorError) as error:
            raise ResourceError(
                f"{final} cannot be written: {error}", "check the space of the storage folder"
            ) from error
        for old in self.steps()[self._keep :]:
            shutil.rmtree(self._place(old), ignore_errors=True)

    def newest(self, tell: Callable[[str], None]) -> Snapshot | None:
        """Return the newest that is whole; one that is damaged is told of, and the one before it is taken."""
        for step in self.steps():
            try:
                return self.read(step)
            except (FileNotFoundError, ValueError, KeyError) as error:
                tell(f"the checkpoint of step {step} is damaged ({error}) and was left out")
            except OSError as error:  # it may be whole, and readable tomorrow
                raise ResourceError(
                    f"the checkpoint of step {step} in {self._folder} cannot be read: {error.strerror or error}",
                    "see that the storage is there and may be read, then go on with --resume",
                ) from error
        return None

    def best_epochs(self) -> set[int]:
        """Return the epochs whose models were the best when those that are kept were written."""
        found = set()
        for step in self.steps():
            with contextlib.suppress(OSError, ValueError, KeyError):
                found.add(int(read_json(self._place(step) / _STATE)["position"]["best_epoch"]))
        return found

    def read(self, step: int) -> Snapshot:
        """Return the one of `step`; raises `OSError`, `ValueError` or `KeyError` if it is not what was written."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        place = self._place(step)
        state = read_json(place / _STATE)
        if sha256(place / _TENSORS) != state["sha256"]:
            raise ValueError(f"{_TENSORS} is not what was written")
        try:
            return Snapshot(step, load_file(place / _TENSORS), state)
        except SafetensorError as error:
            raise ValueError(f"{_TENSORS} cannot be read") from error

    def forget_after(self, step: int) -> None:
        """Remove those of later steps, and what an interrupted write left: a run goes on from `step`."""
        for later in self.steps():
            if later > step:
                shutil.rmtree(self._place(later), ignore_errors=True)
        sweep(self._folder, older_than_s=0.0)

    def _place(self, step: int) -> Path:
        return self._folder / f"{_PREFIX}{step:08d}"
