"""Batch prediction: every input row is written, in order, with its answer or why it has none."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import DataError, user_error_in
from cluster.progress import Progress
from trainer.contract.contract import Contract, load_contract
from trainer.data.arrow import BINARY_BLOCK_ROWS
from trainer.data.prepare.passes import estimate_text_bytes, quiet_ray_data
from trainer.data.prepare.row_checks import check_rows, reject_rows
from trainer.data.readers.file_groups import group_files, read_group
from trainer.data.readers.read import read_blocks
from trainer.data.readers.read_options import ReadOptions, read_options_of_contract
from trainer.data.sources.row_folder import ROW_ENDINGS
from trainer.data.sources.source_file import SourceFile
from trainer.inference.predictor import Predictor
from trainer.spec.answers import AnswersSpec
from trainer.tasks.base import Task
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.roles import request_roles

_FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
_BATCH_ROWS = 1024
# Up to this many bytes of text, this process predicts without Ray, whose start takes several seconds.
_SMALL_BYTES = 4 << 20
# A column of answers on their way to the file: counts of unseen values as JSON, in one row of each batch.
_UNSEEN = "unseen values of the batch"
# How many different reasons of bad rows are counted, and how many of them are reported.
_MAX_COUNTED, _MAX_REASONS = 10_000, 5
# Files that are looked at before anything starts.
_MAX_CHECKED = 100


def predict_files(
    folder: Path,
    files: list[SourceFile],
    output: Path,
    *,
    cpus: float,
    on_progress: Callable[[Progress], None],
    with_ray: bool,
    limits: AnswersSpec | None = None,
) -> dict[str, Any]:
    """Write a line for each row of the `files` to `output` (.csv, .jsonl or .parquet) and return the counts.

    Columns: row number, the inputs under the names of their columns, prediction, score, and error, which is null for a
    row with an answer. For images and for files of a folder there is also `path`, which may be null. Ray Data reads and
    predicts at the same time (Ray must be connected); without it, this process does one after the other. The counts are
    `rows`, `predicted`, `bad_rows`: reason -> rows, the most frequent reasons, and `unseen_values`: column -> rows with a
    value that the model takes for "other" or "missing" and no training row had. `limits` are those of answers that a
    model writes; their score is the mean log-probability of their tokens.
    Raises `DataError` if a file is missing or damaged; call `check_files` first for the quick checks.
    """
    contract = load_contract(folder)
    task = task_of_contract(contract)
    read = _ReadBlocks(input_options(task, contract), _may_have_paths(task, files))
    answer = _answer_with_ray if with_ray else _answer_here
    counts = {"rows": 0, "predicted": 0}
    unseen: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with _OutputWriter(partial, _FORMATS[output.suffix]) as write:
            for batch in answer(folder, files, read, cpus, limits):
                write(batch)
                counts["rows"] += len(batch)
                counts["predicted"] += batch.column("error").null_count
                _count_reasons(reasons, batch.column("error"))
                for note in batch.column(_UNSEEN).drop_null().to_pylist():
                    unseen.update(json.loads(note))
                on_progress(Progress(done=counts["rows"], unit="rows"))
        partial.replace(output)
    except OSError as error:
        raise DataError(
            f"{output} cannot be written: {error.strerror}", "name a file in a folder that you may write to"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return {**counts, "bad_rows": dict(reasons.most_common(_MAX_REASONS)), "unseen_values": dict(unseen)}


def _count_reasons(reasons: Counter[str], errors: pa.ChunkedArray) -> None:
    """Count the reasons of bad rows. A reason quotes the cell, so of very many different ones only the first count."""
    for reason in errors.drop_null().to_pylist():
        if reason in reasons or len(reasons) < _MAX_COUNTED:
            reasons[reason] += 1


def is_small_input(files: list[SourceFile], contract: Contract) -> bool:
    """Return whether the `files` have so few rows that starting Ray would take longer than predicting them."""
    names_files = bool(task_of_contract(contract).binary_roles)
    return estimate_text_bytes(files, names_files=names_files) <= _SMALL_BYTES


def _answer_here(
    folder: Path, files: list[SourceFile], read: _ReadBlocks, cpus: float, limits: AnswersSpec | None
) -> Iterator[pa.Table]:
    """Yield the answers to the blocks of `files` in order, computed in this process."""
    predict = _PredictBlocks(str(folder), max(1, int(cpus)), limits)
    for group in group_files(files, read.options):
        for block in read.group(group):
            yield from predict(block)


def _answer_with_ray(
    folder: Path, files: list[SourceFile], read: _ReadBlocks, cpus: float, limits: AnswersSpec | None
) -> Iterator[pa.Table]:
    """Yield the answers to the blocks of `files` in order: Ray Data reads them and feeds one actor with the model."""
    import ray.data
    import ray.exceptions

    quiet_ray_data(preserve_order=True)
    items = [json.dumps([file._asdict() for file in group]) for group in group_files(files, read.options)]
    blocks = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        read, batch_size=1, batch_format="pyarrow", num_cpus=0.5
    )
    answers = blocks.map_batches(
        _PredictBlocks,
        fn_constructor_args=[str(folder), max(1, int(cpus)), limits],
        # The actor receives blocks as the readers cut them, and splits them itself, as this process would.
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=cpus,
        concurrency=1,
    )
    try:
        yield from answers.iter_batches(batch_size=None, batch_format="pyarrow")
    except ray.exceptions.RayTaskError as error:
        raise user_error_in(error) or error from None


def check_files(files: list[SourceFile], output: Path, contract: Contract) -> None:
    """Raise `DataError` for a missing column or an invalid output. Reads one block of each of the first files."""
    if output.suffix not in _FORMATS:
        raise DataError(
            f"{output} ends in '{output.suffix}', which is not a supported format",
            "name an output that ends in .csv, .jsonl or .parquet",
        )
    if not output.parent.is_dir():
        raise DataError(
            f"there is no folder {output.parent} to write {output.name} to", "create the folder, or name another one"
        )
    options = input_options(task_of_contract(contract), contract)
    if output.resolve() in {Path(file.path).resolve() for file in files}:
        raise DataError(f"{output} is also an input", "name another output")
    for file in files[:_MAX_CHECKED]:
        next(read_blocks(file, *options), None)


def input_options(task: Task, contract: Contract) -> ReadOptions:
    """Return the options for reading a model's inputs from a file without targets."""
    return read_options_of_contract(contract, {role: contract.columns[role] for role in request_roles(task, contract)})


