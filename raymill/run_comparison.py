"""Compare runs: their metrics, specs, rows and environments side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from cluster.paths import expand_home
from raymill.run_details import RunDetails, prepared_folder, read_details
from raymill.run_listing import describe_run, versions_by_run
from raymill.session import STORAGE, storage_folder

_PARTS = ("test", "validation")


def compare_runs(
    runs: Iterable[str | Path], *, storage: str | Path = STORAGE, html: str | Path | None = None
) -> dict[str, Any]:
    """Compare two or more runs; `html` also writes a page, with their curves, to that file.

    Each of `runs` is a name, the beginning of one name, a folder's path or `last`. All lists in the result are in this
    order, and have None where a run has no value.

    Keys: `runs` (as in `raymill.runs`), `metric` (the main one, of the first run), `metrics` (by part and name: `values`,
    and `best`, the indexes of the best runs; empty if the runs cannot be compared), `rows` (by part: `same`, which is
    True, False, or None if a run's rows are gone, and `digests`, as far as they were needed), `prepared` (folders of
    prepared rows), `fingerprints` of the contracts, `spec` (the keys that differ), `environment` (what differs: Python,
    system, git revision, hardware, versions of packages), `stages` (seconds) and `notes`: sentences about what cannot be
    compared.

    Raises `SpecError` for an unknown run, and `UserError` for fewer than two runs.
    """
    from cluster.errors import UserError
    from trainer.runs.folder import find_run
    from trainer.spec.differences import differing_keys

    root = storage_folder(storage)
    run_folders = list(dict.fromkeys(find_run(str(run), root) for run in runs))
    if len(run_folders) < 2:
        raise UserError(
            f"a comparison needs two different runs or more, and {len(run_folders)} is given",
            "name more runs; `raymill runs` lists them",
        )
    versions = versions_by_run(root)
    details = [read_details(folder, versions) for folder in run_folders]
    folders = [prepared_folder(folder) for folder in run_folders]
    rows = _compare_rows(details, folders)
    comparison: dict[str, Any] = {
        "runs": [describe_run(one.summary, versions) for one in details],
        "metric": details[0].summary.metric,
        "metrics": _compare_metrics(details, rows),
        "rows": rows,
        "prepared": [folder and str(folder) for folder in folders],
        "fingerprints": [_fingerprint(one, folder) for one, folder in zip(details, folders, strict=True)],
        "spec": differing_keys([one.spec for one in details]),
        "environment": _compare_environments(details),
        "stages": _align([one.summary.stages for one in details]),
    }
    comparison["notes"] = _list_notes(details, comparison)
    if html is not None:
        from trainer.report.comparison_page import write_comparison_page

        path = expand_home(html).absolute()
        write_comparison_page(path, comparison, [one.curves_folder for one in details])
    return comparison


def _align(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return one list per name, with a value per run."""
    names = dict.fromkeys(name for mapping in values for name in mapping)
    return {name: [mapping.get(name) for mapping in values] for name in names}


def _differing(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: row for name, row in _align(values).items() if any(value != row[0] for value in row[1:])}


