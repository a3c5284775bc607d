"""Datasets in Hugging Face's form: a folder that `save_to_disk` wrote, or hf://name[:config][#split] on the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cluster.errors import DataError, UserError
from cluster.files import read_json
from trainer.data import arrow
from trainer.data.arrow import BINARY_ROWS
from trainer.data.sources import snapshot as source_snapshot

_HUB = "hf://"


_NAME = re.compile(r"hf://(?P<name>[^:#]+)(?::(?P<config>[^#]+))?(?:#(?P<split>.+))?")


_REACH_S = 10.0


_BATCH_ROWS = 16_384


def is_hub(given: str) -> bool:
    """Whether `given` is an hf:// name."""
    return given.startswith(_HUB)


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def saved_files(folder: Path, part: str) -> list[Path]:
    """Return the Arrow files of a saved dataset in its own order; of a saved dict of them, those of the split `part`.

    Raises `DataError` if there is no such split, or a file is gone.
    """
    try:
        if (folder / "dataset_dict.json").is_file():
            splits = read_json(folder / "dataset_dict.json")["splits"]
            if part not in splits:
                raise DataError(
                    f"data.{part}={str(folder)!r} is a saved dataset without a split '{part}' (it has: {', '.join(splits)})",
                    f"name one of its splits: {folder / splits[0] if splits else folder}",
                )
            folder = folder / part
        names = [file["filename"] for file in read_json(folder / "state.json")["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is no whole saved dataset: {error}", "save it again with save_to_disk") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise DataError(
            f"{folder} is a saved dataset that lacks {missing[0] if missing else 'its rows'}",
            "copy or save it again, the whole folder",
        )
    return [folder / name for name in names]


def check(given: str, part: str) -> None:
    """Raise `DataError` for a name that is none, or may hold a password; the hub is not asked."""
    _taken_apart(given, part)


def snapshot(given: str, part: str, snapshots: Path | None) -> Path:
    """Load hf://name[:config][#split] with `datasets` and return the file its rows were written to.

    The split is `part` where none is named. Raises `DataError` if the hub cannot be reached or does not have it.
    """
    found = _taken_apart(given, part)
    name, config, split = found["name"], found["config"], found["split"] or part
    folder = source_snapshot.folder_for(snapshots, given)
    try:
        rows = _load(name, config, split)
        schema = rows.features.arrow_schema
        of_bytes = any(arrow.holds(field.type) for field in schema)
        tables = rows.with_format("arrow").iter(batch_size=BINARY_ROWS if of_bytes else _BATCH_ROWS)
        batches = (batch for table in tables for batch in table.cast(schema).to_batches())
        return source_snapshot.write(batches, schema, folder, "hub")
    except UserError:
        raise
    except Exception as error:  # what `datasets` and the libraries below it raise has no common class
        raise _refusal(given, part, error) from error


def _taken_apart(given: str, part: str) -> re.Match[str]:
    found = _NAME.fullmatch(given)
    if "@" in given and not (found and Path(found["name"]).exists()):  # not shown: it may be a secret
        raise DataError(
            f"data.{part} has an @ in its hf:// name, as only a login or a revision has; neither is taken",
            "write hf://NAME, hf://NAME:CONFIG or hf://NAME#SPLIT, and log in with `hf auth login` or HF_TOKEN",
        )
    if found is None:
        raise DataError(
            f"data.{part}={given!r} is no name on the hub", "write hf://NAME, hf://NAME:CONFIG or hf://NAME#SPLIT"
        )
    return found


def _load(name: str, config: str | None, split: str) -> Any:
    import datasets
    import datasets.config

    if not Path(name).exists() and not datasets.config.HF_HUB_OFFLINE:
        # `datasets` itself tries six times over 20 s when nobody answers.
        import huggingface_hub

        huggingface_hub.HfApi().dataset_info(name, timeout=_REACH_S)
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, config, split=split)
    finally:
        if not shown:
            datasets.enable_progress_bars()


def _refusal(given: str, part: str, error: Exception) -> DataError:
    said = (str(error).strip().splitlines() or [""])[0][:300]
    kind = type(error).__name__
    what = f"data.{part}={given!r}"
    if kind in ("RepositoryNotFoundError", "GatedRepoError", "DatasetNotFoundError"):
        return DataError(
            f"{what}: the hub has no such dataset, or it is not open to you",
            "correct the name, or log in with `hf auth login`",
        )
    if "split" in said.lower():
        return DataError(f"{what}: {said}", "name the split: hf://NAME#SPLIT")
    if kind in (
        "ConnectError",
        "ConnectTimeout",
        "ReadTimeout",
        "ConnectionError",
        "OfflineModeIsEnabled",
        "ProxyError",
    ):
        return DataError(
            f"{what}: the hub cannot be reached, and its copy here is not complete",
            "check the network and HF_HUB_OFFLINE, or name a folder or files instead; HF_HUB_OFFLINE=1 uses an earlier download",
        )
    return DataError(f"{what} cannot be loaded: {kind}: {said}", "check its name, configuration and split")
