"""Compare an endpoint in one process with one replica on Ray Serve: time to the first answer, and requests per second.

    python benchmarks/serve_one_replica.py MODEL --input JSON [--storage FOLDER] [--connections 1,16] [--rounds 3]

JSON is one input of the model. Both sides use the model itself (`native`) as the engine. They run at the same time and
are put under load in turn, so that other work on the machine slows both down.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from cluster.ports import free_port  # noqa: E402
from serve.load_test import run_load_test  # noqa: E402

SIDES = {"one process": [], "Ray Serve": ["--set", "serve.proxy=haproxy"]}
_SECONDS = 3.0


class Side(NamedTuple):
    """A running endpoint."""

    url: str
    first_answer_s: float
    """Seconds from the start of the command to the first answer."""


def main() -> None:
    """Start both sides, measure them in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--input", type=json.loads, required=True)
    parser.add_argument("--storage", default="~/.raymill")
    parser.add_argument("--connections", default="1,16")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.connections.split(",")]
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(run_endpoint(arguments.model, arguments.storage, arguments.input, options))
            for name, options in SIDES.items()
        }
        results: dict[tuple[str, int], list[dict[str, float]]] = {}
        for _ in range(arguments.rounds):
            for count in counts:
                for name, side in sides.items():
                    result = run_load_test(side.url, [arguments.input], count, _SECONDS)
                    results.setdefault((name, count), []).append(result)
    for name, side in sides.items():
        print(f"{name:<12} first answer after {side.first_answer_s:.1f} s")
        for count in counts:
            rates = [result["serve.rows_per_s"] for result in results[name, count]]
            p50 = statistics.median(result["serve.p50_ms"] for result in results[name, count])
            shown = f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
            print(f"{'':<12} {count} connections: {shown} requests/s, p50 {p50:.1f} ms")


@contextlib.contextmanager
def run_endpoint(model: str, storage: str, value: Any, options: list[str]) -> Iterator[Side]:
    """Run `raymill serve` while the block runs."""
    port = free_port()
    command = [sys.executable, "-m", "raymill", "serve", model, "--storage", storage, "--port", str(port)]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--engine", "native", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if "listening on" in line:
                break
        else:
            raise SystemExit(output)
        threading.Thread(target=process.stdout.read, daemon=True).start()
        url = f"http://127.0.0.1:{port}"
        httpx.post(f"{url}/predict", json={"inputs": [value]}, timeout=60).raise_for_status()
        yield Side(url, time.perf_counter() - started)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


if __name__ == "__main__":
    main()