def _compare_metrics(details: list[RunDetails], rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    same_meaning = len(set(_metrics_versions(details))) == 1
    compared = {}
    for part in _PARTS:
        by_name = _align([one.summary.metrics.get(part, {}) for one in details])
        if by_name:
            comparable = same_meaning and rows[part]["same"] is not False
            compared[part] = {
                name: {"values": values, "best": _best(name, values) if comparable else []}
                for name, values in by_name.items()
            }
    return compared


def _metrics_versions(details: list[RunDetails]) -> list[int]:
    """Return `METRICS_VERSION` of each run's time."""
    from trainer.runs.environment import ENVIRONMENT_FILE
    from trainer.runs.run_summary import read_mapping

    return [read_mapping(one.summary.folder / ENVIRONMENT_FILE)[0].get("metrics_version", 1) for one in details]


def _best(metric: str, values: list[float | None]) -> list[int]:
    """Return the indexes of the best values; empty if all are equal or nothing says which direction is better."""
    from trainer.spec.evaluate import LOWER_IS_BETTER, Metric

    known = [value for value in values if value is not None]
    if metric not in get_args(Metric) or len(set(known)) < 2:
        return []
    best = min(known) if metric in LOWER_IS_BETTER else max(known)
    return [index for index, value in enumerate(values) if value == best]


def _compare_rows(details: list[RunDetails], folders: list[Path | None]) -> dict[str, Any]:
    """Return the digests of the rows that the runs were evaluated on, by part, and whether they are the same.

    Rows are read only if the runs have different prepared folders: a folder's name is a digest of what is in it.
    """
    compared = {}
    for part in _PARTS:
        evaluated = [index for index, one in enumerate(details) if part in one.summary.metrics]
        used = {folder and folder.name for folder in (folders[index] for index in evaluated)}
        digests = [_registered_digest(one) if part == "test" else None for one in details]
        if len(used) == 1 and None not in used:
            compared[part] = {"digests": digests, "same": True}
            continue
        read = {folder: _read_digest(folder, part) for folder in dict.fromkeys(folders) if folder}
        digests = [
            digest or (read.get(folder) if folder else None) for digest, folder in zip(digests, folders, strict=True)
        ]
        known = {digests[index] for index in evaluated}
        same = False if len(known - {None}) > 1 else True if known and None not in known else None
        compared[part] = {"digests": digests, "same": same}
    return compared


def _registered_digest(details: RunDetails) -> str | None:
    """Return the digest of the test rows that a registered run was evaluated on."""
    registered = details.registered.get(details.summary.name)
    return (registered and registered.version.lineage.get("held_out_digest")) or None


def _read_digest(folder: Path, part: str) -> str | None:
    from cluster.errors import UserError
    from trainer.data.prepared import Prepared
    from trainer.inference.held_out import load_held_out

    try:
        return load_held_out(Prepared(folder), part).digest
    except (UserError, OSError, ValueError, KeyError):
        return None


def _fingerprint(details: RunDetails, folder: Path | None) -> str | None:
    """Return the fingerprint of the contract that the run's rows were prepared by; None if it is unknown."""
    fingerprint = details.summary.result.get("fingerprint")
    # An unfinished run has no result, but a prepared folder's name begins with the fingerprint's first 16 digits.
    return str(fingerprint) if fingerprint else folder.name.partition("-")[0] if folder else None


def _compare_environments(details: list[RunDetails]) -> dict[str, list[Any]]:
    from trainer.runs.environment import ENVIRONMENT_FILE, HARDWARE_FILE
    from trainer.runs.run_summary import read_mapping

    general, packages = [], []
    for one in details:
        environment, _ = read_mapping(one.summary.folder / ENVIRONMENT_FILE)
        hardware, _ = read_mapping(one.curves_folder / HARDWARE_FILE)
        own = {name: environment.get(name) for name in ("python", "system", "git")}
        general.append({**own, **{name: value for name, value in hardware.items() if name != "memory_bytes"}})
        listed = environment.get("packages")
        packages.append(listed if isinstance(listed, dict) else {})
    return {**_differing(general), **_differing(packages)}


def _list_notes(details: list[RunDetails], comparison: dict[str, Any]) -> list[str]:
    notes = []
    for part in comparison["metrics"]:
        same = comparison["rows"][part]["same"]
        if same is False:
            notes.append(
                f"The {part} rows of these runs are different, so their {part} metrics cannot be compared: no best value "
                "is marked."
            )
        elif same is None:
            notes.append(
                f"The {part} rows of at least one run are gone, so nothing shows that the {part} metrics were computed on "
                "the same rows."
            )
    versions = _metrics_versions(details)
    earlier = [one.summary.name for one, version in zip(details, versions, strict=True) if version < max(versions)]
    if earlier:
        notes.append(
            "An earlier raymill, whose macro averages covered other classes, evaluated these runs, so their metrics "
            f"cannot be compared with the others, and no best value is marked: {', '.join(earlier)}."
        )
    metrics = list(dict.fromkeys(one.summary.metric for one in details if one.summary.metric))
    if len(metrics) > 1:
        notes.append(f"The runs have different main metrics: {', '.join(metrics)}.")
    unfinished = [one.summary.name for one in details if one.summary.state in ("running", "failed", "interrupted")]
    if unfinished:
        notes.append(f"Not finished, so any metrics are those of the best epoch so far: {', '.join(unfinished)}.")
    notes += [f"{one.summary.name}: {one.summary.problem}." for one in details if one.summary.problem]
    return notes
