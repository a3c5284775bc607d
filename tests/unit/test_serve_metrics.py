"""Metrics of several replicas as one Prometheus page."""

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.model.batcher import BatchStats, Job
from serve.model.metrics import ModelMetrics, ReplicaMetrics
from serve.model.metrics_page import join_families, label_families

MODEL = {"name": "demo", "version": 3, "fingerprint": "f" * 64, "checkpoint": "c" * 64, "engine": "native"}


def replica_page(requests, seconds):
    replica = ReplicaMetrics()
    metrics = ModelMetrics(replica, MODEL)
    for _ in range(requests):
        metrics.count_request(200, "ok", seconds)
        job = Job(["x", "y"], lambda jobs: None)
        job.tokens, job.computing_s = 7, 0.02
        metrics.count_predictions(job, [["a"], ["b"]])
    metrics.count_request(422, "wrong_type", 0.001)
    metrics.count_batch(BatchStats(2 * requests, 7 * requests, 0.01))
    return replica.text()


def merge_pages(pages):
    return join_families(label_families(page, replica) for replica, page in pages.items())


def samples(page):
    totals = {}
    for family in text_string_to_metric_families(page):
        for s in family.samples:
            key = s.name, s.labels.get("status") or s.labels.get("label") or s.labels.get("stage") or s.labels.get("le")
            totals[key] = totals.get(key, 0) + s.value
    return totals


def test_every_replica_has_its_own_counts_which_sum_to_the_totals():
    page = merge_pages({"r1": replica_page(3, 0.02), "r2": replica_page(4, 0.2)})
    assert 'raymill_inputs_total{replica="r1",model="demo",version="3"} 6.0' in page
    totals = samples(page)
    assert totals["raymill_requests_total", "200"] == 7
    assert totals["raymill_requests_total", "422"] == 2
    assert totals["raymill_predictions_total", "a"] == 7
    assert totals["raymill_inputs_total", None] == 14
    assert totals["raymill_tokens_total", None] == 49
    assert totals["raymill_request_seconds_count", None] == 9
    assert totals["raymill_request_seconds_bucket", "0.025"] == 5
    assert totals["raymill_request_seconds_bucket", "+Inf"] == 9
    assert totals["raymill_stage_seconds_count", "inference"] == 7
    assert totals["raymill_batch_tokens_sum", None] == 49
    assert totals["raymill_replicas", None] == 2


def test_the_merged_page_is_valid_prometheus_text():
    page = merge_pages({"r1": replica_page(1, 0.1)})
    assert "_created" not in page
    assert "# TYPE raymill_request_seconds histogram" in page


def test_waiting_inputs_are_read_at_scrape_time_and_requests_without_a_model_are_counted():
    replica, waiting = ReplicaMetrics(), [0]
    ModelMetrics(replica, MODEL, lambda: waiting[0])
    waiting[0] = 5
    replica.count_rejected(401, "no_key")
    totals = samples(replica.text())
    assert totals["raymill_queue_inputs", None] == 5 and totals["raymill_requests_total", "401"] == 1


def test_names_and_labels_with_any_letters_are_read_back():
    replica = ReplicaMetrics()
    metrics, odd = ModelMetrics(replica, MODEL), 'a "b" \\ {c="d"} \u2028 \n e\x0b'
    metrics.count_predictions(Job(["x"], lambda jobs: None), [[odd]])
    page = join_families([replica.families('r"1\\'), replica.families("r2")])
    predictions = next(f for f in text_string_to_metric_families(page) if f.name == "raymill_predictions")
    assert [s.labels["label"] for s in predictions.samples] == [odd, odd]
    assert [s.labels["replica"] for s in predictions.samples] == ['r"1\\', "r2"]


@pytest.mark.slow
def test_the_pages_of_200_replicas_are_joined_in_milliseconds():
    families = [label_families(replica_page(1, 0.1), f"replica{number:03d}") for number in range(200)]
    started = time.perf_counter()
    page = join_families(families)
    seconds = time.perf_counter() - started
    assert len(page) < 4e6
    assert samples(page)["raymill_replicas", None] == 200
    assert page.count("# TYPE ") == len(families[0])  # each metric has one header
    assert seconds < 0.2, f"{seconds:.3f} s: the replica that is scraped answers no request meanwhile"
