"""Add the model inputs to shards of raw rows, for tasks that encode rows only after fitting on the training rows.

The shards already hold the checked rows; each shard is encoded in place: in this process, or by Ray Data if there are
many rows.
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
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.roles import input_roles


def encode_shards(contract: Contract, folder: Path, sources: dict[str, str], *, with_ray: bool) -> None:
    """Add the model inputs to each shard; `sources` maps each shard's name to the path of its source file.

    Raises `DataError` for a row that the fitted values reject.
    """
    encoder = _ShardEncoder(contract, folder)
    if not with_ray:
        for name, source in sources.items():
            encoder.encode(name, source)
        return
    import ray.data
    import ray.exceptions

    from trainer.data.prepare.passes import ENCODE_CPUS, quiet_ray_data

    quiet_ray_data()
    items = [{"name": name, "source": source} for name, source in sources.items()]
    shards = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        encoder, batch_size=1, batch_format="pyarrow", num_cpus=ENCODE_CPUS
    )
    try:
        for _ in shards.iter_rows():
            pass
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None


class _ShardEncoder:
    """Encodes shards in place.

    `__call__` is a generator: Ray Data drops the cause of an error that a plain function raises.
    """

    def __init__(self, contract: Contract, folder: Path) -> None:
        self.contract, self.folder = contract, folder

    def __call__(self, batch: Any) -> Iterator[Any]:
        for item in batch.to_pylist():
            self.encode(**item)
        yield batch

    def encode(self, name: str, source: str) -> None:
        """Encode the shard `name`, whose rows are from the file `source`. Encoding it again gives the same file."""
        path = self.folder / SHARDS / f"{name}.arrow"
        task = task_of_contract(self.contract)
        shard = read_ipc(path)
        rows = self._clean(shard.select(input_roles(task, self.contract)), task.text_roles)
        inputs, reasons = task.encoder(self.contract, self.folder).encode_block(rows)
        _check_none_rejected(shard, reasons, source)
        columns = [column for column in shard.column_names if column != INPUTS]
        beside = path.with_suffix(".part")
        write_ipc(shard.select(columns).append_column(INPUTS, inputs), beside)
        beside.replace(path)

    def _clean(self, rows: pa.Table, roles: tuple[str, ...]) -> pa.Table:
        """Return the rows with the texts of `roles` cleaned."""
        cleaner = Cleaner(self.contract)
        for role in roles:
            # No step rejects these rows: the shards hold usable rows only.
            columns, _ = cleaner.columns({role: rows[role].to_pylist()}, (role,))
            texts = columns[role]
            rows = rows.set_column(rows.column_names.index(role), role, pa.array(texts, pa.string()))
        return rows


def _check_none_rejected(shard: pa.Table, reasons: list[str | None] | None, source: str) -> None:
    """Raise `DataError` for the first row that has a reason."""
    for index, reason in enumerate(reasons or []):
        if reason:
            path = shard["path"][index].as_py() if "path" in shard.column_names else source
            raise DataError(
                f"row {shard['row'][index].as_py()} of {path} cannot be used: {reason}",
                "repair or remove the row, or change the column's rule in `data.features` so that it allows the value",
            )
