"""Hugging Face datasets: a folder that `save_to_disk` wrote, or `hf://name[:config][#split]` on the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cluster.errors import DataError, UserError, first_line
from cluster.files import read_json
from trainer.data.arrow import BINARY_BLOCK_ROWS, holds_bytes
from trainer.data.sources.snapshot import require_snapshot_folder, write_snapshot

#: Lists the splits of a saved DatasetDict.
SPLITS_FILE = "dataset_dict.json"
_PREFIX = "hf://"
_NAME = re.compile(r"hf://(?P<name>[^:#]+)(?::(?P<config>[^#]+))?(?:#(?P<split>.+))?")
_REACH_S = 10.0
_BATCH_ROWS = 16_384
_NETWORK_ERRORS = (
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "ConnectionError",
    "OfflineModeIsEnabled",
    "ProxyError",
)


def is_hub_name(source: str) -> bool:
    """Whether `source` is an hf:// name."""
    return source.startswith(_PREFIX)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / SPLITS_FILE).is_file() or (folder / "state.json").is_file()


def list_saved_files(folder: Path, part: str) -> list[Path]:
    """Return the Arrow files of a saved dataset, in its order; for a saved DatasetDict, those of the split `part`.

    Raises `DataError` if the split or a file is missing.
    """
    try:
        if (folder / SPLITS_FILE).is_file():
            splits = read_json(folder / SPLITS_FILE)["splits"]
            if part not in splits:
                raise DataError(
                    f"data.{part}={str(folder)!r} is a saved dataset without a split '{part}' "
                    f"(it has: {', '.join(splits)})",
                    f"name one of its splits: {folder / splits[0] if splits else folder}",
                )
            folder = folder / part
        names = [file["filename"] for file in read_json(folder / "state.json")["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder} is not a complete saved dataset: {error}", "save it again with save_to_disk"
        ) from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise DataError(
            f"{folder} is a saved dataset that lacks {missing[0] if missing else 'its rows'}",
            "copy or save the whole folder again",
        )
    return [folder / name for name in names]


def check_hub_name(name: str, part: str) -> None:
    """Raise `DataError` for an hf:// name that is malformed or may hold a password. Does not connect to the hub."""
    _parse_hub_name(name, part)


def snapshot_hub_dataset(hub_name: str, part: str, snapshots: Path | None) -> Path:
    """Load `hf://name[:config][#split]` with `datasets` and return the file that its rows were written to.

    The split is `part` if the name has no `#split`. Raises `DataError` if the hub cannot be reached or does not have
    the dataset.
    """
    match = _parse_hub_name(hub_name, part)
    name, config, split = match["name"], match["config"], match["split"] or part
    folder = require_snapshot_folder(snapshots, hub_name)
    try:
        rows = _load_dataset(name, config, split)
        schema = rows.features.arrow_schema
        has_bytes = any(holds_bytes(field.type) for field in schema)
        tables = rows.with_format("arrow").iter(batch_size=BINARY_BLOCK_ROWS if has_bytes else _BATCH_ROWS)
        batches = (batch for table in tables for batch in table.cast(schema).to_batches())
        return write_snapshot(batches, schema, folder, "hub")
    except UserError:
        raise
    except Exception as error:  # the errors of `datasets` and the libraries it uses have no common class
        raise _hub_error(hub_name, part, error) from error


def _parse_hub_name(hub_name: str, part: str) -> re.Match[str]:
    match = _NAME.fullmatch(hub_name)
    if "@" in hub_name and not (match and Path(match["name"]).exists()):  # not shown: it may be a secret
        raise DataError(
            f"data.{part} has an @ in its hf:// name; logins and revisions are not supported there",
            "write hf://NAME, hf://NAME:CONFIG or hf://NAME#SPLIT, and log in with `hf auth login` or HF_TOKEN",
        )
    if match is None:
        raise DataError(
            f"data.{part}={hub_name!r} is not a valid name on the hub",
            "write hf://NAME, hf://NAME:CONFIG or hf://NAME#SPLIT",
        )
    return match


def _load_dataset(name: str, config: str | None, split: str) -> Any:
    import datasets
    import datasets.config

    if not Path(name).exists() and not datasets.config.HF_HUB_OFFLINE:
        # This call fails within seconds if the hub does not answer; `datasets` alone tries six times, over 20 s.
        import huggingface_hub

        huggingface_hub.HfApi().dataset_info(name, timeout=_REACH_S)
    were_disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, config, split=split)
    finally:
        if not were_disabled:
            datasets.enable_progress_bars()


def _hub_error(hub_name: str, part: str, error: Exception) -> DataError:
    """Return the error to show for an error of `datasets`."""
    message = first_line(error)
    kind = type(error).__name__
    source = f"data.{part}={hub_name!r}"
    if kind in ("RepositoryNotFoundError", "GatedRepoError", "DatasetNotFoundError"):
        return DataError(
            f"{source}: the hub does not have this dataset, or you have no access to it",
            "correct the name, or log in with `hf auth login`",
        )
    if "split" in message.lower():
        return DataError(f"{source}: {message}", "name the split: hf://NAME#SPLIT")
    if kind in _NETWORK_ERRORS:
        return DataError(
            f"{source}: the hub cannot be reached, and the local copy is not complete",
            "check the network and HF_HUB_OFFLINE, or name a folder or files instead; "
            "set HF_HUB_OFFLINE=1 to use an earlier download",
        )
    return DataError(f"{source} cannot be loaded: {kind}: {message}", "check its name, configuration and split")
