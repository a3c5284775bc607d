"""Finish a preparation: compare all rows, and write the files of the prepared folder besides the shards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from cluster.files import write_json
from trainer.contract.contract import Contract
from trainer.data.folder import BAD, FACTS, FEATURE_PROFILE, FILES_LEFT_OUT, INDEX, SUMMARY
from trainer.data.prepare.block_maker import BlockStats
from trainer.data.prepare.encode_shards import encode_shards
from trainer.data.prepare.facts import Facts
from trainer.data.prepare.fit_contract import refit_on_training_rows
from trainer.data.prepare.fit_features import fit_training_features
from trainer.data.prepare.index import write_index
from trainer.data.prepare.judge import RowJudge
from trainer.data.prepare.quarantine import (
    check_bad_rows,
    check_no_empty_part,
    quarantine_columns,
    write_quarantine,
)
from trainer.data.prepare.staging import Staging
from trainer.data.prepare.summary import summarize_preparation
from trainer.data.sources.source_file import printable
from trainer.data.sources.spec_sources import count_files_left_out
from trainer.spec.run import RunSpec
from trainer.tasks.catalog import get_task
from trainer.tasks.fitting import add_features


def finish_preparation(
    spec: RunSpec, staging: Staging, stats: list[BlockStats], contract: Contract, quarantine_to: Path, *, with_ray: bool
) -> Contract:
    """Compare all rows; write the index, the quarantine, the contract and the summary; return the fitted contract.

    Raises `DataError` if too many rows are bad or a part is empty.
    """
    task = get_task(spec.task)
    judge = RowJudge(Facts(staging.folder, stats, [file.part for file in staging.files], task, contract, spec.data))
    judge.run()
    contract = refit_on_training_rows(spec, staging, judge)
    summary = _write_index_and_quarantine(spec, staging, judge, contract, quarantine_to)
    contract = _fit_and_encode(spec, staging, judge, contract, with_ray=with_ray)
    contract.save(staging.folder)
    shutil.rmtree(staging.folder / FACTS)
    shutil.rmtree(staging.folder / BAD)
    _write_summary(staging, judge.facts, {**summary, FILES_LEFT_OUT: count_files_left_out(spec)})
    return contract


def _write_index_and_quarantine(
    spec: RunSpec, staging: Staging, judge: RowJudge, contract: Contract, quarantine_to: Path
) -> dict[str, Any]:
    """Write both files and return the counts. Raises `DataError` if too many rows are bad or a part is empty."""
    task = judge.facts.task
    verdicts = np.split(judge.verdicts, judge.facts.starts[1:-1])
    columns = quarantine_columns(task, contract)
    quarantine = write_quarantine(staging.folder, judge.facts.stats, verdicts, staging.files, columns)
    summary = summarize_preparation(judge, write_index(judge, staging.folder / INDEX))
    check_bad_rows(summary, spec.data.max_bad_fraction, quarantine, quarantine_to)
    check_no_empty_part(summary, spec.data.split, task)
    return summary


def _fit_and_encode(
    spec: RunSpec, staging: Staging, judge: RowJudge, contract: Contract, *, with_ray: bool
) -> Contract:
    """Fit the columns of `data.features` and, if the task learns from them, encode the shards; return the contract."""
    task = judge.facts.task
    if spec.data.features:
        result = fit_training_features(judge, with_ray=with_ray)
        write_json(staging.folder / FEATURE_PROFILE, result.profile.model_dump(mode="json"))
        contract = add_features(task, contract, result.fitted)
    if task.learns_from_features:
        sources = {block.name: staging.files[block.source].path for block in judge.facts.stats}
        encode_shards(contract, staging.folder, sources, with_ray=with_ray)
    return contract


def _write_summary(staging: Staging, facts: Facts, summary: dict[str, Any]) -> None:
    shards = {f"{block.name}.arrow": int(size) for block, size in zip(facts.stats, facts.sizes, strict=True)}
    names = [printable(file.path.rstrip("/").rpartition("/")[2]) for file in staging.files]
    write_json(staging.folder / SUMMARY, {**summary, "sources": staging.digest, "files": names, "shards": shards})
