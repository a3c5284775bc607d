"""A real Prometheus scrapes the endpoint; a real browser opens the report and the endpoint's page without a network."""

import json
import re
import shutil
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from cluster.ports import free_port
from support.commands import RunningCommand
from support.timing import wait_until

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
    server = RunningCommand(
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


@pytest.mark.skipif(not CHROMIUM, reason="Debian's chromium is not installed (.ci/run installs it)")
def test_the_page_to_try_the_model_by_hand(endpoint, tmp_path):
    page = httpx.get(f"{endpoint}/", timeout=30).text
    assert "src=" not in page and "https://" not in page and "http://" not in page
    # As a person would: a text, and a click. The page as it is then comes back here.
    click = """<script>
by("input").value = "cat dog i want"; by("ask").click();
new MutationObserver(() => { if (!by("found").hidden || by("wrong").textContent)
  fetch("seen", {method: "POST", body: document.body.innerText}); }).observe(document.body, {subtree: true, attributes: true, childList: true});
</script></body>"""
    with Between(endpoint, page.replace("</body>", click)) as between:
        browser = RunningCommand(
            Path(CHROMIUM), *CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0",
            between.url,
        )  # fmt: skip
        try:
            wait_until(lambda: between.seen, within_s=60, what=browser.text)
        finally:
            browser.end()
    assert "\nanimal\n" in between.seen[-1], between.seen[-1]
    assert "inference" in between.seen[-1] and "fingerprint" in between.seen[-1]


class Between:
    """A server between browser and endpoint: it gives the page, passes questions on, and keeps what is posted to /seen."""

    def __init__(self, endpoint, page):
        self.seen = seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(page.encode(), "text/html; charset=utf-8")

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/seen":
                    seen.append(body.decode())
                    return self.answer(b"", "text/plain")
                reply = httpx.post(f"{endpoint}{self.path}", content=body, timeout=30)
                return self.answer(reply.content, "application/json")

            def answer(self, body, content_type):
                self.send_response(200)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()


@pytest.mark.skipif(not PROMTOOL, reason="Debian's prometheus is not installed (.ci/run installs it)")
def test_the_alert_rules_and_the_dashboard_ask_for_what_is_counted(endpoint):
    folder = Path(__file__).parents[2] / "cluster" / "monitoring"
    checked = subprocess.run(
        [PROMTOOL, "check", "rules", str(folder / "alerts.yml")], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    httpx.post(f"{endpoint}/predict", json={"inputs": ["cat dog"]}, timeout=60)
    known = httpx.get(f"{endpoint}/metrics", timeout=60).text
    queries = [
        t["expr"] for panel in json.loads((folder / "grafana.json").read_text())["panels"] for t in panel["targets"]
    ]
    for name in set(re.findall(r"raymill_\w+", " ".join([*queries, (folder / "alerts.yml").read_text()]))):
        assert f"\n{name}{{" in known, name
