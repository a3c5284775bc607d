"""Other ways to start raymill: a job on a real head, `serve deploy`, and the example's own script."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from cluster.ports import free_port
from support.commands import ROOT
from support.ray_head import RAY
from support.timing import wait_until
from support.tiny_text import tiny_spec, write_spec

pytestmark = pytest.mark.long

SERVE = Path(sys.executable).parent / "serve"


def run(command, timeout_s=500, **env):
    environment = {**os.environ, **{key: str(value) for key, value in env.items()}}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=timeout_s)


def test_the_example_runs_as_a_job_from_a_bare_working_directory(head, tiny_base, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(ROOT / "examples" / "support_tickets", work / "examples" / "support_tickets")
    for name in ("raymill", "cluster", "trainer", "tune", "serve"):
        shutil.copytree(ROOT / name, work / name)
    entry = ["python", "-m", "raymill", "run", "examples/support_tickets/run.yaml", "--json"]
    entry += ["--set", f"storage={tmp_path / 'storage'}", "--set", f"model.base={tiny_base}", "--set", "train.epochs=1"]
    entry += ["--set", "tune.trials=2"]
    job = ["job", "submit", "--address", f"http://127.0.0.1:{head.dashboard}", "--working-dir", work, "--", *entry]
    done = run([RAY, *job])
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith('{"run"'))
    assert json.loads(line)["promoted"] is True
    assert (tmp_path / "storage" / "models" / "support_tickets" / "versions" / "1" / "manifest.json").is_file()


def test_a_spec_joins_a_cluster_by_address_and_leaves_it_running(head, tiny_base, tiny_data, tmp_path):
    spec = tiny_spec(tiny_base, tiny_data, tmp_path / "storage", cluster={"address": f"127.0.0.1:{head.port}"})
    path = write_spec(tmp_path / "run.yaml", spec)
    done = run([sys.executable, "-m", "raymill", "plan", path, "--json"], PYTHONPATH=ROOT)
    assert done.returncode == 0 and json.loads(done.stdout)["nodes"][0]["cpus"] == 2, done.stderr
    done = run([sys.executable, "-m", "raymill", "run", path, "--json"], PYTHONPATH=ROOT)
    assert done.returncode == 0 and json.loads(done.stdout)["version"] == 1, done.stderr
    assert head.running.process.poll() is None


_FILL = """
import numpy, ray, sys
ray.init(address=sys.argv[1], log_to_driver=False)
objects = [ray.put(numpy.ones(10_000_000, numpy.uint8)) for _ in range(15)]
print("full", flush=True)
objects += [ray.put(numpy.ones(10_000_000, numpy.uint8)) for _ in range(20)]  # more than fits: Ray spills to disk
print("over", flush=True)
sys.stdin.read()
"""


def test_a_deploy_config_is_deployed_and_ray_exports_its_counts(head, first_run, storage, tmp_path):
    """`raymill deploy-config` and `serve deploy`; answers while the object store is full; the counts of Ray's exporter."""
    port = free_port()
    config = tmp_path / "serve.yaml"
    arguments = [
        "deploy-config",
        "tiny",
        "--storage",
        storage,
        "--set",
        f"serve.port={port}",
        "--set",
        "serve.replicas=2",
    ]
    config.write_text(run([sys.executable, "-m", "raymill", *arguments], PYTHONPATH=ROOT).stdout)
    done = run([SERVE, "deploy", "--address", f"http://127.0.0.1:{head.dashboard}", config], PYTHONPATH=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr

    def ask():
        with contextlib.suppress(httpx.HTTPError):
            return httpx.post(f"http://127.0.0.1:{port}/predict", json={"inputs": ["cat dog"]}, timeout=30)
        return None

    wait_until(lambda: (reply := ask()) is not None and reply.status_code == 200, within_s=180, what="it is deployed")
    filler = subprocess.Popen(
        [sys.executable, "-c", _FILL, f"127.0.0.1:{head.port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for word in ("full", "over"):
            assert filler.stdout.readline().strip() == word
            replies = [ask() for _ in range(50)]
            assert all(reply is not None and reply.status_code == 200 for reply in replies), word
    finally:
        filler.kill()
        filler.wait(20)

    def exported_count():
        try:
            page = httpx.get(f"http://127.0.0.1:{head.metrics}/metrics", timeout=30).text
        except httpx.HTTPError:  # on a busy machine Ray's agent is slow to start
            return 0
        lines = [line for line in page.splitlines() if line.startswith("ray_raymill_requests_total{")]
        assert all('model="tiny"' in line and 'WorkerId="' in line for line in lines)
        return sum(float(line.split()[-1]) for line in lines)

    wait_until(lambda: exported_count() >= 101, within_s=180, what="Ray's exporter has the requests")

    def raymill_count():
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("raymill_requests_total{"))

    wait_until(
        lambda: exported_count() == raymill_count(),
        within_s=180,
        what="Ray's exporter has the count of raymill's own page",
    )
    # No request is cut if an empty list is deployed before the shutdown, as the guide says.
    statuses = []

    def send_until_none_answers():
        while not statuses or statuses[-1] == 200:
            try:
                request = {"inputs": ["cat dog"] * 64}
                statuses.append(httpx.post(f"http://127.0.0.1:{port}/predict", json=request, timeout=60).status_code)
            except httpx.HTTPError as error:
                statuses.append(repr(error))

    clients = [threading.Thread(target=send_until_none_answers) for _ in range(4)]
    for client in clients:
        client.start()
    wait_until(lambda: statuses.count(200) > 20, within_s=60, what="requests are answered")
    config.write_text("applications: []\n")
    done = run([SERVE, "deploy", "--address", head.jobs_url, config], PYTHONPATH=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for client in clients:
        client.join(120)
    assert set(statuses) <= {200, 404, 503}, statuses[-8:]
    done = run([SERVE, "shutdown", "-y", "--address", head.jobs_url], PYTHONPATH=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_own_script(tiny_base, tmp_path):
    script = ROOT / "examples" / "support_tickets" / "demo.py"
    command = [sys.executable, script, "--storage", tmp_path, "--set", f"model.base={tiny_base}"]
    command += ["--set", "tune.trials=2", "--set", "train.epochs=1", "--set", "serve.engine=native"]
    done = run(command, PYTHONPATH=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("promoted:", "raymill_requests_total", "stopped cleanly", "the report:"):
        assert word in done.stdout
