"""Run the full pipeline on this folder's data, send requests, show the metrics page, and stop cleanly."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from cluster.ports import free_port

HERE = Path(__file__).parent
# Written for this demo; none of these is in the data.
MESSAGES = [
    "It says delivered yesterday but there is nothing here, I even asked next door",
    "i was charged two times for the same lamp, pls check",
    "Could you send it to my work address instead? It hasn't left yet I think",
    "WELCOME15 keeps telling me it's invalid",
    "The mug arrived in three pieces",
    "changed my mind, please stop the order before it ships",
]
SHOWN = ("raymill_requests_total", "raymill_inputs_total", "raymill_predictions_total", "raymill_request_seconds_count",
         "raymill_request_seconds_sum", "raymill_model_info")  # fmt: skip


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default=".raymill", help="where prepared rows, runs and models go")
    parser.add_argument("--set", action="append", default=[], help="override one key of run.yaml")
    options = parser.parse_args()
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "raymill",
        "run",
        str(HERE / "run.yaml"),
        "--serve",
        "--json",
        "--storage",
        options.storage,
    ]
    for override in [f"serve.port={free_port()}", *options.set]:
        command += ["--set", override]
    print(f"$ raymill run {HERE.name}/run.yaml --serve\n", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # one JSON object, printed once the endpoint is ready
        outcome = json.loads(line) if line.strip() else {}
        if "url" not in outcome:
            return process.wait() or 1
        _print_results(outcome)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=30)
    print(f"\nstopped cleanly; {time.monotonic() - started:.0f} s in total")
    print(f"the report:   {outcome['report']}")
    print(f"serve again:  .venv/bin/raymill serve {outcome['model']} --storage {options.storage}")
    return code


def _print_results(outcome: dict[str, Any]) -> None:
    test = outcome["metrics"]["test"]
    print(
        f"\n{outcome['model']}@{outcome['version']}: accuracy {test['accuracy']:.3f}, macro F1 {test['macro_f1']:.3f} on held-out rows"
    )
    print(f"{'promoted' if outcome['promoted'] else 'not promoted'}: {outcome['reason']}")
    print(f"\n$ curl -s {outcome['url']}/predict -d '{{\"inputs\": [...]}}'")
    answer = _post(outcome["url"] + "/predict", {"inputs": MESSAGES})
    for message, prediction in zip(MESSAGES, answer["predictions"], strict=True):
        print(f"  {prediction['label']:<18} {prediction['score']:.2f}  {message}")
    print(f"\n$ curl -s {outcome['url']}/metrics")
    with urllib.request.urlopen(outcome["url"] + "/metrics", timeout=30) as response:
        for line in response.read().decode().splitlines():
            if line.startswith(SHOWN):
                print(f"  {line}")


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


if __name__ == "__main__":
    sys.exit(main())
