"""What a folder holds: tables, texts or images as rows, and files that are neither.

Every file below a folder is used or counted as left out. Tables may lie at any depth, for example in the folders
`label=x/` of Hive and Spark. Names that begin with `_`, such as `_SUCCESS` and `_metadata`, are the bookkeeping of the
tools that wrote the tables.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cluster.errors import DataError
from trainer.data.sources.part_names import part_of_name, words_of_name
from trainer.data.sources.remote import without_options
from trainer.data.sources.row_folder import ROW_ENDINGS, is_row
from trainer.data.sources.source_file import KNOWN_ENDINGS, file_format_of, printable
from trainer.data.sources.walk import FolderFile, walk_folder

_MAX_EXAMPLES = 3
_ROW_FILES = {"text": ".txt", "images": ".png, .jpg or other image"}
#: Folders that make a folder of files a table of another system, which knows which of the files still count.
_TABLE_SYSTEMS = {"_delta_log": "Delta Lake", ".hoodie": "Hudi"}


class FolderContents(NamedTuple):
    """The files below a folder."""

    format: str | None
    """Format of the rows; None if the folder holds none."""
    files: list[FolderFile]
    """The files with rows, sorted by relative path."""
    left_out: list[FolderFile]
    """All others."""


def read_folder(folder: str, file_format: str = "auto", *, classes: bool = True) -> FolderContents:
    """Return what a folder holds. Without `classes` (rows to predict), images in the folder itself are rows too.

    Raises `DataError` if it may be read in several ways and `file_format` does not say in which.
    """
    files = sorted(walk_folder(folder))
    chosen = _detect_format(folder, files, classes=classes) if file_format == "auto" else file_format
    if chosen in ROW_ENDINGS:
        used = {file for file in files if is_row(file.relative, chosen)}
    else:
        candidates = _find_tables(files) if file_format == "auto" else files
        used = {file for file in candidates if file.size and _table_format(file, chosen, file_format) == chosen}
        _check_table_folder(folder, files, used)
    left_out = [file for file in files if file not in used]
    return FolderContents(chosen if used else None, [file for file in files if file in used], left_out)


def detect_folder_format(folder: str) -> str | None:
    """Return the format of the rows in a folder; None if it holds none. Raises `DataError` if there are several."""
    return _detect_format(folder, sorted(walk_folder(folder)), classes=True)


def count_endings(files: list[FolderFile]) -> dict[str, dict[str, Any]]:
    """Return extension -> {files, examples} of the files that were left out, most frequent first."""
    by_ending: dict[str, list[str]] = {}
    for file in files:
        by_ending.setdefault(printable(_ending(file)), []).append(printable(file.path))
    ranked = sorted(by_ending.items(), key=lambda item: (-len(item[1]), item[0]))
    return {ending: {"files": len(paths), "examples": paths[:_MAX_EXAMPLES]} for ending, paths in ranked}


def check_holds_rows(folder: str, contents: FolderContents, file_format: str, source: str) -> None:
    """Raise `DataError` for a folder without rows; `source` names it in the message."""
    if contents.format is not None:
        return
    endings = ", ".join(
        f"{n['files']} with {ending}" for ending, n in list(count_endings(contents.left_out).items())[:3]
    )
    if file_format in ROW_ENDINGS:
        raise DataError(
            f"{source} holds no {_ROW_FILES[file_format]} file ({endings or 'no file at all'})",
            f"put the files at {_below(folder, 'CLASS', f'NAME{ROW_ENDINGS[file_format][0]}')}",
        )
    raise DataError(
        f"{source} is a folder without rows that raymill reads ({endings or 'no file at all'})",
        f"name a folder of {KNOWN_ENDINGS} files, or one with a subfolder of .txt or .png files for each class; texts "
        "with another extension, such as .md, must be renamed to .txt",
    )


def _ending(file: FolderFile) -> str:
    path = PurePosixPath(file.relative)
    if file.relative.endswith("/"):
        return "hidden folders"
    if not file.size and file_format_of(Path(path.name)):
        return f"{path.suffix.lower()} (empty)"
    return path.suffix.lower() or ("hidden files" if path.name.startswith(".") else "no extension")


def _table_format(file: FolderFile, chosen: str | None, file_format: str) -> str | None:
    """Return the format of a file of tables, or None. A file without extension has the format that the spec names."""
    names = file.relative.split("/")
    if any(name.startswith(("_", ".")) for name in names):
        return None
    own = file_format_of(Path(names[-1]))
    if own is None and file_format != "auto" and not PurePosixPath(names[-1]).suffix:
        return chosen
    return own


def _detect_format(folder: str, files: list[FolderFile], *, classes: bool) -> str | None:
    """Return the format of the rows. Raises `DataError` if there are several."""
    tables, rows = _find_tables(files), _find_rows(files, classes=classes)
    if any("=" in part for file in tables for part in file.relative.split("/")[:-1]):
        rows = {}
    if len(rows) > 1:
        raise _ambiguous_error(
            folder, f"both texts and images, for example {rows['text'].path} and {rows['images'].path}"
        )
    inner_tables = [file for file in tables if "/" in file.relative or not classes]
    if "text" in rows and inner_tables:
        raise _ambiguous_error(
            folder, f"both texts and tables, for example {rows['text'].path} and {inner_tables[0].path}"
        )
    kinds = Counter(tables.values())
    if len(kinds) > 1 and not rows:
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        raise _ambiguous_error(folder, f"tables of several formats: {counts}")
    return next(iter(rows or kinds), None)


def _find_tables(files: list[FolderFile]) -> dict[FolderFile, str]:
    """Return the format of each table. A .json file beside other tables describes them."""
    formats = {file: _table_format(file, None, "auto") for file in files if file.size}
    tables = {file: kind for file, kind in formats.items() if kind}
    others = {file: kind for file, kind in tables.items() if not file.relative.lower().endswith(".json")}
    return others or tables


def _find_rows(files: list[FolderFile], *, classes: bool) -> dict[str, FolderFile]:
    """Return the first file of each format of rows: in subfolders, and for predictions also images in the folder."""
    rows: dict[str, FolderFile] = {}
    for file in files:
        for row_format in ROW_ENDINGS:
            counts = "/" in file.relative or (row_format == "images" and not classes)
            if counts and is_row(file.relative, row_format):
                rows.setdefault(row_format, file)
    return rows


def _ambiguous_error(folder: str, problem: str) -> DataError:
    return DataError(
        f"{folder} holds {problem}",
        "set `data.format` to the format of the rows (text, images, parquet, csv ...), or name its files by a pattern",
    )


def _check_table_folder(folder: str, files: list[FolderFile], used: set[FolderFile]) -> None:
    """Raise `DataError` for a table of another system, and for files of several parts: test rows are no training rows."""
    for file in files if used else []:
        system = next((_TABLE_SYSTEMS[name] for name in file.relative.split("/") if name in _TABLE_SYSTEMS), None)
        if system:
            raise DataError(
                f"{folder} is a {system} table, whose files may hold rows that were deleted",
                f"write its current rows to parquet files with {system}'s own reader, and name those",
            )
    first_of_part: dict[str, str] = {}
    for file in files:
        part = _part_of_file(file.relative) if file in used else None
        if part:
            first_of_part.setdefault(part, file.relative)
    if len(first_of_part) > 1 and "train" in first_of_part:
        shown = " and ".join(list(first_of_part.values())[:3])
        raise DataError(
            f"{folder} holds rows of several parts by their names: {shown}",
            f"name the files of each part, for example {_below(folder, '*train*')}",
        )


def _below(folder: str, *names: str) -> str:
    return "/".join([without_options(folder).rstrip("/"), *names])


def _part_of_file(relative: str) -> str | None:
    *folders, name = relative.split("/")
    of_folder = next((part_of_name(folder) for folder in folders if len(words_of_name(folder)) == 1), None)
    return of_folder or part_of_name(name)
