"""TODO docstring."""

from __future__ import annotations

from pathlib import Path

SHARDS, FACTS, BAD = "shards", "facts", "bad"


#: The column of model inputs in a shard.
INPUTS = "inputs"


def make_subfolders(folder: Path) -> None:
    """Make the folders that blocks are written to."""
    for name in (SHARDS, FACTS, BAD):
        (folder / name).mkdir()


INDEX = "index.arrow"


SUMMARY = "prepare.json"


QUARANTINE = "quarantine.parquet"


FEATURE_PROFILE = "columns.json"
