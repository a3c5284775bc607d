"""The files of cluster/monitoring, and what `raymill monitor` makes of them."""

import json
import shutil
import socket
import subprocess
import threading

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cluster.errors import SpecError
from cluster.monitoring.gauges import GaugeInfo, Gauges
from cluster.monitoring.grafana import DASHBOARDS_FOLDER, dashboard_files, write_provisioning
from cluster.monitoring.scrape_config import RULES, RayTargets, build_scrape_config
from cluster.progress import Progress
from trainer.pipeline.stage_gauges import StageGauges
from trainer.runs.metric_targets import metric_labels, targets_file
from trainer.tasks.load_spec import load_spec

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="Debian's prometheus is not installed (.ci/run installs it)")


def promtool(*arguments):
    return subprocess.run([PROMTOOL, "check", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture()
def spec(tmp_path, tiny_base, tiny_data):
    from support.tiny_text import tiny_spec

    return load_spec(tiny_spec(tiny_base, tiny_data, tmp_path / "storage", track={"prometheus": True}))


def test_the_committed_dashboards_are_those_of_the_code():
    committed = {path.name: path.read_text() for path in DASHBOARDS_FOLDER.iterdir()}
    assert committed == dashboard_files(), "run `make reference` and commit cluster/monitoring/dashboards"


@needs_promtool
def test_promtool_takes_the_rules_and_the_config():
    for arguments in (["rules", RULES], ["config", RULES.parent / "prometheus.yml"]):
        checked = promtool(*arguments)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
@pytest.mark.parametrize(
    "ray", [RayTargets(url="http://head:8265", token="secret"), RayTargets(url="https://head"), RayTargets()]
)
def test_promtool_takes_what_the_monitor_writes(ray, tmp_path):
    ray = ray if ray.url else RayTargets(file=tmp_path / "ray.json")
    key = tmp_path / "key"
    key.write_text("rm_1")
    config = build_scrape_config(tmp_path, ray, ["http://127.0.0.1:8000", "https://[::1]:9/ml/"], key, 0.5)
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    checked = promtool("config", tmp_path / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    own = config["scrape_configs"][0]
    targets = [(target["targets"][0], target["labels"]["__metrics_path__"]) for target in own["static_configs"]]
    assert targets == [("127.0.0.1:8000", "/metrics"), ("[::1]:9", "/ml/metrics")]


@pytest.mark.parametrize("url", ["8000", "127.0.0.1:8000", "http://host:port", "ftp://host"])
def test_an_endpoint_that_is_no_url_is_refused(url, tmp_path):
    with pytest.raises(SpecError, match="is not the URL of an endpoint"):
        build_scrape_config(tmp_path, RayTargets(file=tmp_path / "ray.json"), [url], None, 15)


def test_grafana_gets_the_data_source_and_the_dashboards(tmp_path):
    write_provisioning(tmp_path, "http://127.0.0.1:9090")
    (source,) = yaml.safe_load((tmp_path / "datasources" / "raymill.yml").read_text())["datasources"]
    assert source["url"] == "http://127.0.0.1:9090" and source["type"] == "prometheus"
    (provider,) = yaml.safe_load((tmp_path / "dashboards" / "raymill.yml").read_text())["providers"]
    assert provider["options"]["path"] == str(DASHBOARDS_FOLDER)


def scrape(targets):
    """Return the samples of the page that a file of `file_sd_configs` names: (name, labels) -> value."""
    ((entry),) = json.loads(targets.read_text())
    assert entry["labels"] == {"machine": socket.gethostname()}
    page = httpx.get(f"http://{entry['targets'][0]}/metrics", timeout=30).text
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


@pytest.mark.slow
def test_gauges_are_served_from_the_first_value_to_the_end(tmp_path):
    targets = tmp_path / "prometheus" / "run.json"
    gauges, gauge = Gauges({"model": "a"}, targets), GaugeInfo("raymill_x", "X.", ("part",))
    assert not targets.exists()
    gauges.set(gauge, 2.0, part="train")
    assert scrape(targets) == {("raymill_x", (("model", "a"), ("part", "train"))): 2.0}
    gauges.close()
    assert not targets.exists()
    gauges.set(gauge, 3.0, part="train")  # a thread that ends late
    assert not targets.exists()


@pytest.mark.slow
def test_stages_show_speed_progress_and_idle_time(spec, tmp_path):
    run = tmp_path / "storage" / "runs" / "tiny-train-1"
    stages = StageGauges(spec, run)
    stages.observe("prepare", Progress(), 0.1)
    for second in range(1, 5):
        stages.observe("prepare", Progress(done=1000.0 * second), float(second))
    values = {name: value for (name, _), value in scrape(targets_file(spec, run, "stages")).items()}
    assert 900 < values["raymill_prepare_rows_per_second"] < 1100
    for second in range(5, 8):  # nothing comes any more
        stages.observe("prepare", Progress(done=4000.0), float(second))
    values = {name: value for (name, _), value in scrape(targets_file(spec, run, "stages")).items()}
    assert values["raymill_prepare_rows"] == values["raymill_run_stage_done"] == 4000
    assert values["raymill_run_stage_seconds"] == 7 and values["raymill_run_stage_idle_seconds"] == 3
    assert values["raymill_prepare_rows_per_second"] == 0
    stages.observe("prepare", Progress(done=4000), 8.0, ended=True)
    stages.publish_rows({"rows_in_all": 4100, "rows": {"train": 9}, "quarantined": {"empty": 2}, "left_out": {}})
    samples = scrape(targets_file(spec, run, "stages"))
    values = {name: value for (name, _), value in samples.items()}
    assert values["raymill_run_stage_idle_seconds"] == 0 and values["raymill_prepare_rows"] == 4100
    reasons = {dict(labels)["reason"]: value for (name, labels), value in samples.items() if "left_out" in name}
    assert reasons == {"empty": 2}
    stages.close()


@pytest.mark.slow
def test_a_full_storage_does_not_stop_a_run(spec, tmp_path):
    (tmp_path / "storage").write_text("a file where the storage folder should be")
    stages = StageGauges(spec, tmp_path / "storage" / "runs" / "tiny-train-1")
    before = threading.active_count()
    for second in range(3):
        stages.observe("prepare", Progress(done=second), float(second))
    assert threading.active_count() == before
    stages.close()


def test_a_trial_has_the_name_of_its_search(spec, tmp_path):
    trial = tmp_path / "storage" / "runs" / "tiny-tune-1" / "trials" / "0007"
    assert metric_labels(spec, trial) == {"model": "tiny", "run": "tiny-tune-1/trials/0007"}
    assert targets_file(spec, trial).name == "tiny-tune-1-trials-0007.json"
    assert (
        targets_file(spec.model_copy(update={"track": spec.track.model_copy(update={"prometheus": False})}), trial)
        is None
    )
