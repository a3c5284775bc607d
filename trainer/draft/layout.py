"""Which files hold the training rows, and which of their siblings hold validation and test rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cluster.errors import DataError
from cluster.files import read_json
from trainer.data.parts import PARTS
from trainer.data.sources.folder_contents import check_holds_rows, detect_folder_format, read_folder
from trainer.data.sources.hub import SPLITS_FILE, is_hub_name, is_saved_dataset
from trainer.data.sources.local_pattern import is_pattern
from trainer.data.sources.part_names import family_of_name, part_of_name, words_of_name
from trainer.data.sources.remote import is_remote
from trainer.data.sources.row_folder import ROW_ENDINGS
from trainer.data.sources.source_file import file_format_of

# With more files, the spec names their folder.
_MANY_FILES = 10


class DataLayout(NamedTuple):
    """The sources of each part, as paths, globs or addresses; `train` always has one."""

    sources: dict[str, list[str]]
    assumed: list[str]
    """Sentences about siblings that are used."""


def find_layout(data: Sequence[str], file_format: str = "auto") -> DataLayout:
    """Return the sources of the parts: files, globs, addresses, or one folder, with rows in `file_format`.

    Raises `DataError` if a path does not exist, or holds no rows that raymill reads.
    """
    for path in data:
        if is_hub_name(path):
            raise DataError(
                f"{path} is a dataset of the hub, and init looks only at files",
                "save a part of it as parquet, run init on that file, and set `data.train` to the name on the hub",
            )
    if len(data) > 1:
        return _layout_of_files(data)
    path = data[0]
    if is_remote(path) or is_pattern(path):
        return DataLayout({"train": [path]}, [])
    if not Path(path).exists():
        raise DataError(f"{path}: there is no such file or folder", "correct the path; it is relative to this folder")
    if Path(path).is_dir():
        return _layout_of_folder(Path(path))
    if file_format == "auto" and Path(path).suffix.lower() == ".txt":
        raise _no_labels_error(Path(path))
    return _layout_of_file(Path(path))


def _no_labels_error(path: Path) -> DataError:
    return DataError(
        f"{path} is plain text without labels, so it shows nothing to predict",
        "every task learns from examples with an answer: write a csv, jsonl or parquet file with a column for the text "
        "and one for its label, or a folder with a subfolder of .txt files for each class; a language model can learn one "
        ".txt file; if the file is a table, say so with --format csv or tsv",
    )


def _layout_of_files(paths: Sequence[str]) -> DataLayout:
    parts = [part_of_name(Path(path).name) for path in paths]
    if set(parts) - {None, "train"} and "train" in parts and None not in parts:
        sources = {part: [path for path, own in zip(paths, parts, strict=True) if own == part] for part in PARTS}
        sources = {part: files for part, files in sources.items() if files}
        return DataLayout(sources, ["Each file holds the part (train, validation, test) that its name says."])
    return DataLayout({"train": list(paths)}, [f"All {len(paths)} files hold training rows."])


def _layout_of_file(path: Path) -> DataLayout:
    if part_of_name(path.name) != "train":
        return DataLayout({"train": [str(path)]}, [])
    siblings: dict[str, list[str]] = {"train": [str(path)]}
    for other in sorted(path.parent.iterdir()):
        part = part_of_name(other.name)
        is_sibling = (
            other.is_file() and other.suffix == path.suffix and family_of_name(other.name) == family_of_name(path.name)
        )
        if is_sibling and part in ("validation", "test"):
            siblings.setdefault(part, []).append(str(other))
    return DataLayout(siblings, _sibling_sentences(siblings))


def _layout_of_folder(folder: Path) -> DataLayout:
    if is_saved_dataset(folder):
        splits = read_json(folder / SPLITS_FILE)["splits"] if (folder / SPLITS_FILE).is_file() else ["train"]
        return DataLayout({part: [str(folder)] for part in PARTS if part in ("train", *splits)}, [])
    part_folders: dict[str, list[str]] = {}
    for child in sorted(folder.iterdir()):
        part = part_of_name(child.name) if child.is_dir() and len(words_of_name(child.name)) == 1 else None
        if part and _holds_rows(child):
            part_folders.setdefault(part, []).extend(_tables_in(child) or [str(child)])
    if "train" in part_folders:
        return DataLayout(part_folders, _sibling_sentences(part_folders))
    inner = [child for child in sorted(folder.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    is_partition = len(inner) == 1 and "=" in inner[0].name
    if len(inner) == 1 and not is_partition and not _tables_in(folder) and _holds_rows(inner[0]):
        return _layout_of_folder(inner[0])  # one class alone is no data set
    row_format = detect_folder_format(str(folder))
    if row_format in ROW_ENDINGS or (row_format and not _tables_in(folder)):
        return DataLayout({"train": [str(folder)]}, [])
    return _layout_of_tables(folder)


def _holds_rows(folder: Path) -> bool:
    return bool(_tables_in(folder)) or detect_folder_format(str(folder)) is not None


def _tables_in(folder: Path) -> list[str]:
    """Return the tables in the folder itself. A .json file beside other tables describes them."""
    names = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "_"))]
    paths = [path for path in names if path.is_file() and file_format_of(path)]
    others = [path for path in paths if path.suffix.lower() != ".json"]
    return [str(path) for path in others or paths]


def _layout_of_tables(folder: Path) -> DataLayout:
    families: dict[tuple[str, ...], list[str]] = {}
    for path in _tables_in(folder):
        families.setdefault(family_of_name(Path(path).name), []).append(path)
    texts = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in ROW_ENDINGS["text"]]
    if not families and texts:
        raise _no_labels_error(texts[0])
    if not families:
        check_holds_rows(str(folder), read_folder(str(folder)), "auto", str(folder))
    if len(families) > 1:
        paths = [path for family in families.values() for path in family]
        example = next((path for path in paths if part_of_name(Path(path).name) == "train"), paths[0])
        shown = "; ".join(", ".join(Path(path).name for path in paths[:4]) for paths in list(families.values())[:5])
        raise DataError(
            f"{folder} holds several data sets: {shown}",
            f"name the file to learn from, for example {example}",
        )
    (paths,) = families.values()
    if len(paths) > _MANY_FILES and not any(part_of_name(Path(path).name) for path in paths):
        return DataLayout({"train": [str(folder)]}, [f"All {len(paths)} files in {folder} hold training rows."])
    return _layout_of_files(paths) if len(paths) > 1 else _layout_of_file(Path(paths[0]))


def _sibling_sentences(sources: dict[str, list[str]]) -> list[str]:
    return [
        f"{', '.join(Path(path).name for path in paths)} beside the training rows holds the {part} rows, by its name."
        for part, paths in sources.items()
        if part != "train"
    ]
