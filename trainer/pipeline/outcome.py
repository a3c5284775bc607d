"""The outcome of a command, as `--json` prints it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command. `as_dict`, result.json and `--json` omit the fields that do not apply."""

    run: str
    """The run's folder."""
    model: str | None = None
    version: int | None = None
    promoted: bool | None = None
    reason: str | None = None
    """Why the gate promoted the model, or why it did not."""
    note: str | None = None
    """How sure the gate is, if there are few held-out rows."""
    fingerprint: str | None = None
    """The contract's fingerprint."""
    prepared: str | None = None
    """The folder of the prepared rows."""
    same_run: str | None = None
    """The name of a finished run with the same rows and the same spec, which a new run would repeat."""
    rows: dict[str, int] = field(default_factory=dict)
    """Prepared rows by part."""
    bad_rows: dict[str, int] = field(default_factory=dict)
    """Rows that could not be used, by reason."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that the spec's steps left out, by step."""
    files_left_out: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Extension -> `files` and `examples`: files that the spec's data names and that hold no rows."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics by part."""
    chosen: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The values that raymill chose for keys that are `auto`: key -> `value` and `reason`."""
    notices: list[str] = field(default_factory=list)
    """What the run left out or could not do, in sentences."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    checkpoint: str | None = None
    """The folder of the trained model."""
    report: str | None = None
    """The path of the report."""
    url: str | None = None
    """The endpoint's address."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that apply."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {}, [])}
