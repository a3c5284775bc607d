"""Predictions for whole files with Ray Data: every input row comes out again, in order, with an answer or the reason why not."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import DataError, user_error_in
from cluster.progress import Progress
from trainer import contract as contracts
from trainer import tasks
from trainer.contract import Contract
from trainer.data import sources
from trainer.data.checks import examine
from trainer.data.passes import quiet_ray_data
from trainer.data.read import read_blocks
from trainer.data.sources import SourceFile
from trainer.predictor import Predictor

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

    Columns: row number, the input under its own column's name, prediction, score, error (null where there is an answer).
    Raises `DataError` if a file is missing or damaged; call `must_be_readable` first for the quick checks.
    """
    import ray.data

    contract = contracts.load(folder)
    task = tasks.get(contract.task)
    column = contract.columns[task.subject]
    files = sources.find(given, "input")
    quiet_ray_data(preserve_order=True)
    answered = (
        ray.data.from_items([file._asdict() for file in files], override_num_blocks=len(files))
        .map_batches(_Read({task.subject: column}), batch_size=1, batch_format="pyarrow", num_cpus=0.5)
        .map_batches(
            _Answer,
            fn_constructor_args=[str(folder), max(1, int(cpus)), gpus > 0],
            batch_size=_BATCH_ROWS,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=gpus,
            concurrency=workers,
        )
    )
    counts = {"rows": 0, "predicted": 0}
    beside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with _writer(beside, _FORMATS[output.suffix], column) as write:
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
    subject = tasks.get(contract.task).subject
    for file in sources.find(given, "input"):
        if Path(file.path).resolve() == output.resolve():
            raise DataError(f"{output} is the input too", "name another output")
        next(read_blocks(file, {subject: contract.columns[subject]}))


class _Read:
    """Files (a line each) to blocks of rows, each row with the place of its file."""

    def __init__(self, columns: dict[str, str]) -> None:
        self.columns = columns

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for line in batch.to_pylist():
            file = SourceFile(**line)
            for block in read_blocks(file, self.columns):
                yield block.append_column("source", pa.array([file.place] * len(block), pa.int32()))


class _Answer:
    """Rows to answers, in an actor that loads the model once."""

    def __init__(self, folder: str, threads: int, on_gpu: bool) -> None:
        self.predictor = Predictor(Path(folder), device="cuda" if on_gpu else "cpu", threads=threads)

    def __call__(self, rows: pa.Table) -> pa.Table:
        subject = self.predictor.task.subject
        good, texts, bad = examine(self.predictor.task, rows, self.predictor.cleaner)
        answers = self.predictor.answers(texts.to_pylist())
        done = self._table(good, subject, [a["label"] for a in answers], [a["score"] for a in answers], None)
        failed = self._table(bad, subject, [None] * len(bad), [None] * len(bad), bad["reason"])
        return pa.concat_tables([done, failed]).sort_by([("source", "ascending"), ("row", "ascending")])

    def _table(self, rows: pa.Table, subject: str, labels: list[Any], scores: list[Any], reasons: Any) -> pa.Table:
        return pa.table(
            {
                "source": rows["source"],
                "row": rows["row"],
                "input": rows[subject],
                "prediction": pa.array(labels, pa.string()),
                "score": pa.array(scores, pa.float64()),
                "error": reasons if reasons is not None else pa.nulls(len(rows), pa.string()),
            }
        )


class _writer:
    """Appends answers to one file, batch by batch, in any of the three formats."""

    def __init__(self, path: Path, kind: str, column: str) -> None:
        self.path, self.kind, self.column = path, kind, column
        self._parquet: pq.ParquetWriter | None = None
        self._text: IO[str] | None = None

    def __enter__(self) -> Callable[[pa.Table], None]:
        if self.kind != "parquet":
            self._text = self.path.open("w", encoding="utf-8", newline="")
        if self.kind == "csv" and self._text:
            csv.writer(self._text).writerow(self._names())
        return self.write

    def __exit__(self, *_: object) -> None:
        if self._text:
            self._text.flush()
            os.fsync(self._text.fileno())
            self._text.close()
        if self._parquet:
            self._parquet.close()

    def _names(self) -> list[str]:
        taken = {"row", "prediction", "score", "error"}
        return [
            "row",
            self.column if self.column not in taken else f"input_{self.column}",
            "prediction",
            "score",
            "error",
        ]

    def write(self, batch: pa.Table) -> None:
        """Append one batch of answers."""
        table = batch.select(["row", "input", "prediction", "score", "error"]).rename_columns(self._names())
        if self.kind == "parquet":
            self._parquet = self._parquet or pq.ParquetWriter(self.path, table.schema)
            self._parquet.write_table(table)
            return
        assert self._text is not None
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
