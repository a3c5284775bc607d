"""The table of engines that `raymill optimize` prints, by how a task is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class EngineTable(NamedTuple):
    """The columns of a table, and its rows."""

    columns: list[str]
    rows: list[list[Any]]


def engine_table(choice: dict[str, Any]) -> EngineTable:
    """Return the table of a choice of `serve.engines.choose`."""
    return _TABLES[choice["service"]](choice)


def _answers_table(choice: dict[str, Any]) -> EngineTable:
    rows = [
        [engine["name"], engine["rows_per_s"] or None, engine["single_ms"] or None, engine["metric"],
         engine["largest_move"], engine["changed"], _remark(choice, engine) or engine["note"]]
        for engine in choice["candidates"]
    ]  # fmt: skip
    metric = choice["metric"] or "metric"
    return EngineTable(["engine", "rows/s", "single, ms", metric, "largest score change", "changed answers", ""], rows)


def _generation_table(choice: dict[str, Any]) -> EngineTable:
    streams = list(choice["candidates"][0]["tokens_per_s"])
    rows = [
        [engine["name"], *(engine["tokens_per_s"].get(number) for number in streams), engine["metric"],
         engine["agreement"], _remark(choice, engine).partition(":")[0]]
        for engine in choice["candidates"]
    ]  # fmt: skip
    speeds = [f"tokens/s at {number}" for number in streams]
    return EngineTable(["engine", *speeds, choice["metric"], "same best token", ""], rows)


def _remark(choice: dict[str, Any], engine: dict[str, Any]) -> str:
    return "chosen" if engine["name"] == choice["engine"] else str(engine["refused"])


_TABLES: dict[str, Callable[[dict[str, Any]], EngineTable]] = {
    "answers": _answers_table,
    "generation": _generation_table,
}
