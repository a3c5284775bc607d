"""TODO docstring."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a command did, as `--json` prints it; parts that do not apply are left out there."""

    run: str
    model: str | None = None
    version: int | None = None
    promoted: bool | None = None
    reason: str | None = None
    """Why the gate let the model through, or did not."""
    fingerprint: str | None = None
    prepared: str | None = None
    """The folder of the prepared rows."""
    rows: dict[str, int] = field(default_factory=dict)
    """Prepared rows by part."""
    bad_rows: dict[str, int] = field(default_factory=dict)
    """Rows that could not be used, by reason."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that steps of the spec left out."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""
    checkpoint: str | None = None
    report: str | None = None
    url: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the parts that apply."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}
