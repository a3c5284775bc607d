"""What a run would choose for the keys that are `auto`, before it starts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from cluster.errors import UserError
from cluster.files import folder_bytes
from trainer.data.prepare import prepare as preparing
from trainer.data.prepared import Prepared
from trainer.data.sources import spec_sources
from trainer.defaults.facts import Choice
from trainer.defaults.resolve import choose_search_epochs, resolve_spec
from trainer.models.base_model import is_local_base
from trainer.planning.row_facts import RowFacts, facts_of_prepared
from trainer.spec.run import RunSpec


class PlannedChoices(NamedTuple):
    """The choices by dotted key, or why they are not known yet."""

    choices: dict[str, Choice]
    unknown_because: str = ""
    spec: RunSpec | None = None
    """The spec with these values; None if they are not known."""
    facts: RowFacts | None = None
    """The facts of the rows; None if they are not known."""
    prepared_bytes: int | None = None
    """Bytes of the prepared rows; None if they are not prepared."""
    is_small: bool = True
    """Whether the rows are prepared in one process, or are prepared already."""


def plan_choices(spec: RunSpec) -> PlannedChoices:
    """Return what a run of `spec` would choose; of a search, what it chooses for all trials together.

    Uses rows that were prepared earlier. Few rows are prepared now, in a folder that is deleted again; many are not.
    Nothing is downloaded.
    """
    if spec.model.base is not None and not is_local_base(spec.model.base):
        return PlannedChoices({}, "the base model is on the hub")
    if spec_sources.has_fetched_source(spec):
        return PlannedChoices({}, "the rows are not fetched yet")
    try:
        files = spec_sources.list_source_files(spec)
        prepared = preparing.find_prepared(spec, files)
        if prepared is not None:
            return _choose(spec, prepared)
        if not preparing.is_small_data(spec, files):
            reason = "the rows are not prepared yet; `raymill prepare` does that"
            return PlannedChoices({}, reason, is_small=False)
        with tempfile.TemporaryDirectory(prefix="raymill-plan-") as folder:
            scratch = spec.model_copy(update={"storage": folder})
            quarantine = Path(folder) / "bad_rows.parquet"
            prepared = preparing.prepare_rows(scratch, lambda progress: None, quarantine, files=files, with_ray=False)
            return _choose(spec, prepared)
    except UserError as error:  # the run itself will say so, with more about it
        return PlannedChoices({}, error.problem)


def _choose(spec: RunSpec, prepared: Prepared) -> PlannedChoices:
    resolved = resolve_spec(spec, prepared)
    choices = resolved.choices if spec.tune is None else choose_search_epochs([(spec, prepared)])
    facts, size = facts_of_prepared(spec, prepared), folder_bytes(prepared.folder)
    return PlannedChoices(choices, spec=resolved.spec, facts=facts, prepared_bytes=size)
