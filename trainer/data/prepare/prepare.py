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

from cluster.errors import DataError, ResourceError
from cluster.files import OWNER, new_folder, no_room, sha256_of, sign, sweep, write_json
from trainer.contract.contract import PREPARATION_VERSION, Contract
from trainer.data.folder import BAD, COLUMNS, FACTS, INDEX, QUARANTINE, SUMMARY, make_folders
from trainer.data.parts import TRAIN
from trainer.data.prepare import index, passes
from trainer.data.prepare.block_maker import BlockMaker, BlockNote
from trainer.data.prepare.encode_shards import encode_shards
from trainer.data.prepare.facts import Facts
from trainer.data.prepare.fit_features import fit_features
from trainer.data.prepare.judge import RowJudge
from trainer.data.prepare.passes import OnProgress
from trainer.data.prepare.quarantine import _copy_quarantine, _judge_bad_rows, _refuse_empty_parts
from trainer.data.prepared import Prepared
from trainer.data.readers import read
from trainer.data.readers.reading import reading_of
from trainer.data.sources.of_spec import source_files
from trainer.data.sources.resolve import SourceFile
from trainer.spec.run import RunSpec
from trainer.steps import cleaner
from trainer.tasks import catalog as task_catalog
from trainer.tasks import custom
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
    return passes.size_of(files, names_files=bool(task_catalog.get(spec.task).binary)) <= _SMALL_BYTES


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
        "steps": [step.model_dump(mode="json", exclude_none=True) for step in cleaner.of_whole(data)],
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
    task = task_catalog.get(spec.task)
    contract = task.begin(spec, folder)
    settings = task.target.settings(spec.data)
    contract = contract.model_copy(update={"fitted": {**settings, **contract.fitted}})
    return custom.pin(contract, folder) if task_catalog.is_own(spec.task) else contract


def _fitted(spec: RunSpec, staged: _Staged, notes: list[BlockNote], quarantine_to: Path) -> Contract:
    """Fit the contract on the usable rows of the training files."""
    tally: Counter[str] = Counter()
    for note in notes:
        if staged.files[note.source].part == "train":
            tally.update(note.targets)
    task = task_catalog.get(spec.task)
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
    task = task_catalog.get(spec.task)
    facts = Facts(folder, notes, [file.part for file in staged.files], task, contract, spec.data)
    judge = RowJudge(facts)
    judge.run()
    contract = _fitted_on_training_rows(spec, staged, judge)
    verdicts = np.split(judge.verdicts, facts.starts[1:-1])
    index.write_quarantine(folder, notes, verdicts, staged.files, _kept(task, contract), folder / QUARANTINE)
    summary = index.summary(judge, index.write_index(judge, folder / INDEX))
    _judge_bad_rows(summary, spec.data.max_bad_fraction, folder / QUARANTINE, quarantine_to)
    _refuse_empty_parts(summary, spec.data.split, task)
    if spec.data.features:
        features = fit_features(judge, with_ray=use_ray)
        write_json(folder / COLUMNS, features.profile.model_dump(mode="json"))
        contract = task.with_features(contract, features.fitted)
    if task.learns_from_features:
        encode_shards(contract, folder, {note.name: staged.files[note.source].path for note in notes}, with_ray=use_ray)
    contract.save(folder)
    shutil.rmtree(folder / FACTS)
    shutil.rmtree(folder / BAD)
    shards = {f"{note.name}.arrow": int(size) for note, size in zip(notes, facts.sizes, strict=True)}
    files = [file.path.rstrip("/").rpartition("/")[2] for file in staged.files]
    write_json(folder / SUMMARY, {**summary, "sources": staged.digest, "files": files, "shards": shards})
    return contract


def _kept(task: Task, contract: Contract) -> dict[str, pa.DataType]:
    """Return the roles of a row that the quarantine shows, and their types."""
    return {role: pa.binary() if role in task.binary else pa.string() for role in contract.columns}


def _fitted_on_training_rows(spec: RunSpec, staged: _Staged, judge: RowJudge) -> Contract:
    """Fit and judge anew by the rows that are trained on, now that these are known; returns the contract.

    A label of which no such row is left is no label: all rows of it contradict others, or the split holds them out, and
    they become bad ones, of an unknown label. Streamed rows were counted as they are.
    """
    task = task_catalog.get(spec.task)
    while task.target.has_classes:
        trained = index.rows_by_class(judge)[:, TRAIN]
        if trained.all() or not trained.any():
            return judge.facts.contract
        tally = {label: int(count) for label, count in zip(judge.facts.groups, trained, strict=True) if count}
        judge.rerun(task.fit(staged.unfitted, tally, spec.data.labels))
    if spec.data.mode == "prepared":
        judge.rerun(task.fit(staged.unfitted, judge.tally(), spec.data.labels))
    return judge.facts.contract
