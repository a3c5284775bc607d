"""Read a bounded sample of the rows of one part: enough to guess from, never a large file whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError
from trainer.data.readers.evidence import explain_reason
from trainer.data.readers.header import FileColumn, describe_reading, list_columns
from trainer.data.readers.read import read_blocks
from trainer.data.readers.text_stream import decode_text
from trainer.data.sources.folder_contents import count_endings
from trainer.data.sources.row_folder import FolderItem, list_folder_items
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.source_files import find_source_files, list_left_out
from trainer.spec.format import FormatSpec

#: Rows and characters of cells that are read of one part, over all its files together.
MAX_ROWS, MAX_CHARS = 50_000, 32 << 20
#: Folder format -> role of the files' content.
CONTENT_ROLES = {"text": "text", "images": "image"}


class Sample(NamedTuple):
    """The first rows of each file of one part."""

    files: list[SourceFile]
    columns: list[FileColumn]
    """All columns, also those that cannot be read; a folder has its content and `label`."""
    rows: pa.Table
    """Readable columns as text, null where a cell is empty."""
    is_complete: bool
    """Whether `rows` holds all rows."""
    n_rows: int
    """Rows of all files: counted, or estimated from the size of the files."""
    repeated: list[str]
    """Columns that the header names more than once; they are left out."""
    reading: FormatSpec
    """How the user says that the files are read."""
    left_out: dict[str, dict[str, Any]]
    """Extension -> {files, examples} of files without rows."""

    @property
    def is_folder(self) -> bool:
        """Whether each row is a file of a folder."""
        return self.files[0].format in CONTENT_ROLES


def read_sample(sources: list[str], part: str, reading: FormatSpec) -> Sample:
    """Return a sample of the rows. Raises `DataError` if the files cannot be read, or have different columns."""
    files = find_source_files(sources if len(sources) > 1 else sources[0], part, reading)
    sample = _sample_folder(files) if files[0].format in CONTENT_ROLES else _sample_tables(files)
    return sample._replace(reading=reading, left_out=count_endings(list_left_out(sources, part, reading)))


def reading_sentences(sample: Sample) -> list[str]:
    """Return sentences about how the files are read that no name says, and about files that are left out."""
    sentences = [describe_reading(sample.files[0])]
    if sample.left_out:
        counts = ", ".join(f"{count['files']} {ending}" for ending, count in sample.left_out.items())
        sentences.append(f"Files without rows are left out ({counts}).")
    return [sentence for sentence in sentences if sentence]


def _sample_tables(files: list[SourceFile]) -> Sample:
    listed = list_columns(files[0])
    counts = Counter(column.name for column in listed)
    columns = [column for column in listed if counts[column.name] == 1]
    readable = [column.name for column in columns if column.holds in ("values", "lists")]
    for file in files[1:]:
        _check_same_columns(file, readable, files[0])
    roles = {f"column {index}": name for index, name in enumerate(readable)}
    # Without such a column, rows are only counted, by one that holds objects.
    nested = {"column": columns[0].name} if columns and columns[0].holds == "nested" else {}
    counted = roles or nested
    blocks: list[pa.Table] = []
    reasons: Counter[str] = Counter()
    is_complete, n_rows = True, 0.0
    for file in files if counted else []:
        budget = _Budget(MAX_ROWS // len(files), MAX_CHARS // len(files))
        for block in budget.take(read_blocks(file, counted, frozenset(counted), nested=frozenset(nested))):
            reasons.update(reason for reason in block["reason"].to_pylist() if reason)
            usable = block.filter(pc.is_null(block["reason"]))  # the checks of all rows count the others
            blocks.append(_blank_to_null(usable.select(list(roles)).rename_columns(readable)))
        is_complete &= budget.is_complete
        n_rows += budget.n_rows if budget.is_complete else budget.estimate_rows(file)
    rows = pa.concat_tables(blocks) if blocks else pa.table({})
    if roles and reasons and not len(rows):
        reason = reasons.most_common(1)[0][0]
        raise DataError(
            f"no row of {files[0].path} can be read: {reason}{explain_reason(reason, files[0].path)}",
            "save the file as UTF-8, with a cell for each column in every row, or say how it is read with --format",
        )
    repeated = [name for name, count in counts.items() if count > 1]
    return Sample(files, columns, rows, is_complete, int(n_rows), repeated, FormatSpec(), {})


class _Budget:
    """Limits the rows and the characters that are taken from one file."""

    def __init__(self, rows: int, chars: int) -> None:
        self._rows, self._chars = max(1, rows), max(1, chars)
        self.n_rows = self.n_chars = 0
        self.is_complete = True

    def take(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for block in blocks:
            if self.n_rows >= self._rows or self.n_chars >= self._chars:
                self.is_complete = False
                return
            if len(block) > self._rows - self.n_rows:
                block, self.is_complete = block.slice(0, self._rows - self.n_rows), False
            self.n_rows += len(block)
            self.n_chars += block.nbytes
            yield block
            if not self.is_complete:
                return

    def estimate_rows(self, file: SourceFile) -> float:
        """Return about how many rows the file has, from its size on the disk and the rows that were read."""
        size = Path(file.path).stat().st_size if Path(file.path).is_file() else 0
        return max(float(self.n_rows), size / max(1, self.n_chars) * self.n_rows)


def _check_same_columns(file: SourceFile, names: list[str], first: SourceFile) -> None:
    own = {column.name for column in list_columns(file)}
    absent = [name for name in names if name not in own]
    if absent:
        raise DataError(
            f"{file.path} has no column '{absent[0]}', which {first.path} has",
            "name only files with the same columns, or run init on one of them",
        )


def _sample_folder(files: list[SourceFile]) -> Sample:
    items = [item for file in files for item in list_folder_items(file.path, file.format)]
    role = CONTENT_ROLES[files[0].format]
    labels = pa.array([item.label for item in items], pa.string())
    rows = pa.table({"label": labels})
    if role == "text":
        rows = pa.table({"text": _read_texts(items), "label": labels})
    columns = [FileColumn(role, "values" if role == "text" else "bytes"), FileColumn("label")]
    return Sample(files, columns, rows, True, len(items), [], FormatSpec(), {})


def _read_texts(items: list[FolderItem]) -> pa.Array:
    """Return the start of each text, for some files spread over the folder; null for the others."""
    step = max(1, len(items) // 500)
    texts: list[str | None] = [None] * len(items)
    for index in range(0, len(items), step):
        if "://" not in items[index].path:
            with Path(items[index].path).open("rb") as stream:
                texts[index] = decode_text(stream.read(10_000))[0]
    return pa.array(texts, pa.string())


def _blank_to_null(rows: pa.Table) -> pa.Table:
    columns = {}
    for name in rows.column_names:
        cells = rows[name]
        is_blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(cells)), 0)
        columns[name] = pc.if_else(is_blank, pa.scalar(None, pa.string()), cells)
    return pa.table(columns)
