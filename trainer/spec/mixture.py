"""The `train.mixture:` section of a spec: how often the rows of each file are used."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from trainer.spec.section import Positive, SpecSection


class MixturePart(SpecSection):
    """The weight of the rows of some files."""

    files: Annotated[str, Field(min_length=1)]
    """The name of a file, or a pattern with `*`, for example `code-*.jsonl`; the first item that fits a file counts."""
    weight: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """How often a row is used in an epoch: 2 twice, 0.5 in every second epoch on average."""
    from_epoch: Positive = 1
    """The first epoch in which the rows are used."""
    to_epoch: Positive | None = None
    """The last epoch in which the rows are used. Default: the last one of the training."""

    @model_validator(mode="after")
    def _check_epochs(self) -> MixturePart:
        if self.to_epoch is not None and self.to_epoch < self.from_epoch:
            raise ValueError(f"to_epoch={self.to_epoch} is before from_epoch={self.from_epoch}")
        return self
