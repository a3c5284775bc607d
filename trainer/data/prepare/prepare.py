"""Turn raw files into a prepared folder, once; later runs with the same files and settings use the same folder.

One pass reads, checks, cleans and tokenizes the rows block by block. Then small tables of facts are
used to compare all rows, the contract is fitted, and the index records which rows are used and for which part.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from cluster.files import OWNER_FILE, new_folder, storage_error
from trainer.data.folder import FILES_LEFT_OUT, QUARANTINE, make_subfolders
from trainer.data.prepare.block_maker import BlockMaker
from trainer.data.prepare.fit_contract import fit_on_usable_rows
from trainer.data.prepare.passes import OnProgress, estimate_text_bytes, run_local, run_ray
from trainer.data.prepare.quarantine import copy_quarantine
from trainer.data.prepare.staging import Staging, prepared_root, stage_preparation
from trainer.data.prepare.write_prepared import finish_preparation
from trainer.data.prepared import Prepared
from trainer.data.readers.read_options import read_options_of_spec
from trainer.data.sources.source_file import SourceFile
from trainer.data.sources.spec_sources import count_files_left_out
from trainer.spec.run import RunSpec
from trainer.tasks.catalog import get_task

# This process alone prepares up to this size in less time than Ray Data takes to start its workers.
_SMALL_BYTES = 12 << 20


def find_prepared(spec: RunSpec, files: list[SourceFile] | None = None) -> Prepared | None:
    """Return the prepared rows of `spec` if they are on storage. Needs no Ray. Raises `DataError` for missing files.

    `files` are the source files if they are already known.
    """
    with stage_preparation(spec, files) as staging:
        return Prepared(staging.finished) if staging.finished else None


def is_small_data(spec: RunSpec, files: list[SourceFile]) -> bool:
    """Whether the rows of `files` are few enough to be prepared in this process, without Ray."""
    names_files = bool(get_task(spec.task).binary_roles)
    return estimate_text_bytes(files, names_files=names_files) <= _SMALL_BYTES


def prepare_rows(
    spec: RunSpec,
    on_progress: OnProgress,
    quarantine_to: Path,
    *,
    files: list[SourceFile] | None = None,
    with_ray: bool | None = None,
) -> Prepared:
    """Return the prepared rows of `spec`; prepare them if they are not on storage yet.

    Large data is prepared with Ray Data (Ray must be connected), small data in this process; `with_ray` overrides the
    choice. Bad rows are also listed in `quarantine_to`. `files` are the source files if they are already known.
    Raises `DataError` if the files or columns are wrong or too many rows are bad.
    """
    with stage_preparation(spec, files) as staging:
        if staging.finished:
            copy_quarantine(staging.finished / QUARANTINE, quarantine_to)
            prepared = Prepared(staging.finished)
            prepared.summary[FILES_LEFT_OUT] = count_files_left_out(spec)  # they may have changed since
            return prepared
        use_ray = not is_small_data(spec, staging.files) if with_ray is None else with_ray
        return Prepared(_prepare_folder(spec, staging, on_progress, quarantine_to, use_ray))


def _prepare_folder(
    spec: RunSpec, staging: Staging, on_progress: OnProgress, quarantine_to: Path, use_ray: bool
) -> Path:
    """Prepare the rows in the staging folder, move them to their final folder and return it."""
    make_subfolders(staging.folder)
    maker = BlockMaker(spec.data, staging.unfitted, staging.folder, [file.part for file in staging.files])
    run_pass = run_ray if use_ray else run_local
    stats = run_pass(maker, staging.files, read_options_of_spec(spec, staging.unfitted), on_progress)
    try:
        contract = fit_on_usable_rows(spec, staging, stats, quarantine_to)
        contract = finish_preparation(spec, staging, stats, contract, quarantine_to, with_ray=use_ray)
    except OSError as error:
        raise storage_error(staging.folder, error) from error
    final = prepared_root(spec) / f"{contract.fingerprint[:16]}-{staging.key}"
    # Another run may have made the same folder meanwhile: same key, same content.
    with contextlib.suppress(FileExistsError), new_folder(final) as beside:
        for path in [path for path in staging.folder.iterdir() if path.name != OWNER_FILE]:
            path.rename(beside / path.name)
    return final
