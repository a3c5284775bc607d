"""Compare the throughput and latency of an endpoint with other servers, on one machine, one after the other.

    python benchmarks/serve_latency.py MODEL --texts FILE.csv [--storage FOLDER] [--sides raymill,litserve,ray,...]
        [--connections 1,16,64,256] [--seconds 10] [--rounds 1]

MODEL is a registered text classifier. FILE.csv has a column `text`; its rows are sent in random order, one text per
request. Each side is started, warmed up, put under load from another process, and stopped before the next one starts.
The load comes from wrk if it is installed, otherwise from the client of `tune.load_test`. Other servers run in
separate environments in .venv-peers, created on first use: each has the packages of its server, and after them those
of this environment. raymill runs one replica per core.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

_PEERS = ROOT / ".venv-peers"
# Packages installed for each side. infinity-emb needs numpy 1, and therefore older packages than this environment has.
_OLDER = ["numpy<2", "pandas<2.3", "scipy<1.15", "scikit-learn<1.7", "datasets<4"]
_NEEDS = {
    "litserve": ["litserve"],
    "litserve-engine": ["litserve"],
    "bentoml": ["bentoml"],
    "infinity": ["infinity-emb[torch,server]", *_OLDER],
}
_SIDES = ("raymill", "litserve", "litserve-engine", "bentoml", "infinity", "ray", "fastapi")
_UP_WITHIN_S, _WARM_S, _DOWN_WITHIN_S = 240.0, 4.0, 60.0
_MOST_TEXTS = 2000


class LoadResult(NamedTuple):
    """The result of one load test."""

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


def main() -> None:
    options = _options()
    if options.client:
        print(json.dumps(_load_with_client(*options.client)))
        return
    from trainer.registry.registry import Registry

    version = Registry(options.storage).find(options.model)
    with Path(options.texts).open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    random.Random(0).shuffle(texts)
    with tempfile.TemporaryDirectory() as scratch:
        best: dict[str, dict[int, LoadResult]] = {}
        for number in range(options.rounds):
            for side in options.sides.split(","):
                if side == "infinity" and shutil.which("wrk") is None:
                    print("infinity is skipped: its request format needs wrk, which is not installed")
                    continue
                bodies = Path(scratch) / f"{side}.jsonl"
                bodies.write_text("".join(json.dumps(_body(side, text)) + "\n" for text in texts[:_MOST_TEXTS]))
                results = _measure(side, options, version, bodies)
                _print(f"{side} (round {number + 1})", results)
                earlier = best.setdefault(side, results)
                best[side] = {c: max(earlier[c], results[c], key=lambda result: result.per_s) for c in results}
    _print_ratios(best)


def _print(side: str, results: dict[int, LoadResult]) -> None:
    for connections, result in results.items():
        print(
            f"{side:<28} {connections:4d} connections {result.per_s:8.0f} requests/s   p50 {result.p50_ms:8.1f} ms   "
            f"p99 {result.p99_ms:8.1f} ms" + (f"   {result.failed} failed" if result.failed else ""),
            flush=True,
        )


def _print_ratios(best: dict[str, dict[int, LoadResult]]) -> None:
    raymill = best.get("raymill")
    if raymill is None or len(best) < 2:
        return
    print("\nraymill's requests/s divided by the other server's (best round of each)")
    for side, results in best.items():
        if side != "raymill":
            ratios = "  ".join(
                f"{c}: {raymill[c].per_s / other.per_s:.2f}" for c, other in results.items() if other.per_s
            )
            print(f"  {side:<18} {ratios}")


def _body(side: str, text: str) -> dict[str, Any]:
    return {"model": "model", "input": [text]} if side == "infinity" else {"inputs": [text]}


def _measure(side: str, options: argparse.Namespace, version: Any, bodies: Path) -> dict[int, LoadResult]:
    from cluster.ports import free_port

    port = free_port()
    command = [
        str(_peer_python(side)),
        str(ROOT / "benchmarks" / "serve_peers.py"),
        side,
        str(version.folder),
        str(port),
    ]
    if side == "raymill":
        command = [sys.executable, "-m", "raymill", "serve", options.model, "--storage", options.storage]
        command += ["--port", str(port), "--replicas", str(os.cpu_count()), *options.serve]
    url = f"http://127.0.0.1:{port}/{'classify' if side == 'infinity' else 'predict'}"
    log = bodies.with_suffix(".log")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        _wait_until_up(server, url, bodies, log)
        _load(url, 16, _WARM_S, bodies)
        return {c: _load(url, c, options.seconds, bodies) for c in map(int, options.connections.split(","))}
    finally:
        server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_DOWN_WITHIN_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def _wait_until_up(server: subprocess.Popen[bytes], url: str, bodies: Path, log: Path) -> None:
    first = bodies.read_text().splitlines()[0].encode()
    deadline = time.monotonic() + _UP_WITHIN_S
    while time.monotonic() < deadline and server.poll() is None:
        request = urllib.request.Request(url, first, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise SystemExit(f"the server did not start:\n{log.read_text()[-3000:]}")


def _peer_python(side: str) -> Path:
    """Return the Python of a side's environment: its server's packages first, then those of this environment."""
    needs = _NEEDS.get(side)
    if needs is None:
        return Path(sys.executable)
    environment = _PEERS / side.partition("-")[0]
    python = environment / "bin" / "python"
    ready = environment / ".ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        inside = next((environment / "lib").glob("python*/site-packages"))
        own = next(path for path in map(Path, sys.path) if path.name == "site-packages")
        (inside / "raymill.pth").write_text(f"{own}\n")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *needs], check=True)
        ready.touch()
    return python


# -- load


def _load(url: str, connections: int, seconds: float, bodies: Path) -> LoadResult:
    wrk = shutil.which("wrk")
    if wrk is None:
        arguments = [url, str(connections), str(seconds), str(bodies)]
        done = subprocess.run(
            [sys.executable, __file__, "-", "--client", *arguments], capture_output=True, text=True, check=True
        )
        return LoadResult(*json.loads(done.stdout))
    script = bodies.with_suffix(".lua")
    if not script.exists():
        script.write_text(_lua(bodies))
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "60s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    totals = re.search(r"RESULT (\S+) (\S+) (\S+) (\S+)", done.stdout)
    assert totals is not None, done.stdout
    per_s, p50, p99, failed = map(float, totals.groups())
    return LoadResult(per_s, p50, p99, int(failed))


def _lua(bodies: Path) -> str:
    lines = bodies.read_text().splitlines()
    # Lua does not know JSON's escapes; its long brackets keep the text unchanged.
    table = ",\n".join(f"[==[{line}]==]" for line in lines)
    return f"""local bodies = {{{table}}}
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local index = 0
request = function() index = index % #bodies + 1; return wrk.format(nil, nil, nil, bodies[index]) end
done = function(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format("RESULT %f %f %f %d", (summary.requests - e.status) / (summary.duration / 1e6),
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed))
end
"""


def _load_with_client(url: str, connections: str, seconds: str, bodies: str) -> LoadResult:
    from serve.load_test import run_load_test

    inputs = [json.loads(line)["inputs"][0] for line in Path(bodies).read_text().splitlines()]
    metrics = run_load_test(url.removesuffix("/predict"), inputs, int(connections), float(seconds))
    return LoadResult(metrics["serve.rows_per_s"], metrics["serve.p50_ms"], metrics["serve.p99_ms"], 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--texts", help="csv file with a column `text`")
    parser.add_argument("--storage", default="~/.raymill")
    parser.add_argument("--sides", default=",".join(_SIDES))
    parser.add_argument("--connections", default="1,16,64,256")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--serve", nargs=argparse.REMAINDER, default=[], help="further options of `raymill serve`; must come last"
    )
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
