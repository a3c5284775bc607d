"""Raw files to a prepared folder, made once and found again.

One pass reads, checks, cleans and tokenizes block by block; then all rows are judged together from small sheets of facts,
the contract is fitted, and the index says which rows are used, and for what.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import DataError, ResourceError
from cluster.files import OWNER, new_folder, no_room, sha256_of, sign, sweep, write_json
from trainer import steps, tasks
from trainer.contract import PREPARATION_VERSION, Contract
from trainer.data import index, passes, read, sources
from trainer.data.blocks import BAD, FACTS, FEATURE, GROUP, TIME, BlockMaker, BlockNote, make_folders, reading
from trainer.data.fitted_features import fit_features
from trainer.data.late import encode_shards
from trainer.data.passes import OnProgress
from trainer.data.prepared import COLUMNS, INDEX, QUARANTINE, SUMMARY, Prepared
from trainer.data.read import Reading
from trainer.data.sources import SourceFile
from trainer.data.split import PARTS, TRAIN
from trainer.data.whole import Whole
from trainer.spec import RunSpec
from trainer.spec_data import ALLOWED, Split
from trainer.tasks import own
from trainer.tasks.base import Task

#: Raise it when prepared folders get another layout.
_LAYOUT_VERSION = 4
# Up to here this process alone is done before Ray Data has started its workers.
_SMALL_BYTES = 12 << 20


def find(spec: RunSpec, files: list[SourceFile] | None = None) -> Prepared | None:
    """Return the prepared rows of `spec` if they are on storage; needs no Ray. Raises `DataError` for missing files.

    `files` are its source files where they are known already.
    """
    with _staged(spec, files) as staged:
        return Prepared(staged.there) if staged.there else None


def is_small(spec: RunSpec, files: list[SourceFile]) -> bool:
    """Whether the rows of `files` are few enough to be prepared in this process, without Ray."""
    return passes.size_of(files, names_files=bool(tasks.get(spec.task).binary)) <= _SMALL_BYTES


def prepare(
    spec: RunSpec,
    on_progress: OnProgress,
    quarantine_to: Path,
    *,
    files: list[SourceFile] | None = None,
    with_ray: bool | None = None,
) -> Prepared:
    """Return the prepared rows of `spec`, making them if they are not on storage yet.

    Many rows are made with Ray Data (Ray must be connected), few in this process; `with_ray` decides for one of the two.
    Rows that cannot be used are written to `quarantine_to` too. `files` are the source files where they are known
    already. Raises `DataError` when the files, the columns or too many rows are wrong.
    """
    with _staged(spec, files) as staged:
        if staged.there:
            _copy_quarantine(staged.there / QUARANTINE, quarantine_to)
            return Prepared(staged.there)
        make_folders(staged.folder)
        maker = BlockMaker(spec.data, staged.unfitted, staged.folder, [file.part for file in staged.files])
        use_ray = not is_small(spec, staged.files) if with_ray is None else with_ray
        make = passes.with_ray if use_ray else passes.here
        notes = make(maker, staged.files, reading_of(spec, staged.unfitted), on_progress)
        try:
            fitted = _fitted(spec, staged, notes, quarantine_to)
            contract = _finish(spec, staged, notes, fitted, quarantine_to, use_ray)
        except OSError as error:
            raise no_room(staged.folder, error) from error
        final = _root(spec) / f"{contract.fingerprint[:16]}-{staged.key}"
        # If another run made the same folder meanwhile: same key, same content.
        with contextlib.suppress(FileExistsError), new_folder(final) as beside:
            for path in [path for path in staged.folder.iterdir() if path.name != OWNER]:
                path.rename(beside / path.name)
    return Prepared(final)


def source_files(spec: RunSpec) -> list[SourceFile]:
    """Return all files of the spec's data; raises `DataError` for the first that is not there.

    A database query and a dataset of the hub are read here, into a file under the storage folder.
    """
    snapshots = Path(spec.storage) / "snapshots"
    files: list[SourceFile] = []
    for part, given in _given(spec):
        files += sources.find(given, part, spec.data.format, first_index=len(files), snapshots=snapshots)
    sources.refuse_twice(files)
    return files


def must_be_there(spec: RunSpec) -> None:
    """Raise `DataError` for the first file of the spec's data that is not there, and for a secret in the spec.

    Queries and hub datasets are not read.
    """
    for part, given in _given(spec):
        sources.check(given, part)
        if not sources.is_fetched(given):
            sources.find(given, part, spec.data.format)


def is_fetched(spec: RunSpec) -> bool:
    """Whether some rows of `spec` come from a database or the hub, so that naming its files takes a while."""
    return any(sources.is_fetched(given) for _, given in _given(spec))


def _given(spec: RunSpec) -> Iterator[tuple[str, Any]]:
    yield from ((part, getattr(spec.data, part)) for part in PARTS if getattr(spec.data, part))


def reading_of(spec: RunSpec, contract: Contract) -> Reading:
    """Return all that is read of a row, and how."""
    how = spec.data.split
    extra = {} if how.column is None else {GROUP if how.by == "group" else TIME: how.column}
    columns = {**contract.columns, **extra, **{FEATURE + name: name for name in spec.data.features}}
    return reading(tasks.of(contract), columns)


def _settings(spec: RunSpec) -> dict[str, Any]:
    """Return what decides over the prepared rows beside the files and the contract."""
    data = spec.data
    return {
        "split": data.split.model_dump(mode="json"),
        "allow": sorted(data.allow),
        "labels": data.labels,
        "max_chars": data.max_chars,
        "max_bad_fraction": data.max_bad_fraction,
        "mode": data.mode,
        "features": {name: rules.model_dump(mode="json") for name, rules in data.features.items()},
        "steps": [step.model_dump(mode="json", exclude_none=True) for step in steps.of_whole(data)],
    }


def _root(spec: RunSpec) -> Path:
    return Path(spec.storage) / "prepared"


class _Staged(NamedTuple):
    """What is known before any row is read."""

    files: list[SourceFile]
    digest: str
    """Of the files' content."""
    unfitted: Contract
    folder: Path
    """Holds the contract's files; removed at the end."""
    key: str
    """Digest of all that decides what the prepared rows will be."""
    there: Path | None
    """The finished folder of an earlier run with the same key."""


