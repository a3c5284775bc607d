"""Names of the files and subfolders in a prepared folder."""

from __future__ import annotations

from pathlib import Path

#: Subfolder of the Arrow shards: the usable rows with their raw values and model inputs.
SHARDS = "shards"
#: Subfolders that exist only during preparation: the facts about usable rows (see `prepare/facts.py`) and bad rows.
FACTS, BAD = "facts", "bad"
INDEX = "index.arrow"
SUMMARY = "prepare.json"
QUARANTINE = "quarantine.parquet"
#: Key of the summary: extension -> {files, examples} of files that the spec's data names and that hold no rows.
FILES_LEFT_OUT = "files_left_out"
FEATURE_PROFILE = "columns.json"
#: The column of model inputs in a shard.
INPUTS = "inputs"


def make_subfolders(folder: Path) -> None:
    """Make the subfolders that blocks are written to."""
    for name in (SHARDS, FACTS, BAD):
        (folder / name).mkdir()
