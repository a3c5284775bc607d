"""Predictions for whole files with Ray Data: every input row comes out again, in order, with an answer or the reason why not."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import DataError, user_error_in
from cluster.progress import Progress
from trainer.contract import contract as contracts
from trainer.contract.contract import Contract
from trainer.data.arrow import BINARY_ROWS
from trainer.data.prepare.passes import quiet_ray_data
from trainer.data.prepare.row_checks import examine, refuse
from trainer.data.readers.read import read_blocks
from trainer.data.readers.reading import Reading, reading
from trainer.data.sources import folder as source_folder
from trainer.data.sources import resolve
from trainer.data.sources.resolve import SourceFile
from trainer.inference.predictor import Predictor
from trainer.tasks import catalog as task_catalog
from trainer.tasks.base import Task

_FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
_BATCH_ROWS = 1024


def predict_files(
    folder: Path,
    given: str | list[str],
    output: Path,
    *,
    workers: int,
    cpus: float,
    gpus: float,
    on_progress: Callable[[Progress], None],
) -> dict[str, int]:
    """Write one line for each row of the files to `output` (.csv, .jsonl or .parquet); returns counts.

    Columns: row number, the inputs under their own columns' names (of images and of a folder's files `path` instead, null
    where there is none), prediction, score, error (null where there is an answer).
    Raises `DataError` if a file is missing or damaged; call `must_be_readable` first for the quick checks.
    """
    import ray.data

    contract = contracts.load(folder)
    task = task_catalog.of(contract)
    files = resolve.find(given, resolve.INPUT)
    quiet_ray_data(preserve_order=True)
    answered = (
        ray.data.from_items([file._asdict() for file in files], override_num_blocks=len(files))
        .map_batches(
            _Read(inputs_of(task, contract), _have_paths(task, files)),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0.5,
        )
        .map_batches(
            _Answer,
            fn_constructor_args=[str(folder), max(1, int(cpus)), gpus > 0],
            # Images lie in blocks of so many bytes, however large each of them is; the actor takes few at a time.
            batch_size=None if task.binary else _BATCH_ROWS,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=gpus,
            concurrency=workers,
        )
    )
    counts = {"rows": 0, "predicted": 0}
    beside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with _writer(beside, _FORMATS[output.suffix]) as write:
            found: Iterator[pa.Table] = iter(answered.iter_batches(batch_size=None, batch_format="pyarrow"))
            for batch in found:
                write(batch)
                counts["rows"] += len(batch)
                counts["predicted"] += batch.column("error").null_count
                on_progress(Progress(done=counts["rows"], unit="rows"))
        beside.replace(output)
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None
    except OSError as error:
        raise DataError(
            f"{output} cannot be written: {error.strerror}", "name a file in a folder you may write to"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    return counts


def must_be_readable(given: str | list[str], output: Path, contract: Contract) -> None:
    """Raise `DataError` for a missing file, a missing column or an output that cannot be; reads one block a file."""
    if output.suffix not in _FORMATS:
        raise DataError(f"{output} ends in '{output.suffix}'", "name an output that ends in .csv, .jsonl or .parquet")
    if not output.parent.is_dir():
        raise DataError(f"there is no folder {output.parent} to write {output.name} to", "make it, or name another")
    how = inputs_of(task_catalog.of(contract), contract)
    for file in resolve.find(given, resolve.INPUT):
        if Path(file.path).resolve() == output.resolve():
            raise DataError(f"{output} is the input too", "name another output")
        next(read_blocks(file, *how))


def inputs_of(task: Task, contract: Contract) -> Reading:
    """Return how the inputs of a model are read from a file that has no targets."""
    return reading(task, {role: contract.columns[role] for role in task.subjects(contract)})


def _have_paths(task: Task, files: list[SourceFile]) -> bool:
    """Whether some rows may be files of their own. Asked once for all files: all blocks must have the same columns."""
    return bool(task.binary) or any(file.format in source_folder.ENDINGS for file in files)


class _Read:
    """Files (a line each) to blocks of rows, each row with the place of its file, and with its own path if `paths`."""

    def __init__(self, how: Reading, paths: bool) -> None:
        self.how, self.paths = how, paths

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for line in batch.to_pylist():
            file = SourceFile(**line)
            for block in read_blocks(file, *self.how):
                if self.paths and "path" not in block.column_names:
                    block = block.append_column("path", pa.nulls(len(block), pa.string()))
                yield block.append_column("source", pa.array([file.place] * len(block), pa.int32()))


class _Answer:
    """Rows to answers, in an actor that loads the model once."""

    def __init__(self, folder: str, threads: int, on_gpu: bool) -> None:
        self.predictor = Predictor(Path(folder), device="cuda" if on_gpu else "cpu", threads=threads)
        self.at_once = BINARY_ROWS if self.predictor.task.binary else _BATCH_ROWS

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        # A generator: of an error in a plain function Ray Data keeps no cause.
        for start in range(0, len(rows), self.at_once):
            yield self._answered(rows.slice(start, self.at_once))

    def _answered(self, rows: pa.Table) -> pa.Table:
        made = self.predictor
        found = examine(made.task, made.contract, rows, made.cleaner)
        inputs, refused = made.encoder.block(found.subjects)
        if refused and any(refused):
            found, inputs = refuse(found, refused), inputs.filter(pc.is_null(pa.array(refused, pa.string())))
        offsets, numbers = inputs.offsets.to_numpy(), inputs.values.to_numpy()
        each = [numbers[start:end] for start, end in itertools.pairwise(offsets)]
        answered = made.task.target.columns(made.answers(each))
        unknown = {name: pa.nulls(len(found.bad), column.type) for name, column in answered.items()}
        good = self._table(found.good, answered, pa.nulls(len(found.good), pa.string()))
        bad = self._table(found.bad, unknown, found.bad["reason"])
        return pa.concat_tables([good, bad]).sort_by([("source", "ascending"), ("row", "ascending")])

    def _table(self, rows: pa.Table, answered: dict[str, pa.Array], reasons: Any) -> pa.Table:
        task, columns = self.predictor.task, self.predictor.contract.columns
        own = {name: rows[name] for name in ("path",) if name in rows.column_names}
        taken = {"source", "row", "error", *own, *answered}
        shown = {role: columns[role] for role in task.subjects(self.predictor.contract) if role not in task.binary}
        return pa.table(
            {
                "source": rows["source"],
                "row": rows["row"],
                **{_free(name, taken): rows[role] for role, name in shown.items()},
                **own,
                **answered,
                "error": reasons,
            }
        )


def _free(name: str, taken: set[str]) -> str:
    """Return a column's name in the output: one that the answer has already gets another."""
    return f"input_{name}" if name in taken else name


