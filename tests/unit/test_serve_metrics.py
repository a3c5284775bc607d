"""Counts of several replicas as one Prometheus page."""

from prometheus_client.parser import text_string_to_metric_families

from serve.model.batcher import Batch, Job
from serve.model.metrics import ModelMetrics, ReplicaMetrics, merged

MODEL = {"name": "demo", "version": 3, "fingerprint": "f" * 64, "checkpoint": "c" * 64, "engine": "native"}


def replica(requests, seconds):
    page = ReplicaMetrics()
    metrics = ModelMetrics(page, MODEL)
    for _ in range(requests):
        metrics.request(200, "ok", seconds)
        job = Job(["x", "y"], lambda jobs: None)
        job.tokens, job.computing_s = 7, 0.02
        metrics.answered(job, [["a"], ["b"]])
    metrics.request(422, "wrong_type", 0.001)
    metrics.batch(Batch(2 * requests, 7 * requests, 0.01))
    return page.text()


def samples(page):
    found = {}
    for family in text_string_to_metric_families(page):
        for s in family.samples:
            key = s.name, s.labels.get("status") or s.labels.get("label") or s.labels.get("stage") or s.labels.get("le")
            found[key] = found.get(key, 0) + s.value
    return found


def test_every_replica_has_its_own_counts_and_their_sums_are_the_totals():
    page = merged({"r1": replica(3, 0.02), "r2": replica(4, 0.2)})
    assert 'raymill_inputs_total{model="demo",replica="r1",version="3"} 6.0' in page
    found = samples(page)
    assert found["raymill_requests_total", "200"] == 7
    assert found["raymill_requests_total", "422"] == 2
    assert found["raymill_predictions_total", "a"] == 7
    assert found["raymill_inputs_total", None] == 14
    assert found["raymill_tokens_total", None] == 49
    assert found["raymill_request_seconds_count", None] == 9
    assert found["raymill_request_seconds_bucket", "0.025"] == 5
    assert found["raymill_request_seconds_bucket", "+Inf"] == 9
    assert found["raymill_stage_seconds_count", "inference"] == 7
    assert found["raymill_batch_tokens_sum", None] == 49
    assert found["raymill_replicas", None] == 2


def test_the_merged_page_is_prometheus_text_of_its_own():
    page = merged({"r1": replica(1, 0.1)})
    assert "_created" not in page
    assert "# TYPE raymill_request_seconds histogram" in page


def test_what_waits_is_asked_for_when_it_is_scraped_and_who_came_to_no_model_is_counted():
    page, waiting = ReplicaMetrics(), [0]
    ModelMetrics(page, MODEL, lambda: waiting[0])
    waiting[0] = 5
    page.refused(401, "no_key")
    found = samples(page.text())
    assert found["raymill_queue_inputs", None] == 5 and found["raymill_requests_total", "401"] == 1
