"""List the runs under a storage folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cluster.paths import expand_home
from raymill.session import STORAGE, storage_folder

if TYPE_CHECKING:
    from trainer.registry.registry import Version
    from trainer.runs.run_summary import RunSummary

#: What `kind` may be.
KINDS = ("run", "train", "tune", "prepare", "data", "evaluate", "predict", "serve", "all")


def runs(
    *,
    storage: str | Path = STORAGE,
    name: str | None = None,
    kind: str | None = None,
    sort: Literal["time", "metric"] = "time",
    html: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Return the runs under `storage`, each as a dict; `html` also writes them as a page to that file.

    `kind` is run, train, tune, prepare, data, evaluate, predict, serve or all; by default, runs that train or search
    are listed. `name` selects the runs of specs with this name. They are sorted by `time`, oldest first, or by `metric`:
    the best first, and runs with different metrics apart.

    Keys: `run`, `name` (of its spec), `kind`, `folder`, `state` (running, finished, failed, interrupted, damaged or
    ended), `started` (UTC), `seconds`, `metric`, `value` and `part` (the main metric, and the part of the data it was
    computed on), `metrics` by part, `stages` (seconds by stage), `model` and `version` if it is registered, `aliases`,
    `champion`, `error`, `problem` (what is wrong with a damaged folder) and `can_resume`.
    """
    from cluster.errors import SpecError, suggest
    from trainer.runs.folder import TRAINING_KINDS, list_runs
    from trainer.runs.run_summary import summarize_run

    root = storage_folder(storage)
    if kind not in (None, *KINDS):
        raise SpecError(f"there is no kind of run {kind!r}", suggest(str(kind), KINDS))
    kinds = TRAINING_KINDS if kind is None else None if kind == "all" else (kind,)
    summaries = [summarize_run(folder) for folder in list_runs(root, kinds)]
    if name is not None:
        summaries = [summary for summary in summaries if summary.spec_name == name]
    if sort == "metric":
        summaries.sort(key=_metric_rank)
    versions = versions_by_run(root)
    listed = [describe_run(summary, versions) for summary in summaries]
    if html is not None:
        from trainer.report.runs_page import write_runs_page

        write_runs_page(expand_home(html).absolute(), listed, title=f"Runs in {root}", newest_first=sort == "time")
    return listed


def _metric_rank(summary: RunSummary) -> tuple[bool, str, float]:
    from trainer.spec.evaluate import LOWER_IS_BETTER

    if summary.value is None:
        return True, summary.metric, 0.0
    return False, summary.metric, summary.value if summary.metric in LOWER_IS_BETTER else -summary.value


class RegisteredRun(NamedTuple):
    """The version that a run registered, and the aliases that point to it."""

    version: Version
    aliases: list[str]


def versions_by_run(storage: Path) -> dict[str, RegisteredRun]:
    """Return the version that each run registered, by the run's name. A version without a readable lineage is left out."""
    from cluster.errors import ModelError
    from trainer.registry.registry import Registry

    registry = Registry(storage)
    registered: dict[str, RegisteredRun] = {}
    for name in registry.names():
        aliases: dict[str, int] = {}
        with contextlib.suppress(ModelError):
            aliases = registry.aliases(name)
        with contextlib.suppress(ModelError):  # the model has no version
            for version in registry.versions(name):
                with contextlib.suppress(ModelError):
                    own = [alias for alias, number in aliases.items() if number == version.number]
                    registered[Path(str(version.lineage.get("run", ""))).name] = RegisteredRun(version, own)
    return registered


def describe_run(summary: RunSummary, versions: Mapping[str, RegisteredRun]) -> dict[str, Any]:
    """Return a run as a dict with the keys that `runs` lists."""
    from trainer.registry.registry import DEFAULT_ALIAS

    registered = versions.get(summary.name)
    return {
        "run": summary.name,
        "name": summary.spec_name,
        "kind": summary.kind,
        "folder": str(summary.folder),
        "state": summary.state,
        "started": summary.started,
        "seconds": summary.seconds,
        "metric": summary.metric,
        "value": summary.value,
        "part": summary.part,
        "metrics": summary.metrics,
        "stages": summary.stages,
        "model": registered.version.name if registered else None,
        "version": registered.version.number if registered else None,
        "aliases": registered.aliases if registered else [],
        "champion": bool(registered and DEFAULT_ALIAS in registered.aliases),
        "error": summary.error,
        "problem": summary.problem,
        "can_resume": summary.can_resume,
    }