@contextlib.contextmanager
def _staged(spec: RunSpec, files: list[SourceFile] | None) -> Iterator[_Staged]:
    files = source_files(spec) if files is None else files
    root = _root(spec)
    folder = root / f".staging-{uuid.uuid4().hex[:8]}"
    try:
        sweep(root)
        folder.mkdir(parents=True)
        sign(folder)
    except OSError as error:
        raise ResourceError(
            f"storage={spec.storage!r} cannot be written: {error.strerror}", "name a folder you may write to"
        ) from error
    try:
        unfitted = _begun(spec, folder)
        versions = [PREPARATION_VERSION, _LAYOUT_VERSION]
        digest = read.digest(files, reading_of(spec, unfitted))
        key = sha256_of([_settings(spec), digest, unfitted.fingerprint, versions])[:16]
        there = next((path for path in root.glob(f"*-{key}") if (path / SUMMARY).is_file()), None)
        yield _Staged(files, digest, unfitted, folder, key, there)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _begun(spec: RunSpec, folder: Path) -> Contract:
    """Return the unfitted contract, its files in `folder`."""
    task = tasks.get(spec.task)
    contract = task.begin(spec, folder)
    settings = task.target.settings(spec.data)
    contract = contract.model_copy(update={"fitted": {**settings, **contract.fitted}})
    return own.pin(contract, folder) if tasks.is_own(spec.task) else contract


def _fitted(spec: RunSpec, staged: _Staged, notes: list[BlockNote], quarantine_to: Path) -> Contract:
    """Fit the contract on the usable rows of the training files."""
    tally: Counter[str] = Counter()
    for note in notes:
        if staged.files[note.source].part == "train":
            tally.update(note.targets)
    task = tasks.get(spec.task)
    try:
        return task.fit(staged.unfitted, tally, spec.data.labels)
    except DataError:
        # Where most rows are bad, that is what the user has to hear of, and not that too little is left.
        quarantine = staged.folder / QUARANTINE
        none = [np.zeros(0, np.uint8)] * len(notes)
        index.write_quarantine(staged.folder, notes, none, staged.files, _kept(task, staged.unfitted), quarantine)
        counts = {"quarantined": index.by_reason(notes), "rows_in_all": sum(note.rows for note in notes)}
        _judge_bad_rows(counts, spec.data.max_bad_fraction, quarantine, quarantine_to)
        raise


def _finish(
    spec: RunSpec, staged: _Staged, notes: list[BlockNote], contract: Contract, quarantine_to: Path, use_ray: bool
) -> Contract:
    """Judge all rows together and write what the folder holds beside the shards; returns the contract as it is fitted."""
    folder = staged.folder
    task = tasks.get(spec.task)
    whole = Whole(folder, notes, [file.part for file in staged.files], task, contract, spec.data)
    whole.judge()
    contract = _fitted_on_training_rows(spec, staged, whole)
    verdicts = np.split(whole.verdicts, whole.starts[1:-1])
    index.write_quarantine(folder, notes, verdicts, staged.files, _kept(task, contract), folder / QUARANTINE)
    summary = index.summary(whole, index.write_index(whole, folder / INDEX))
    _judge_bad_rows(summary, spec.data.max_bad_fraction, folder / QUARANTINE, quarantine_to)
    _refuse_empty_parts(summary, spec.data.split, task)
    if spec.data.features:
        features = fit_features(whole, with_ray=use_ray)
        write_json(folder / COLUMNS, features.profile.model_dump(mode="json"))
        contract = task.with_features(contract, features.fitted)
    if task.learns_from_features:
        encode_shards(contract, folder, {note.name: staged.files[note.source].path for note in notes}, with_ray=use_ray)
    contract.save(folder)
    shutil.rmtree(folder / FACTS)
    shutil.rmtree(folder / BAD)
    shards = {f"{note.name}.arrow": int(size) for note, size in zip(notes, whole.sizes, strict=True)}
    files = [file.path.rstrip("/").rpartition("/")[2] for file in staged.files]
    write_json(folder / SUMMARY, {**summary, "sources": staged.digest, "files": files, "shards": shards})
    return contract


