"""The stages of a run as gauges for Prometheus: how far each is, and the rows of preparing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.monitoring.gauges import GaugeInfo, Gauges
from cluster.progress import Progress
from trainer.data.parts import PARTS
from trainer.runs.metric_targets import metric_labels, targets_file
from trainer.spec.run import RunSpec

PREPARE = "prepare"
STAGE_SECONDS = GaugeInfo("raymill_run_stage_seconds", "Seconds that the stage has run.", ("stage",))
STAGE_DONE = GaugeInfo("raymill_run_stage_done", "Units that the stage has done.", ("stage", "unit"))
STAGE_TOTAL = GaugeInfo("raymill_run_stage_total", "All units of the stage; 0 if that is not known.", ("stage", "unit"))
STAGE_IDLE = GaugeInfo(
    "raymill_run_stage_idle_seconds", "Seconds since the stage last did a unit; 0 once it has ended.", ("stage",)
)
PREPARE_ROWS = GaugeInfo("raymill_prepare_rows", "Rows read.")
PREPARE_SPEED = GaugeInfo("raymill_prepare_rows_per_second", "Rows read per second, in the last seconds.")
PREPARE_USED = GaugeInfo("raymill_prepare_rows_used", "Prepared rows by part.", ("part",))
PREPARE_LEFT_OUT = GaugeInfo(
    "raymill_prepare_rows_left_out", "Rows that are bad or were left out, by reason.", ("reason",)
)
GAUGES = (
    STAGE_SECONDS, STAGE_DONE, STAGE_TOTAL, STAGE_IDLE, PREPARE_ROWS, PREPARE_SPEED, PREPARE_USED, PREPARE_LEFT_OUT,
)  # fmt: skip
# The speed is measured over at least so many seconds.
_SPEED_WINDOW_S = 2.0


class StageGauges:
    """Sets the gauges of a run's stages. `gauges` takes more gauges of the same process, for example of a search.

    A value that cannot be published, for example because the storage is full, never stops the run.
    """

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        self.gauges = Gauges(metric_labels(spec, folder), targets_file(spec, folder, "stages"))
        self._last: dict[str, tuple[float, float]] = {}  # stage -> (units done, seconds at which the last was done)
        self._speed_from: tuple[float, float] | None = None  # rows, and the seconds at which they were read

    def observe(self, stage: str, progress: Progress, seconds: float, *, ended: bool = False) -> None:
        """Publish how far a stage is after `seconds`."""
        with contextlib.suppress(Exception):
            self._publish_stage(stage, progress, seconds, ended)
            if stage == PREPARE:
                self._publish_speed(progress.done, seconds, ended)

    def _publish_stage(self, stage: str, progress: Progress, seconds: float, ended: bool) -> None:
        done, last_s = self._last.get(stage, (-1.0, 0.0))
        if progress.done != done or last_s > seconds:  # a stage that runs again begins at 0 s
            last_s = seconds
        self._last[stage] = progress.done, last_s
        self.gauges.set(STAGE_SECONDS, seconds, stage=stage)
        self.gauges.set(STAGE_DONE, progress.done, stage=stage, unit=progress.unit)
        self.gauges.set(STAGE_TOTAL, progress.total, stage=stage, unit=progress.unit)
        self.gauges.set(STAGE_IDLE, 0.0 if ended else seconds - last_s, stage=stage)

    def _publish_speed(self, rows: float, seconds: float, ended: bool) -> None:
        if not rows:  # no row yet, or rows that were prepared earlier
            self._speed_from = None
            return
        self.gauges.set(PREPARE_ROWS, rows)
        rows_before, seconds_before = self._speed_from or (0.0, 0.0)
        is_short = ended and self._speed_from is None
        if is_short or seconds - seconds_before >= _SPEED_WINDOW_S:
            self.gauges.set(PREPARE_SPEED, (rows - rows_before) / max(seconds - seconds_before, 1e-3))
            self._speed_from = rows, seconds

    def publish_rows(self, summary: Mapping[str, Any]) -> None:
        """Publish the counts of prepared rows, as `Prepared.summary` has them."""
        with contextlib.suppress(Exception):
            self.gauges.set(PREPARE_ROWS, summary["rows_in_all"])
            for part in PARTS:
                self.gauges.set(PREPARE_USED, summary["rows"].get(part, 0), part=part)
            for reason, rows in {**summary["quarantined"], **summary["left_out"]}.items():
                self.gauges.set(PREPARE_LEFT_OUT, rows, reason=reason)

    def close(self) -> None:
        """Stop to serve the gauges."""
        with contextlib.suppress(Exception):
            self.gauges.close()
