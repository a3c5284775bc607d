"""Messages that a run prints between its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.console import Console
from trainer.data.folder import FILES_LEFT_OUT, QUARANTINE
from trainer.data.parts import PARTS, TRAIN
from trainer.data.prepared import Prepared
from trainer.defaults.facts import Choice, choice_rows
from trainer.runs.folder import run_kind
from trainer.runs.journal import NOTICES, read_json_lines
from trainer.tasks import catalog as task_catalog
from trainer.training.checkpoint.checkpoints import Checkpoints


def print_row_counts(console: Console, prepared: Prepared) -> None:
    """Print the number of rows in each part, the rows that steps left out, and the bad rows by reason."""
    rows: dict[str, int] = prepared.summary["rows"]
    bad: dict[str, int] = prepared.summary["quarantined"]
    left_out: dict[str, int] = prepared.summary["left_out"]
    labels = task_catalog.task_of_contract(prepared.contract).target.labels(prepared.contract.fitted)
    counts = ", ".join(f"{count:,} {part}" for part, count in rows.items())
    repeated = prepared.summary["repeated"]
    repetitions = f" (and {repeated:,} repeated by the step `balance`)" if repeated else ""
    console.detail(f"{counts} rows{repetitions}" + (f", {len(labels)} labels" if labels else ""))
    without_rows = describe_classes_without_rows(prepared.summary)
    if without_rows:
        console.detail(without_rows, style="yellow")
    print_files_left_out(console, prepared.summary.get(FILES_LEFT_OUT, {}))
    if left_out:
        console.table("Rows left out by your steps", ["step", "rows"], list(left_out.items()))
    if bad:
        share = sum(bad.values()) / int(prepared.summary["rows_in_all"])
        console.table(f"Bad rows, {share:.2%} of all", ["reason", "rows"], list(bad.items()))
        console.detail(f"listed in {prepared.folder / QUARANTINE}")


def print_choices(console: Console, choices: Mapping[str, Choice]) -> None:
    """Print the values that raymill chose for keys that are `auto`, with the reasons."""
    console.table("Chosen for these rows and this model", ["key", "value", "reason"], choice_rows(choices))


def describe_classes_without_rows(summary: Mapping[str, Any]) -> str:
    """Return a sentence on the classes that have no validation or test rows; "" if all have some."""
    by_class: Mapping[str, Sequence[int]] = summary["rows_by_class"]
    missing = {
        part: sum(not counts[index] for counts in by_class.values())
        for index, part in enumerate(PARTS)
        if index != TRAIN and summary["rows"][part]
    }
    counts = ", ".join(f"{count:,} in {part}" for part, count in missing.items() if count)
    return f"classes without rows: {counts} (of {len(by_class):,}); macro metrics leave them out" if counts else ""


def print_files_left_out(console: Console, left_out: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the files that hold no rows, by extension, with some of them."""
    if left_out:
        lines = [[ending, count["files"], ", ".join(count["examples"])] for ending, count in left_out.items()]
        console.table("Files left out: no rows that raymill reads", ["extension", "files", "for example"], lines)


def print_resume_hint(console: Console, folder: Path, *, is_search: bool) -> None:
    """Print the command that resumes the run in `folder`, if it has a checkpoint or trials to resume from."""
    steps = Checkpoints(folder, keep=1).steps()
    if is_search and (folder / "trials").is_dir():
        start = "with the trials so far"
    elif steps:
        start = f"from step {steps[0]}"
    else:
        return
    console.print(f"to resume {start}: raymill {run_kind(folder)} --resume {folder}", style="yellow")


class NoticePrinter:
    """Prints the notices that workers append to a run's folder, each of them once."""

    def __init__(self, console: Console, folder: Path) -> None:
        self._console, self._path = console, folder / NOTICES
        self._printed = len(read_json_lines(self._path))

    def print_new(self) -> None:
        """Print the notices since the last call."""
        try:
            notices = read_json_lines(self._path)
        except OSError:  # the storage does not answer: the next call prints them
            return
        for notice in notices[self._printed :]:
            self._console.detail(notice["text"], style="yellow")
        self._printed = max(self._printed, len(notices))  # none are read while the storage is away
