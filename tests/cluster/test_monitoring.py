"""`raymill monitor` watches a real preparation, search, training and endpoint: every dashboard and rule shows something."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import signal
import time
from pathlib import Path

import httpx
import pytest
import yaml

from cluster.monitoring.grafana import DASHBOARDS_FOLDER
from cluster.monitoring.panels import DASHBOARDS
from cluster.monitoring.scrape_config import RULES
from cluster.ports import free_port
from support.commands import RunningCommand, run_raymill, still_running
from support.ray_head import ray_head
from support.timing import wait_until
from support.tiny_text import make_text_rows, tiny_spec, write_csv, write_spec

pytestmark = pytest.mark.skipif(
    not shutil.which("prometheus"), reason="Debian's prometheus is not installed (.ci/run installs it)"
)
GPU = re.compile(r"ray_node_(gpus_\w+|gram_\w+)")
#: More than a process prepares without Ray Data.
ROWS = 260_000
# The end of a rule's expression: the comparison with its threshold. What is before it is what the rule watches.
THRESHOLD = re.compile(r"\s(>|<|==)\s[0-9.e]+$")


class Watched:
    """A Prometheus, and the time since which it watches."""

    def __init__(self, url, started):
        self.url, self.started = url, started

    def get(self, path, **parameters):
        reply = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=60).json()
        assert reply["status"] == "success", (path, parameters, reply)
        return reply["data"]

    def values(self, expression):
        """Return all values that an expression has had since the start, as a dashboard of that time shows them."""
        data = self.get("query_range", query=expression, start=self.started, end=time.time(), step=1)
        values = [float(value) for series in data["result"] for _, value in series["values"]]
        return [value for value in values if math.isfinite(value)]


def serve(storage, *options):
    port = free_port()
    return RunningCommand("-m", "raymill", "serve", "tiny@1", "--storage", storage, "--port", port, *options), port


def send(port, inputs):
    with contextlib.suppress(httpx.HTTPError):
        return httpx.post(f"http://127.0.0.1:{port}/predict", json={"inputs": inputs}, timeout=30).status_code


@pytest.fixture(scope="module")
def watched(tiny_base, tiny_data, tiny_version, tmp_path_factory):
    """A Prometheus of `raymill monitor` after a preparation, a search, a training and requests to endpoints."""
    folder, storage = tmp_path_factory.mktemp("monitor"), tiny_version.storage
    rows = make_text_rows(ROWS, seed=3)
    rows[5:8] = [("", "fruit"), rows[9], rows[9]]  # an empty text, and duplicates
    (folder / "large").mkdir()
    write_csv(folder / "large" / "train.csv", [(f"{text} {text} and so on", label) for text, label in rows])
    write_csv(folder / "large" / "test.csv", make_text_rows(210, seed=2))
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")  # of Ray's processes; 10 s by default
        head = stack.enter_context(ray_head())
        port = free_port()
        monitor = RunningCommand(
            "-m", "raymill", "monitor", "--address", head.jobs_url, "--storage", storage, "--port", port, "--every", 1
        )
        stack.callback(monitor.terminate)
        monitor.wait_for_line("prometheus: ")
        prometheus = Watched(f"http://127.0.0.1:{port}", time.time())
        endpoint, good = serve(storage)
        # Its requests get no answer in time, and those with two inputs are too many.
        strict, bad = serve(storage, "--set", "serve.timeout_s=0.00001", "--set", "serve.max_queued=1")
        stack.callback(endpoint.terminate)
        stack.callback(strict.terminate)
        endpoint.wait_for_line("listening on")
        strict.wait_for_line("listening on")
        cluster = {"cluster": {"address": head.address}}
        tune = {"space": {"train.learning_rate": {"choice": [1e-3, 2e-3]}}, "algorithm": "grid", "seeds": 1}
        specs = {
            "prepare": tiny_spec(tiny_base, folder / "large", storage, **cluster),
            "tune": tiny_spec(tiny_base, tiny_data, storage, tune=tune, **cluster),
            "train": tiny_spec(tiny_base, tiny_data, storage, track={"prometheus": True, "every_steps": 1},
                               train={"epochs": 60, "batch_size": 8, "learning_rate": 1e-3}),
        }  # fmt: skip
        for stage, spec in specs.items():
            path = write_spec(folder / f"{stage}.yaml", {**spec, "name": stage})
            command = RunningCommand("-m", "raymill", stage, path, "--json")
            stack.callback(command.terminate)
            while command.process.poll() is None:
                send(good, ["cat dog"])
                send(bad, ["cat dog"])
                send(bad, ["cat dog", "hammer saw"])
                time.sleep(0.2)
            command.wait_for_output()
            assert command.process.returncode == 0, command.output
        time.sleep(3)  # three more scrapes
        yield prometheus
        (server,) = monitor.descendants()
        (data,) = [word.partition("=")[2] for word in server.cmdline() if word.startswith("--storage.tsdb.path=")]
        assert Path(data).is_dir()
        monitor.process.send_signal(signal.SIGINT)
        assert monitor.process.wait(60) == 0, monitor.output
        assert not still_running([server]) and not Path(data).parent.exists()
        assert all(path.name.startswith("endpoint-") for path in storage.glob("prometheus/*"))


QUERIES = [
    pytest.param(query, id=f"{dashboard.name}-{panel.title}-{name}")
    for dashboard in DASHBOARDS
    for panel in dashboard.panels
    for name, query in panel.queries
]


def test_the_files_have_the_expressions_that_are_tested_here():
    files = [json.loads(path.read_text()) for path in DASHBOARDS_FOLDER.iterdir()]
    queries = [target["expr"] for file in files for panel in file["panels"] for target in panel["targets"]]
    assert sorted(queries) == sorted(param.values[0] for param in QUERIES)


@pytest.mark.parametrize("query", QUERIES)
def test_every_chart_of_the_dashboards_shows_something(watched, query):
    for name in GPU.findall(query):
        from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

        assert f"node_{name}" in METRICS_GAUGES
        if not watched.values("ray_node_gpus_available"):
            return  # Ray has this gauge, but no node here has a GPU
    expression = query.replace("$__rate_interval", "10s").replace("$model", ".*")
    assert watched.values(expression), expression


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_the_dashboards_offer_the_models(watched, dashboard):
    if dashboard.variable:
        models = watched.get("label/model/values", **{"match[]": dashboard.variable, "start": watched.started})
        assert set(models) & {"prepare", "tune", "train", "tiny"}, models


@pytest.mark.parametrize(
    "rule", [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]],
    ids=lambda rule: rule["alert"],
)  # fmt: skip
def test_what_every_rule_watches_has_values(watched, rule):
    expression, n_thresholds = THRESHOLD.subn("", rule["expr"].strip())
    assert n_thresholds == 1, rule["expr"]
    assert watched.values(expression), expression


def test_prometheus_evaluates_all_rules(watched):
    def rules():
        return [rule for group in watched.get("rules")["groups"] for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] == "ok" for rule in rules()), what="all rules are evaluated")
    assert len(rules()) == 14


def test_the_cluster_s_metrics_have_the_same_names_as_local_ones(watched):
    def jobs(metric, model):
        data = watched.get("series", **{"match[]": f'{metric}{{model="{model}"}}', "start": watched.started})
        return {series["job"] for series in data}

    assert jobs("raymill_prepare_rows_per_second", "prepare") == {"ray"}
    assert jobs("raymill_train_loss", "tune") == jobs("raymill_search_best", "tune") == {"ray"}
    assert jobs("raymill_train_loss", "train") == {"raymill"}
    assert jobs("raymill_requests_total", "tiny") == {"raymill"}


def test_a_port_that_is_taken_and_a_cluster_that_is_gone(watched, tmp_path):
    taken = watched.url.rpartition(":")[2]
    refused = run_raymill("monitor", "--port", taken, "--storage", tmp_path)
    assert refused.code == 2 and f"port {taken} of this machine is in use" in refused.stderr, refused
    gone = run_raymill("monitor", "--address", f"http://127.0.0.1:{free_port()}", "--storage", tmp_path)
    assert gone.code == 2 and "does not answer" in gone.stderr, gone
