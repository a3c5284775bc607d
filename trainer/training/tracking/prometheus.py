"""A training's metrics for Prometheus: with `track.prometheus` on a port of this process, on a cluster by Ray's exporter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.monitoring.gauges import GaugeInfo, Gauges
from trainer.runs.metric_targets import metric_labels, targets_file
from trainer.spec.run import RunSpec

STEP_GAUGES = {
    "train/loss": GaugeInfo("raymill_train_loss", "Mean loss of the last steps."),
    "train/learning_rate": GaugeInfo("raymill_train_learning_rate", "Learning rate."),
    "train/grad_norm": GaugeInfo("raymill_train_grad_norm", "Norm of the last step's gradient before clipping."),
    "train/rows_per_s": GaugeInfo("raymill_train_rows_per_second", "Rows trained on per second, all workers together."),
    "train/tokens_per_s": GaugeInfo(
        "raymill_train_tokens_per_second", "Tokens trained on per second, all workers together."
    ),
    "train/arithmetic_share": GaugeInfo(
        "raymill_train_arithmetic_share", "Share of the machine's rate of matrix products that training uses."
    ),
    "train/step_time_s": GaugeInfo("raymill_train_step_seconds", "Seconds per optimizer step."),
    "train/memory_bytes": GaugeInfo(
        "raymill_train_memory_bytes", "Memory of the first worker: GPU memory if it uses a GPU."
    ),
    "train/epoch": GaugeInfo("raymill_train_epoch", "The current epoch."),
}
STEP = GaugeInfo("raymill_train_step", "Optimizer steps done.")
VALIDATION = GaugeInfo("raymill_train_validation", "A metric on the validation rows after the last epoch.", ("metric",))
_VALIDATION_PREFIX = "validation/"


class PrometheusTracker:
    """Sets the gauges of one training."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Set the gauges of these metrics; metrics without a gauge are skipped."""
        self._gauges.set(STEP, step)
        for name, value in metrics.items():
            if name in STEP_GAUGES:
                self._gauges.set(STEP_GAUGES[name], value)
            elif name.startswith(_VALIDATION_PREFIX):
                self._gauges.set(VALIDATION, value, metric=name.removeprefix(_VALIDATION_PREFIX))

    def close(self) -> None:
        """Stop serving."""
        self._gauges.close()


def start(spec: RunSpec, folder: Path, notify: Callable[[str], None]) -> PrometheusTracker:
    """Return the gauges of the training in `folder`."""
    return PrometheusTracker(Gauges(metric_labels(spec, folder), targets_file(spec, folder)))