def _may_have_paths(task: Task, files: list[SourceFile]) -> bool:
    """Return whether blocks get a `path` column: all of them do if any file has paths, because columns must agree."""
    return bool(task.binary_roles) or any(file.format in ROW_ENDINGS for file in files)


class _ReadBlocks:
    """Reads groups of files, as JSON, into blocks of rows. Adds the number of the file, and `path` if `has_paths`."""

    def __init__(self, options: ReadOptions, has_paths: bool) -> None:
        self.options, self.has_paths = options, has_paths

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for item in batch["item"].to_pylist():
            yield from self.group([SourceFile(**file) for file in json.loads(item)])

    def group(self, group: list[SourceFile]) -> Iterator[pa.Table]:
        """Yield the blocks of a group of files."""
        for block in read_group(group, self.options, self._file):
            yield block if self.has_paths or len(group) == 1 else block.drop_columns(["path"])

    def _file(self, file: SourceFile, options: ReadOptions) -> Iterator[pa.Table]:
        for block in read_blocks(file, *options):
            if self.has_paths and "path" not in block.column_names:
                block = block.append_column("path", pa.nulls(len(block), pa.string()))
            yield block.append_column("source", pa.array([file.number] * len(block), pa.int32()))


class _PredictBlocks:
    """Predicts blocks of rows, in an actor that loads the model once."""

    def __init__(self, folder: str, threads: int, limits: AnswersSpec | None) -> None:
        self.predictor = Predictor(Path(folder), device="cpu", threads=threads, limits=limits)
        self.batch_rows = BINARY_BLOCK_ROWS if self.predictor.task.binary_roles else _BATCH_ROWS

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        # A generator, because Ray Data loses the cause of an error raised by a plain function.
        for start in range(0, len(rows), self.batch_rows):
            yield self._predict(rows.slice(start, self.batch_rows))

    def _predict(self, rows: pa.Table) -> pa.Table:
        predictor = self.predictor
        checked = check_rows(predictor.task, predictor.contract, rows, predictor.cleaner)
        inputs, refused = predictor.encoder.encode_request_block(checked.cleaned)
        if refused and any(refused):
            checked, inputs = reject_rows(checked, refused), inputs.filter(pc.is_null(pa.array(refused, pa.string())))
        offsets, numbers = inputs.offsets.to_numpy(), inputs.values.to_numpy()
        encoded = [numbers[start:end] for start, end in itertools.pairwise(offsets)]
        answers = predictor.task.target.prediction_columns(predictor.answers(encoded))
        unknown = {name: pa.nulls(len(checked.bad), column.type) for name, column in answers.items()}
        unseen = predictor.encoder.count_unseen(checked.cleaned)
        good = self._table(checked.good, answers, pa.nulls(len(checked.good), pa.string()))
        bad = self._table(checked.bad, unknown, checked.bad["reason"])
        rows = pa.concat_tables([good, bad]).sort_by([("source", "ascending"), ("row", "ascending")])
        notes = [json.dumps(unseen) if unseen and row == 0 else None for row in range(len(rows))]
        return rows.append_column(_UNSEEN, pa.array(notes, pa.string()))

    def _table(self, rows: pa.Table, answers: dict[str, pa.Array], reasons: Any) -> pa.Table:
        task, columns = self.predictor.task, self.predictor.contract.columns
        paths = {name: rows[name] for name in ("path",) if name in rows.column_names}
        taken = {"source", "row", "error", *paths, *answers}
        shown = {
            role: columns[role]
            for role in request_roles(task, self.predictor.contract)
            if role not in task.binary_roles
        }
        return pa.table(
            {
                "source": rows["source"],
                "row": rows["row"],
                **{_unused_name(name, taken): rows[role] for role, name in shown.items()},
                **paths,
                **answers,
                "error": reasons,
            }
        )


def _unused_name(name: str, taken: set[str]) -> str:
    """Return the name of an input column in the output: prefixed with `input_` if an answer's column has this name."""
    return f"input_{name}" if name in taken else name


class _OutputWriter:
    """Appends batches of answers to one file in any of the three formats."""

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
        table = batch.drop_columns(["source", _UNSEEN])
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
