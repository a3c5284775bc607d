"""A real Prometheus scrapes the endpoint; a real browser opens the report and the endpoint's pages, without a network."""

import shutil
import subprocess
import threading
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


def query(url, expression):
    """Return the result of a Prometheus query."""
    return httpx.get(url, params={"query": expression}, timeout=10).json()["data"]["result"]


@pytest.mark.skipif(not PROMETHEUS, reason="Debian's prometheus is not installed (.ci/run installs it)")
def test_prometheus_scrapes_the_counts(endpoint, tmp_path):
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
        server.wait_for_line("Server is ready", 60)
        for _ in range(7):
            assert httpx.post(f"{endpoint}/predict", json={"inputs": ["cat dog"]}, timeout=60).status_code == 200
        page = httpx.get(f"{endpoint}/metrics", timeout=60).text
        count = sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("raymill_inputs_total"))
        api = f"http://127.0.0.1:{port}/api/v1/query"

        def is_scraped():
            series = query(api, "sum(raymill_inputs_total)")
            return series and float(series[0]["value"][1]) == count

        wait_until(is_scraped, what=f"Prometheus has {count} inputs")
        assert query(api, "up")[0]["value"][1] == "1"
        checked = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=page, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
    finally:
        server.terminate()


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
        "Lineage",
    ):
        assert word in report
    assert "POST" in dom_of(f"{endpoint}/docs", tmp_path)


@pytest.mark.skipif(not CHROMIUM, reason="Debian's chromium is not installed (.ci/run installs it)")
def test_the_page_to_try_the_model_by_hand(endpoint, tmp_path):
    page = httpx.get(f"{endpoint}/", timeout=30).text
    assert "src=" not in page and "https://" not in page and "http://" not in page
    # As a person would: type a text and click. Then the page sends its text to /seen.
    click = """<script>
by("input").value = "cat dog i want"; by("predict").click();
new MutationObserver(() => { if (!by("result").hidden || by("error").textContent)
  fetch("seen", {method: "POST", body: document.body.innerText}); }).observe(document.body, {subtree: true, attributes: true, childList: true});
</script></body>"""
    with RecordingProxy(endpoint, page.replace("</body>", click)) as proxy:
        browser = RunningCommand(
            Path(CHROMIUM), *CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0",
            proxy.url,
        )  # fmt: skip
        try:
            wait_until(lambda: proxy.seen, within_s=240, what="the page sends its text")
        finally:
            browser.terminate()
    assert "\nanimal\n" in proxy.seen[-1], proxy.seen[-1]
    assert "inference" in proxy.seen[-1] and "fingerprint" in proxy.seen[-1]


class RecordingProxy:
    """A server between the browser and the endpoint: serves the page, forwards requests, records what is posted to /seen."""

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
