"""A real Prometheus scrapes the endpoint; a real browser opens the report and the endpoint's page without a network."""

import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml
from commands import Running, free_port

PROMETHEUS, PROMTOOL, CHROMIUM = (shutil.which(name) for name in ("prometheus", "promtool", "chromium"))
CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
CHROMIUM_FLAGS += ["--disable-background-networking", "--disable-component-update"]


def get(url, **params):
    return httpx.get(url, params=params, timeout=10).json()["data"]["result"]


@pytest.mark.skipif(not PROMETHEUS, reason="Debian's prometheus is not installed (.ci/run installs it)")
def test_prometheus_scrapes_what_was_counted(endpoint, tmp_path):
    target = endpoint.removeprefix("http://")
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "raymill", "static_configs": [{"targets": [target]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    server = Running(
        Path(PROMETHEUS), f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip
    try:
        server.wait_for("Server is ready", 60)
        for _ in range(7):
            assert httpx.post(f"{endpoint}/predict", json={"inputs": ["cat dog"]}, timeout=60).status_code == 200
        page = httpx.get(f"{endpoint}/metrics", timeout=60).text
        wanted = sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("raymill_inputs_total"))
        api, deadline = f"http://127.0.0.1:{port}/api/v1/query", time.monotonic() + 30
        while True:
            found = get(api, query="sum(raymill_inputs_total)")
            if found and float(found[0]["value"][1]) == wanted:
                break
            assert time.monotonic() < deadline, (found, wanted)
            time.sleep(0.2)
        assert get(api, query="up")[0]["value"][1] == "1"
        checked = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=page, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
    finally:
        server.end()


def dom_of(url, tmp_path):
    command = [CHROMIUM, *CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


@pytest.mark.skipif(not CHROMIUM, reason="Debian's chromium is not installed (.ci/run installs it)")
def test_the_pages_open_in_a_browser(first_run, endpoint, tmp_path):
    report = dom_of(f"file://{first_run['report']}", tmp_path)
    for word in (
        "tiny, version 1",
        "Learning curves",
        "Confusion matrix",
        "Most confident mistakes",
        "Where it came from",
    ):
        assert word in report
    assert "POST" in dom_of(f"{endpoint}/docs", tmp_path)
