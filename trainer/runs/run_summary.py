"""A run at a glance, read from its folder: what it does, how far it got, and its metrics. Damaged folders are readable."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from cluster.errors import SpecError, first_line
from cluster.files import read_json
from trainer.runs.environment import ENVIRONMENT_FILE
from trainer.runs.folder import (
    REPORT_FILE,
    RESOLVED_SPEC_FILE,
    TRAINING_KINDS,
    base_name,
    is_locked,
    run_kind,
    start_time,
)
from trainer.runs.journal import ERROR, FAILURE, HISTORY, RESULT, read_json_lines
from trainer.spec.evaluate import LOWER_IS_BETTER
from trainer.spec.renames import find_old_keys, new_key

#: `ended`: a kind of run that leaves no result, such as serve.
RunState = Literal["running", "finished", "failed", "interrupted", "damaged", "ended"]

_KINDS_WITH_RESULT = (*TRAINING_KINDS, "prepare", "data")


@dataclass(frozen=True)
class RunSummary:
    """What a run's folder says about it."""

    folder: Path
    spec_name: str
    """The `name` of its spec."""
    kind: str
    """run, train, tune, prepare, ...; empty if the folder has another name than raymill gave it."""
    state: RunState
    started: str | None
    """UTC, in ISO 8601; None if it is unknown."""
    seconds: float | None
    """The time that its stages took; of an unfinished run, from its start to the last sign of life."""
    metric: str
    """The main metric, `evaluate.metric`; empty if the spec cannot be read."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Metrics by part: test, validation. Of an unfinished run: those of its best epoch so far."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    result: Mapping[str, Any] = field(default_factory=dict)
    """The content of result.json."""
    error: str = ""
    """The error that ended the last attempt."""
    problem: str = ""
    """What is wrong with the folder."""
    can_resume: bool = False

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def part(self) -> str:
        """The part of the data that `value` was computed on: test if it is known, else validation, else empty."""
        return next((part for part in ("test", "validation") if self.metric in self.metrics.get(part, {})), "")

    @property
    def value(self) -> float | None:
        """The main metric, on `part`."""
        return self.metrics[self.part][self.metric] if self.part else None


def summarize_run(folder: Path) -> RunSummary:
    """Return the summary of the run in `folder`. What cannot be read is named in `problem`; nothing is raised."""
    kind, problems = run_kind(folder), []
    spec: Mapping[str, Any] = {}
    try:
        spec = read_plain_spec(folder / RESOLVED_SPEC_FILE)
    except SpecError as damage:
        if kind in TRAINING_KINDS or not kind:
            problems.append(damage.problem)
    result, problem = read_mapping(folder / RESULT)
    error, _ = read_mapping(folder / ERROR)
    error = error or read_mapping(folder / FAILURE)[0]
    problems += [problem] if problem else []
    old_key = next(find_old_keys(spec), None)
    if old_key:
        problems.append(f"an earlier raymill wrote it: its spec has `{old_key}`, now called `{new_key(old_key)}`")
    is_damaged = bool(problem) or (not spec and kind in TRAINING_KINDS)
    state = _state(folder, kind, has_result=bool(result), has_error=bool(error), is_damaged=is_damaged)
    metric = str(_section(spec, "evaluate").get("metric", ""))
    metrics = _metrics_by_part(result) if result else _metrics_so_far(folder, metric)
    stages = {name: float(value) for name, value in _section(result, "stages").items() if _is_number(value)}
    return RunSummary(
        folder=folder,
        spec_name=str(spec.get("name") or base_name(folder)),
        kind=kind,
        state=state,
        started=_read_start(folder),
        seconds=round(sum(stages.values()), 2) if stages else _seconds_so_far(folder, is_running=state == "running"),
        metric=metric,
        metrics=metrics,
        stages=stages,
        result=result,
        error=str(error.get("text") or error.get("problem") or "") if state == "failed" else "",
        problem="; ".join(problems),
        can_resume=state in ("failed", "interrupted") and kind in TRAINING_KINDS and not problems,
    )


def read_plain_spec(path: Path) -> dict[str, Any]:
    """Return a spec that raymill wrote, as plain values. Raises `SpecError` if the file is missing or damaged.

    It is not validated: an earlier raymill may have written it, and its task may be code that is gone.
    """
    try:
        # The parser in C is ten times as fast, and reads what raymill wrote in the same way.
        raw = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except FileNotFoundError:
        raise SpecError(f"{path.name} is missing", f"restore {path}") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise SpecError(f"{path.name} is damaged: {first_line(error)}", f"restore {path}") from error
    if not isinstance(raw, dict):
        raise SpecError(f"{path.name} is damaged: it is not a mapping of keys", f"restore {path}")
    return raw


def last_change(folder: Path) -> float:
    """Return when a file of the run was last written, in seconds since the epoch; a change of the lock does not count."""
    return max(_change_times(folder), default=0.0)


def _state(folder: Path, kind: str, *, has_result: bool, has_error: bool, is_damaged: bool) -> RunState:
    if is_locked(folder):
        return "running"
    if is_damaged:
        return "damaged"
    if has_result or (kind == "evaluate" and (folder / REPORT_FILE).is_file()):
        return "finished"
    if has_error:
        return "failed"
    return "interrupted" if kind in _KINDS_WITH_RESULT else "ended"


def read_mapping(path: Path) -> tuple[dict[str, Any], str]:
    """Return the JSON object in `path`, empty if there is no file, and what is wrong with the file."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, f"{path.name} is damaged: {error}"
    return (content, "") if isinstance(content, dict) else ({}, f"{path.name} is damaged: it is not a JSON object")


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = content.get(name)
    return section if isinstance(section, Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if _is_number(value)}


def _metrics_by_part(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    parts = _section(result, "metrics")
    return {part: _numbers(metrics) for part, metrics in parts.items() if isinstance(metrics, Mapping)}


def _metrics_so_far(folder: Path, metric: str) -> dict[str, dict[str, float]]:
    """Return the validation metrics of the best epoch in the run's history, or in the histories of its trials."""
    epochs = [_numbers(entry) for entry in _epochs(folder) if _is_number(entry.get(metric))]
    if not epochs:
        return {}
    select_best = min if metric in LOWER_IS_BETTER else max
    best = select_best(epochs, key=lambda entry: entry[metric])
    return {"validation": {name: value for name, value in best.items() if name not in ("epoch", "seconds")}}


def _epochs(folder: Path) -> Iterator[dict[str, Any]]:
    for path in [folder / HISTORY, *sorted(folder.glob(f"trials/*/{HISTORY}"))]:
        try:
            lines = read_json_lines(path)
        except (OSError, ValueError):  # not UTF-8
            continue
        yield from (line for line in lines if isinstance(line, dict))


def _read_start(folder: Path) -> str | None:
    started = start_time(folder)
    if started:
        day, clock = started.split("-")
        return f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z"
    value = read_mapping(folder / ENVIRONMENT_FILE)[0].get("started")
    return str(value) if value else None


def _seconds_so_far(folder: Path, *, is_running: bool) -> float | None:
    """Return the seconds from the start to now, or to the last change of a file."""
    try:
        started = calendar.timegm(time.strptime(_read_start(folder) or "", "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return None
    ended = time.time() if is_running else last_change(folder)
    return round(max(0.0, ended - started), 2)


def _change_times(folder: Path) -> Iterator[float]:
    for pattern in ("[!.]*", "progress/*", "checkpoints/*", "trials/*/*"):
        for path in folder.glob(pattern):
            try:
                yield path.lstat().st_mtime
            except OSError:  # deleted meanwhile
                continue
