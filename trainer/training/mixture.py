"""The mixture of a training's rows: the weight of each row's file, as `train.mixture` gives it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath

import numpy as np

from cluster.errors import SpecError
from trainer.optim.mixture_plan import SourceWeight, epoch_rows, epoch_tokens
from trainer.spec.mixture import MixturePart
from trainer.spec.train import TrainSpec

_ANY_OTHER = SourceWeight()


class Mixture:
    """The rows of each epoch."""

    def __init__(
        self, files: tuple[list[str], np.ndarray], row_numbers: np.ndarray, lengths: np.ndarray, train: TrainSpec
    ) -> None:
        """`files` is what `Prepared.files_of` returned; `row_numbers` and `lengths` are the prepared row and the tokens of
        each row to use. Raises `SpecError` if an item fits no file, or an epoch would have no rows."""
        names, row_files = files
        parts, n_epochs = train.mixture, train.n_epochs
        items = [_first_fit(name, parts) for name in names]
        for number, part in enumerate(parts):
            if number not in items:
                raise SpecError(
                    f"train.mixture: files={part.files!r} fits no file with training rows",
                    f"the files are {', '.join(names[:8])}",
                )
        weights = [*(SourceWeight(part.weight, part.from_epoch, part.to_epoch) for part in parts), _ANY_OTHER]
        self._weights, self._seed, self._lengths = weights, train.seed, np.maximum(1, lengths)
        numbers = np.array([len(parts) if item is None else item for item in items], np.int64)
        self._sources = numbers[row_files[row_numbers]]
        used = set(self._sources.tolist())
        for epoch in range(1, n_epochs + 1):
            if not any(weight.in_epoch(epoch) for source, weight in enumerate(weights) if source in used):
                raise SpecError(
                    f"train.mixture leaves epoch {epoch} without rows", "change `from_epoch` or `to_epoch` of an item"
                )

    @property
    def tokens(self) -> int:
        """The number of tokens of every epoch, about."""
        return epoch_tokens(self._sources, self._lengths, self._weights)

    def rows(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch, int64, as often as each is used."""
        return epoch_rows(self._sources, self._lengths, self._weights, self._seed, epoch)


def _first_fit(file: str, parts: Sequence[MixturePart]) -> int | None:
    """Return the number of the first item whose pattern fits the file's name or the end of its path."""
    path = PurePath(file)
    for number, part in enumerate(parts):
        n_names = len(PurePath(part.files).parts)
        if fnmatchcase("/".join(path.parts[-n_names:]), part.files) or fnmatchcase(file, part.files):
            return number
    return None
