"""Shards that get their model inputs after all rows were read, because something is fitted from the training rows first.

The raw rows lie in the shards already, checked and told apart; each shard is encoded where it lies: in this process, or by
Ray Data where the rows are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.errors import DataError, user_error_in
from trainer.contract.contract import Contract
from trainer.data.arrow import read_ipc, write_ipc
from trainer.data.folder import INPUTS, SHARDS
from trainer.steps.cleaner import Cleaner
from trainer.tasks import catalog as task_catalog


def encode_shards(contract: Contract, folder: Path, sources: dict[str, str], *, with_ray: bool) -> None:
    """Add the model inputs to each shard; `sources` is the path of the file that it came from, by its name.

    Raises `DataError` for a row that the fitted values refuse.
    """
    encode = _EncodeShard(contract, folder)
    if not with_ray:
        for name, source in sources.items():
            encode.one(name, source)
        return
    import ray.data
    import ray.exceptions

    from trainer.data.prepare.passes import MAKE_CPUS, quiet_ray_data

    quiet_ray_data()
    items = [{"name": name, "source": source} for name, source in sources.items()]
    done = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        encode, batch_size=1, batch_format="pyarrow", num_cpus=MAKE_CPUS
    )
    try:
        for _ in done.iter_rows():
            pass
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None


class _EncodeShard:
    """A generator for Ray Data: of an error in a plain function it keeps no cause."""

    def __init__(self, contract: Contract, folder: Path) -> None:
        self.contract, self.folder = contract, folder

    def __call__(self, batch: Any) -> Iterator[Any]:
        for line in batch.to_pylist():
            self.one(**line)
        yield batch

    def one(self, name: str, source: str) -> None:
        """Encode the shard `name` of rows of the file `source`; doing it again gives the same file."""
        path = self.folder / SHARDS / f"{name}.arrow"
        task = task_catalog.of(self.contract)
        shard = read_ipc(path)
        subjects = shard.select(task.subjects(self.contract))
        cleaner = Cleaner(self.contract)
        for role in task.texts if cleaner else ():
            texts, _ = cleaner(subjects[role].to_pylist())  # rows that a step refuses are no usable ones, and not here
            subjects = subjects.set_column(subjects.column_names.index(role), role, pa.array(texts, pa.string()))
        inputs, reasons = task.encoder(self.contract, self.folder).block(subjects)
        refused = next((at for at, reason in enumerate(reasons or []) if reason), None)
        if refused is not None:
            row = shard["row"][refused].as_py()
            raise DataError(f"row {row} of {source} cannot be used: {reasons[refused]}",  # type: ignore[index]
                            "repair the row, take it out, or let the column's rule allow it")  # fmt: skip
        whole = [column for column in shard.column_names if column != INPUTS]
        beside = path.with_suffix(".part")
        write_ipc(shard.select(whole).append_column(INPUTS, inputs), beside)
        beside.replace(path)
