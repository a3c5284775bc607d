"""The nightly pipeline in a real Airflow: `airflow dags test` prepares, trains, passes the gate and rolls out."""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

import raymill
from cluster.manifests.files import write_manifest
from cluster.ports import free_port
from support.airflow import Airflow
from support.ray_head import ray_head
from support.tiny_table import make_table_rows, table_spec, write_rows

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A file with Ray's token, for all processes of this module."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text("a" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
        yield file


@pytest.fixture(scope="module")
def night(token, tmp_path_factory):
    """Airflow with the DAG of a tiny table, and the port of its endpoint, beside a running Ray."""
    folder = tmp_path_factory.mktemp("nightly")
    write_rows(folder / "train.csv", make_table_rows(300, 1))
    write_rows(folder / "test.csv", make_table_rows(80, 2))
    port = free_port()
    with ray_head() as head:
        airflow = {
            "ray_address": head.address,
            "dashboard": head.jobs_url,
            "token_file": str(token),
            "setup": [f"export PATH={Path(sys.executable).parent}:$PATH", f"export PYTHONPATH={Path.cwd()}"],
            "retries": 0,
        }
        deploy = {"storage": {"path": str(folder)}, "project": str(folder), "airflow": airflow}
        spec = table_spec(folder, deploy=deploy, serve={"port": port}, cluster={"cpus_per_worker": 1})
        del spec["storage"]
        spec_file = folder / "spec.yaml"
        spec_file.write_text(yaml.safe_dump(spec))
        write_manifest(raymill.manifest(spec_file, "airflow"), folder / "dags")
        (folder / "home").mkdir()
        airflow = Airflow(folder / "home", folder / "dags")
        assert airflow.run("db", "migrate").returncode == 0
        yield airflow, folder / "raymill", port


def test_a_night_with_new_data_ends_with_a_new_version_in_the_endpoint(night):
    airflow, storage, port = night
    done = airflow.run("dags", "test", "tiny-table_nightly")
    assert done.returncode == 0, done.stdout[-8000:]
    assert "state=success" in done.stdout, done.stdout[-8000:]
    assert '"rolled_out": 1' in done.stdout
    assert raymill.show("tiny-table@champion", storage=storage)["version"] == 1
    row = {key: value for key, value in make_table_rows(1, 3)[0].items() if key not in ("label", "spent")}
    assert predict(port, row)["label"] in ("high", "low")


def test_a_night_without_new_data_trains_nothing(night):
    airflow, storage, _ = night
    done = airflow.run("dags", "test", "tiny-table_nightly")
    assert done.returncode == 0 and "state=success" in done.stdout, done.stdout[-8000:]
    assert "no new data: the run tiny-table-run-" in done.stdout
    assert len(raymill.runs(storage=storage, kind="run")) == 1


def predict(port, row):
    """Return the endpoint's prediction for a row. Ray Serve's proxy may need a moment after a roll-out."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict",
        data=json.dumps({"inputs": [row]}).encode(),
        headers={"content-type": "application/json"},
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)["predictions"][0]
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
