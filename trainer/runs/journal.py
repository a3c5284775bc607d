"""The files to which a run appends its epochs, steps and notices while it works, and the file of its result."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import ResourceError
from cluster.files import append_line, write_json
from cluster.text import utc_now

#: The outcome of the command; exists only once the run is finished.
RESULT = "result.json"
#: One line per epoch.
HISTORY = "history.jsonl"
#: One line every few steps.
METRICS = "metrics.jsonl"
#: Sentences for the user, for example that a checkpoint could not be written.
NOTICES = "notices.jsonl"
#: The file with a `UserError` that a worker raised. Another attempt would raise it again, so none is made.
FAILURE = "failure.json"
#: The error that ended the last attempt; a run that was interrupted or killed has none.
ERROR = "error.json"


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the epochs written to `folder` so far."""
    return read_json_lines(folder / HISTORY)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file with one per line, up to the first broken line; empty if there is no file."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def tracked_metrics(line: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """Return the step and the metrics of a line of `METRICS`, under the names that trackers use."""
    return int(line["step"]), {f"train/{name}": value for name, value in line.items() if name != "step"}


def read_tracked_metrics(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Return the step and the metrics of every line that the run in `folder` has written, for trackers."""
    return [tracked_metrics(line) for line in read_json_lines(folder / METRICS)]


def append_notice(folder: Path, text: str) -> None:
    """Append a sentence for the user, for example that a checkpoint could not be written."""
    append_line(folder / NOTICES, json.dumps({"at": utc_now(), "text": text}, ensure_ascii=False))


def read_notices(folder: Path) -> list[str]:
    """Return the sentences of a run's notices, each once."""
    return list(dict.fromkeys(str(notice["text"]) for notice in read_json_lines(folder / NOTICES)))


def record_error(folder: Path, error: BaseException) -> None:
    """Record the error that ended the run in `folder`; an interruption is no error. `clear_error` forgets it."""
    if isinstance(error, Exception):
        with contextlib.suppress(OSError, ResourceError):  # the disk may be full: the error itself counts
            write_json(folder / ERROR, {"at": utc_now(), "kind": type(error).__name__, "text": str(error)})


def clear_error(folder: Path) -> None:
    """Forget the error of an earlier attempt: another attempt begins."""
    (folder / ERROR).unlink(missing_ok=True)
