"""Find a finished run that would only be repeated: same rows, and a spec that gives the same result."""

from __future__ import annotations

from pathlib import Path

from cluster.errors import SpecError
from trainer.runs.folder import SPEC_FILE, list_runs, read_prepared_path
from trainer.runs.journal import RESULT
from trainer.spec.run import RunSpec
from trainer.tasks.load_spec import load_spec

# Sections that do not change which model a run makes.
_WITHOUT_EFFECT = {"cluster", "deploy", "promote", "serve", "track"}


def find_same_run(spec: RunSpec, prepared: Path) -> str | None:
    """Return the name of the newest finished run of the whole pipeline on these prepared rows with such a spec, or None."""
    for folder in reversed(list_runs(Path(spec.storage), ("run",))):
        if not (folder / RESULT).is_file() or read_prepared_path(folder) != prepared:
            continue
        try:
            earlier = load_spec(folder / SPEC_FILE)  # as written: the resolved one has the values of `auto`, too
        except (SpecError, OSError):  # a version of raymill with other keys wrote it
            continue
        if _what_matters(earlier) == _what_matters(spec):
            return folder.name
    return None


def _what_matters(spec: RunSpec) -> dict[str, object]:
    return spec.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
