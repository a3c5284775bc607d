"""The variants of the rows that a search prepares: their folders, and why a variant could not be prepared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import ResourceError, UserError
from cluster.files import read_json, write_json
from trainer.pipeline.run import Run
from trainer.tasks.load_spec import override_spec
from tune.search_space import points_to_prepare, preparation_key
from tune.trial_store import TrialStore

#: The file of a search that maps each `preparation_key` to its prepared folder.
VARIANTS = "variants.json"
#: The file of a search that maps the keys of variants that could not be prepared to the problem and the fix.
FAILED_VARIANTS = "variants-failed.json"


def read_variants(folder: Path) -> dict[str, str]:
    """Return the prepared folders of a search that still exist, by `preparation_key`."""
    variants: dict[str, str] = read_json(folder / VARIANTS) if (folder / VARIANTS).is_file() else {}
    return {key: prepared for key, prepared in variants.items() if Path(prepared).is_dir()}


def prepare_variants(run: Run) -> dict[str, str]:
    """Return the prepared folders of the search by `preparation_key`, and write them into the run's folder.

    A variant that cannot be prepared does not end the search: its trials fail with the reason. If none can be prepared,
    raises the error of the first.
    """
    # Earlier trials of a resumed search need their rows: one of them may win, even if the space has changed since.
    prepared = read_variants(run.folder)
    failed: dict[str, UserError] = {}
    for key, values in points_to_prepare(run.spec, TrialStore(run.folder, run.spec).all_values()).items():
        if key in prepared:
            continue
        try:
            prepared[key] = str(run.prepare(override_spec(run.spec, values)).folder)
        except ResourceError:  # a full disk is not the variant's own problem
            raise
        except UserError as error:
            failed[key] = error
    if failed and not prepared:
        raise next(iter(failed.values()))
    write_json(run.folder / VARIANTS, prepared)
    write_json(
        run.folder / FAILED_VARIANTS,
        {key: {"problem": error.problem, "fix": error.fix} for key, error in failed.items()},
    )
    return prepared


def find_variant(folder: Path, prepared: Mapping[str, str], values: Mapping[str, Any]) -> Path:
    """Return the folder of the prepared rows of a trial with these values.

    `folder` is the run's. Raises `UserError` if those rows could not be prepared.
    """
    key = preparation_key(values)
    if key not in prepared:
        failure = read_json(folder / FAILED_VARIANTS)[key]
        raise UserError(failure["problem"], failure["fix"])
    return Path(prepared[key])
