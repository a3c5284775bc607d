"""Show one run: its metrics, where it comes from, what it left, and how to resume it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.paths import expand_home
from raymill.run_listing import RegisteredRun, describe_run, versions_by_run
from raymill.session import STORAGE, storage_folder

if TYPE_CHECKING:
    from trainer.runs.result import TrialRecord
    from trainer.runs.run_summary import RunSummary
    from tune.trial_store import TrialStore


def show_run(run: str | Path, *, storage: str | Path = STORAGE, html: str | Path | None = None) -> dict[str, Any]:
    """Return one run as a dict; `html` also writes it as a page to that file.

    `run` is a name, the beginning of one name, a folder's path or `last`. Besides the keys of `runs`, the dict has
    `lineage`, `environment` (Python, system, git revision, command), `hardware`, `chosen` (values for keys that are
    `auto`, with `value` and `reason`), `notices` (`at` and `text`), `paths`
    (report, log, checkpoints, model, trials, spec: those that exist), `resume` (the command, or None), `spec` (the keys
    that are not at their defaults), `history` (one entry per epoch; of a search, its best trial's), `trials` (best first)
    and `best_trial`. Raises `SpecError` if there is no such run.
    """
    from trainer.runs.folder import find_run

    root = storage_folder(storage)
    folder = find_run(str(run), root)
    details = read_details(folder, versions_by_run(root))
    if html is not None:
        from trainer.report.run_page import write_run_page

        write_run_page(expand_home(html).absolute(), details.as_dict(), details.trials)
    return details.as_dict()


@dataclasses.dataclass(frozen=True)
class RunDetails:
    """Everything that a run's folder says about it."""

    summary: RunSummary
    registered: Mapping[str, RegisteredRun]
    spec: Mapping[str, Any]
    """The spec with every key; empty if it cannot be read."""
    written_spec: Mapping[str, Any]
    """The spec as the user wrote it; empty if it cannot be read."""
    trials: list[TrialRecord]
    """The trials of a search, best first."""
    curves_folder: Path
    """The folder with the history and the steps of the trained model: the run's; of a search, its best trial's."""

    def as_dict(self) -> dict[str, Any]:
        """Return the keys that `show_run` lists."""
        from trainer.runs.journal import NOTICES, read_history, read_json_lines
        from trainer.spec.differences import changed_keys

        summary = self.summary
        return {
            **describe_run(summary, self.registered),
            "lineage": self._lineage(),
            "environment": _read_environment(summary.folder),
            "hardware": _read_hardware(self.curves_folder),
            "chosen": {**_read_chosen(summary.folder), **_read_chosen(self.curves_folder)},
            "notices": _readable(read_json_lines, summary.folder / NOTICES),
            "paths": _list_paths(summary),
            "resume": _resume_command(summary),
            "spec": changed_keys(self.spec, self.written_spec),
            "history": _readable(read_history, self.curves_folder),
            "trials": [_trial_fields(trial) for trial in self.trials],
            "best_trial": self.curves_folder.name if self.curves_folder != summary.folder else None,
            "curves_folder": str(self.curves_folder),
        }

    def _lineage(self) -> dict[str, Any]:
        registered = self.registered.get(self.summary.name)
        if registered:
            return {"version": registered.version.ref, **registered.version.lineage}
        lineage = {
            "prepared_folder": prepared_folder(self.summary.folder),
            "contract_fingerprint": self.summary.result.get("fingerprint"),
        }
        return {name: str(value) for name, value in lineage.items() if value}


def read_details(folder: Path, registered: Mapping[str, RegisteredRun]) -> RunDetails:
    """Return the details of the run in `folder`."""
    from trainer.runs.folder import RESOLVED_SPEC_FILE, SPEC_FILE
    from trainer.runs.run_summary import summarize_run

    summary = summarize_run(folder)
    spec, written = _read_spec(folder / RESOLVED_SPEC_FILE), _read_spec(folder / SPEC_FILE)
    trials = _read_trials(summary, spec)
    best = next((trial for trial in trials if trial.metric is not None), None)
    curves = folder / "trials" / best.name if best else folder
    return RunDetails(summary, registered, spec, written, trials, curves)


def _read_spec(path: Path) -> dict[str, Any]:
    from cluster.errors import SpecError
    from trainer.runs.run_summary import read_plain_spec

    try:
        return read_plain_spec(path)
    except SpecError:
        return {}


def prepared_folder(run: Path) -> Path | None:
    """Return the folder of prepared rows that a run used; of a search, that of its first variant; None if unknown."""
    from trainer.runs.folder import read_prepared_path

    try:
        if not (run / "trials").is_dir():
            return read_prepared_path(run)
        from tune.variants import read_variants

        return next(map(Path, read_variants(run).values()), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _readable(read: Any, path: Path) -> list[dict[str, Any]]:
    """Return the lines that `read` finds in a file; none if it is damaged."""
    try:
        return [line for line in read(path) if isinstance(line, dict)]
    except (OSError, ValueError):
        return []


def _read_environment(folder: Path) -> dict[str, Any]:
    from trainer.runs.environment import ENVIRONMENT_FILE
    from trainer.runs.run_summary import read_mapping

    environment, _ = read_mapping(folder / ENVIRONMENT_FILE)
    return {name: environment[name] for name in ("python", "system", "git", "command") if environment.get(name)}


def _read_chosen(folder: Path) -> dict[str, Any]:
    """Return the values that raymill chose for keys that are `auto`, with the reasons; empty if there are none."""
    from trainer.defaults.resolve import CHOICES_FILE
    from trainer.runs.run_summary import read_mapping

    return read_mapping(folder / CHOICES_FILE)[0]


def _read_hardware(folder: Path) -> dict[str, Any]:
    from trainer.runs.environment import HARDWARE_FILE
    from trainer.runs.run_summary import read_mapping

    return read_mapping(folder / HARDWARE_FILE)[0]


def _list_paths(summary: RunSummary) -> dict[str, str]:
    from trainer.runs.folder import RAY_LOG, REPORT_FILE, SPEC_FILE
    from trainer.training.checkpoint.checkpoints import FOLDER

    result = summary.result
    paths = {
        "report": summary.folder / Path(str(result.get("report") or REPORT_FILE)).name,  # its storage may have moved
        "log": summary.folder / RAY_LOG,
        "checkpoints": summary.folder / FOLDER,
        "model": Path(str(result["checkpoint"])) if result.get("checkpoint") else None,
        "trials": summary.folder / "trials",
        "spec": summary.folder / SPEC_FILE,
    }
    return {name: str(path) for name, path in paths.items() if path and path.exists()}


def _resume_command(summary: RunSummary) -> str | None:
    if not summary.can_resume:
        return None
    return f"raymill {summary.kind} --resume {shlex.quote(str(summary.folder))}"


def _read_trials(summary: RunSummary, spec: Mapping[str, Any]) -> list[TrialRecord]:
    """Return the trials of a search, best first. A trial whose files are damaged has an error.

    Empty if an earlier raymill wrote the run: its keys and metrics may have other names.
    """
    if not (summary.folder / "trials").is_dir():
        return []
    from pydantic import ValidationError

    from trainer.report.search_sections import sort_trials
    from trainer.spec.run import RunSpec
    from tune.trial_store import TrialStore

    try:
        store = TrialStore(summary.folder, RunSpec.model_validate(spec))
    except ValidationError:
        return []
    trials = [_read_trial(store, name) for name in store.all_names()]
    if summary.state != "running":
        trials = [dataclasses.replace(t, state="interrupted") if t.state == "running" else t for t in trials]
    return sort_trials(trials, summary.metric)


def _read_trial(store: TrialStore, name: str) -> TrialRecord:
    from trainer.runs.result import TrialRecord

    try:
        record: TrialRecord = store.read(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return TrialRecord(name, {}, None, 0, 0.0, [], error=f"its files are damaged: {error}", state="damaged")
    return record


def _trial_fields(trial: TrialRecord) -> dict[str, Any]:
    fields = dataclasses.asdict(trial)
    return {("trial" if name == "name" else name): value for name, value in fields.items() if name != "history"}