def _kept(task: Task, contract: Contract) -> dict[str, pa.DataType]:
    """Return the roles of a row that the quarantine shows, and their types."""
    return {role: pa.binary() if role in task.binary else pa.string() for role in contract.columns}


def _fitted_on_training_rows(spec: RunSpec, staged: _Staged, whole: Whole) -> Contract:
    """Fit and judge anew by the rows that are trained on, now that these are known; returns the contract.

    A label of which no such row is left is no label: all rows of it contradict others, or the split holds them out, and
    they become bad ones, of an unknown label. Streamed rows were counted as they are.
    """
    task = tasks.get(spec.task)
    while task.target.has_classes:
        trained = index.rows_by_class(whole)[:, TRAIN]
        if trained.all() or not trained.any():
            return whole.contract
        tally = {label: int(count) for label, count in zip(whole.groups, trained, strict=True) if count}
        whole.reset(task.fit(staged.unfitted, tally, spec.data.labels))
        whole.judge()
    if spec.data.mode == "prepared":
        whole.reset(task.fit(staged.unfitted, whole.tally(), spec.data.labels))
        whole.judge()
    return whole.contract


def _judge_bad_rows(summary: dict[str, Any], allowed: float, quarantine: Path, quarantine_to: Path) -> None:
    """Keep a copy of the quarantine in the run's folder, and stop the run where it holds too many rows."""
    _copy_quarantine(quarantine, quarantine_to)
    n_bad, n_rows = sum(summary["quarantined"].values()), summary["rows_in_all"]
    if n_bad <= allowed * n_rows:
        return
    counts = ", ".join(f"{reason}: {count}" for reason, count in summary["quarantined"].items())
    first = _first_bad(quarantine, set(summary.get("left_out", ())))
    raise TooManyBadRows(
        f"{n_bad} of {n_rows} rows cannot be used ({counts}), more than data.max_bad_fraction={allowed:g} allows; "
        f"the first is row {first['row']} of {first['path']}",
        _what_to_do(summary["quarantined"], n_rows, quarantine_to),
        summary["quarantined"],
    )


def _what_to_do(by_reason: dict[str, int], n_rows: int, listed: Path) -> str:
    reason, most = next(iter(by_reason.items()))
    if most > n_rows / 2:  # then it is hardly the rows that are wrong
        return f"most rows have the same: {reason}. Check data.format, data.columns, data.labels, data.features and data.steps; the rows are listed in {listed}"
    allowed = [name for name in by_reason if name in ALLOWED]
    allow = f", or allow it: data.allow: [{', '.join(allowed)}]" if allowed else ""
    return f"repair the rows listed in {listed}, or raise data.max_bad_fraction{allow}"


def _copy_quarantine(quarantine: Path, quarantine_to: Path) -> None:
    if quarantine.is_file():
        quarantine_to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(quarantine, quarantine_to)


def _first_bad(quarantine: Path, left_out: set[str]) -> dict[str, Any]:
    """Return the first row that is bad and not just left out by a step."""
    with pq.ParquetFile(quarantine) as file:
        for batch in file.iter_batches(columns=["path", "row", "reason"]):
            for row in batch.to_pylist():
                if row["reason"] not in left_out:
                    found: dict[str, Any] = row
                    return found
    raise AssertionError("bad rows were counted that the quarantine does not list")


class TooManyBadRows(DataError):
    """More rows are bad than the spec allows. `by_reason` counts them."""

    def __init__(self, problem: str, fix: str, by_reason: dict[str, int] | None = None) -> None:
        super().__init__(problem, fix)
        self.by_reason = by_reason or {}


def _refuse_empty_parts(summary: dict[str, Any], how: Split, task: Task) -> None:
    rows = summary["rows"]
    for part in PARTS:
        if not rows[part]:
            fix = "add rows, or check data.steps and data.split"
            if part != "train" and how.by == "time":
                fix = f"set data.split.validation_from and test_from to times that some rows reach, or give data.{part}"
            elif part != "train":
                stratify = " set data.split.stratify," if task.target.has_classes else ""
                fix = f"add rows, raise data.split.{part},{stratify} or give data.{part}"
            raise DataError(f"no row is left for {part}: there are {sum(rows.values())} usable rows in all", fix)
