"""One file of raw rows, and the format that its name says."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cluster.errors import DataError
from trainer.data.sources.row_folder import ROW_ENDINGS
from trainer.data.sources.streams import COMPRESSIONS, zip_member
from trainer.spec.format import FormatSpec

_FORMAT_OF_ENDING = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
#: The extensions of tables, for messages.
KNOWN_ENDINGS = ".csv, .tsv, .jsonl, .json, .parquet or .arrow"

#: What to do with files of other kinds, by extension.
_FIXES = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), "save the sheet as .csv (UTF-8)"),
    **dict.fromkeys((".tar", ".tgz", ".tbz", ".7z", ".rar"), "unpack the archive, and name the files in it"),
    **dict.fromkeys((".br", ".z", ".lzma", ".snappy"), "decompress it, or compress it with gzip or zstd"),
    **dict.fromkeys((".orc", ".avro", ".h5", ".hdf5", ".pkl", ".pickle", ".rds", ".sas7bdat", ".dta", ".sav"),
                    "convert it to .parquet or .csv"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "name the rows by a query: `{url: sqlite:////PATH, query: SELECT ...}`"),
    **dict.fromkeys((".txt", ".dat", ".psv", ".log", ""), "if it is a table, set `data.format: csv`, tsv or jsonl"),
}  # fmt: skip

#: The `part` of files that a command names, not a spec.
INPUT = "input"


class SourceFile(NamedTuple):
    """A file of raw rows, or a folder whose files are the rows. Its values are plain, so it can be sent as JSON."""

    path: str
    """Local path or remote address. It never holds a secret, so messages may show it."""
    format: str
    """csv, tsv, jsonl, parquet or arrow; for a folder, text or images."""
    part: str
    """train, validation or test."""
    number: int
    """Index of the file among all files of the run, from 0; rows are in this order."""
    options: dict[str, Any] = {}  # noqa: RUF012  never changed
    """Keys of a `FormatSpec` that the spec sets."""
    partition: dict[str, str | None] = {}  # noqa: RUF012  never changed
    """Columns whose values the names of folders hold, as in `label=x/`; None for Hive's name of a missing value."""
    size: int = 1 << 40
    """Size in bytes; large if it is not known."""
    is_one_of_many: bool = False
    """Whether a pattern or a folder names the file: then it may hold no rows."""

    @property
    def reading(self) -> FormatSpec:
        """How the file is read."""
        return FormatSpec(**self.options)


def file_format_of(path: Path) -> str | None:
    """Return the format of a table by its extension, without that of a compression, or None."""
    return _FORMAT_OF_ENDING.get(_plain_name(path.name).suffix.lower())


def printable(path: str) -> str:
    """Return a path that JSON and Arrow can hold: names on a disk may have bytes that are no UTF-8."""
    return path.encode("utf-8", errors="replace").decode()


def choose_format(path: str, name: str, file_format: str) -> str:
    """Return the format that the spec names, else that of the extension; `name` is without remote options.

    Raises `DataError` for an extension that says no format.
    """
    if file_format in ROW_ENDINGS:
        return file_format
    plain, is_compressed = _plain_name(name), _is_compressed(name)
    if file_format == "auto" and not plain.suffix and Path(name).suffix.lower() == ".zip":
        plain = PurePosixPath(zip_member(path))
    ending = plain.suffix.lower()
    if file_format == "auto" and ending not in _FORMAT_OF_ENDING:
        raise DataError(
            f"{path} has the extension '{ending}', so its format is not known",
            _FIXES.get(ending, f"change the extension to {KNOWN_ENDINGS}, or set `data.format`"),
        )
    chosen = _FORMAT_OF_ENDING[ending] if file_format == "auto" else file_format
    if is_compressed and chosen in ("parquet", "arrow"):
        raise DataError(
            f"{path} is a compressed {chosen} file", f"decompress it: {chosen} files compress their columns themselves"
        )
    return chosen


def _is_compressed(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in COMPRESSIONS


def _plain_name(name: str) -> PurePosixPath:
    """Return the name without the extension of a compression."""
    path = PurePosixPath(name)
    return path.with_suffix("") if _is_compressed(name) else path