class _writer:
    """Appends answers to one file, batch by batch, in any of the three formats."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        self._parquet: pq.ParquetWriter | None = None
        self._text: IO[str] | None = None

    def __enter__(self) -> Callable[[pa.Table], None]:
        if self.kind != "parquet":
            self._text = self.path.open("w", encoding="utf-8", newline="")
        return self.write

    def __exit__(self, *_: object) -> None:
        if self._text:
            self._text.flush()
            os.fsync(self._text.fileno())
            self._text.close()
        if self._parquet:
            self._parquet.close()

    def write(self, batch: pa.Table) -> None:
        """Append one batch of answers."""
        table = batch.drop_columns(["source"])
        if self.kind == "parquet":
            self._parquet = self._parquet or pq.ParquetWriter(self.path, table.schema)
            self._parquet.write_table(table)
            return
        assert self._text is not None
        if self.kind == "csv" and not self._text.tell():
            csv.writer(self._text).writerow(table.column_names)
        for line in self._lines(table):
            self._text.write(line)

    def _lines(self, table: pa.Table) -> Iterator[str]:
        if self.kind == "jsonl":
            yield from (json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
            return
        buffer = io.StringIO()
        csv.writer(buffer).writerows(
            [["" if cell is None else cell for cell in row.values()] for row in table.to_pylist()]
        )
        yield buffer.getvalue()
