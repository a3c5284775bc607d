"""docs/reference/metrics.md: the Prometheus metrics of endpoints and trainings, and the metrics of models."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

import raymill
from cluster.monitoring.gauges import GaugeInfo
from docs.generate.markdown import code, generated_page, table
from serve.generation.metrics import GenerationMetrics
from serve.model.metrics import STAGES, ReplicaMetrics
from trainer.pipeline import stage_gauges
from trainer.spec.evaluate import LOWER_IS_BETTER
from trainer.spec.objective import SERVING_METRICS, TRIAL_METRICS
from trainer.training.tracking import prometheus
from tune import search_gauges

_ENDPOINT = """
`GET /metrics` of an endpoint returns the metrics of all its replicas, whichever replica the request reaches. Every sample
also has the label `replica`. Sum over it in queries: `sum by (model, version) (rate(raymill_requests_total[5m]))`.
What HAProxy refused itself has `haproxy-` and the beginning of its node's id as `replica`. A replica that is stuck is left
out after 5 seconds; `raymill_replicas` says how many answered.

On a cluster that collects Ray's metrics, Ray's exporter has the same ones as `ray_raymill_...`, with `WorkerId` instead
of `replica`.
"""
_RUNS = """
With `track.prometheus: true`, a run serves the gauges below on free loopback ports, and files in `<storage>/prometheus/`
name the ports for `file_sd_configs`: `<run>-stages.json` for the stages, `<run>.json` for the training. On a cluster that
exports metrics, Ray's exporter has them as `ray_raymill_...` in any case. A trial of a search has the label
`run="RUN/trials/0007"`.
"""
_MODELS = """
`evaluate.metric` takes any metric of the task. It chooses the best epoch, the best trial and the champion. Lower is better
for {lower}; for all others, higher is better.
[Definitions of model metrics](model-metrics.md) says what each means.
"""
_SEARCH = """
`tune.objective` and `tune.constraints` take the metrics of the task, and these:
"""
_SEARCH_METRICS = {
    "model.size_mb": "megabytes of the model's weights",
    "train.seconds": "seconds of the training",
    "serve.p50_ms": "median time of a request to a finalist, in milliseconds",
    "serve.p99_ms": "99th percentile of that time, in milliseconds",
    "serve.rows_per_s": "inputs per second that a finalist answers",
}


def build_page() -> str:
    """Return the page."""
    return generated_page(
        "Metrics",
        "serve/model/metrics.py, serve/generation/metrics.py, trainer/pipeline/stage_gauges.py, trainer/training/tracking/prometheus.py and tune/search_gauges.py",
        "## Endpoint\n\n" + _ENDPOINT.strip() + "\n\n" + _endpoint_metrics(),
        "## Runs\n\n" + _RUNS.strip() + "\n\n" + _gauges(stage_gauges.GAUGES),
        "## Training\n\n" + _training_metrics(),
        "## Searches\n\n" + _gauges(search_gauges.GAUGES),
        "## Models\n\n"
        + _MODELS.strip().format(lower=", ".join(map(code, sorted(LOWER_IS_BETTER))))
        + "\n\n"
        + _tasks(),
        "## Search\n\n" + _SEARCH.strip() + "\n\n" + _search_metrics(),
    )


def _endpoint_metrics() -> str:
    rows = []
    replica = ReplicaMetrics()
    for metric in [*vars(replica).values(), *vars(GenerationMetrics(replica)).values()]:
        if not isinstance(metric, (Counter, Gauge, Histogram)):
            continue
        (family,) = metric.describe()
        name = family.name + ("_total" if family.type == "counter" else "")
        # A private name: nothing public tells the labels of a metric without samples.
        labels = ", ".join(code(label) for label in metric._labelnames)
        rows.append([code(name), family.type, labels, family.documentation])
    stages = ", ".join(map(code, STAGES))
    return table(["metric", "type", "labels", "meaning"], rows) + (
        f"\n\nThe stages are {stages}. Models that write text have the metrics of tokens, sequences and the cache, and no predictions, inputs and batches; an adapter is a model of its own. `reason` is `ok` or the code of the error. "
        "A histogram has the series `..._bucket`, `..._sum` and `..._count`."
    )


def _training_metrics() -> str:
    return _gauges([*prometheus.STEP_GAUGES.values(), prometheus.STEP, prometheus.VALIDATION])


def _gauges(gauges: Iterable[GaugeInfo]) -> str:
    shared = ("model", "run")  # `trainer.runs.metric_targets.metric_labels`
    return table(
        ["metric", "type", "labels", "meaning"],
        [[code(gauge.name), "gauge", ", ".join(map(code, (*shared, *gauge.labels))), gauge.about] for gauge in gauges],
    )


def _tasks() -> str:
    rows = [
        [code(task["task"]), code(task["metric"]), ", ".join(map(code, task["metrics"]))] for task in raymill.tasks()
    ]
    return table(["task", "default", "all"], rows)


def _search_metrics() -> str:
    names = (*TRIAL_METRICS, *SERVING_METRICS)
    return table(["metric", "meaning"], [[code(name), _SEARCH_METRICS[name]] for name in names])
