"""Measure what an additional trial of a search costs beyond its training.

    python benchmarks/trial_cost.py [SPEC] [--trials 8] [--set train.epochs=1 --set 'data.steps=[{sample: {rows: 1000}}]']

The cost is the time between the ends of two consecutive trials, minus the epochs of the second. Trials run one at a
time with all cores. Epochs are counted as in the trial's history, validation included; the rest is spent in Ray Tune,
the actor, loading the weights, and writing the model and the trial's records. SPEC is any spec; the default is the
example with the repository's own data.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_SEARCH = "tune={algorithm: random, scheduler: none, max_concurrent: 1, trials: %d, space: {train.learning_rate: {loguniform: [1.0e-5, 1.0e-3]}}}"


def main() -> None:
    """Run the search and print the cost of a trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", default=str(ROOT / "examples/support_tickets/run.yaml"))
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ends = _read_ends(options, Path(folder))
    costs = [after - before - trained for (before, _), (after, trained) in itertools.pairwise(ends)]
    print(
        f"additional trials: {len(costs)}, median {statistics.median(trained for _, trained in ends):.2f} s of epochs"
    )
    print(
        f"cost beyond the epochs: median {statistics.median(costs):.2f} s   min {min(costs):.2f}   max {max(costs):.2f}"
    )


def _read_ends(options: argparse.Namespace, folder: Path) -> list[tuple[float, float]]:
    """Return the end time and the seconds of all epochs for each trial, in order of their ends."""
    command = [sys.executable, "-m", "raymill", "tune", options.spec, "--storage", str(folder)]
    for override in [_SEARCH % options.trials, *options.overrides]:
        command += ["--set", override]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"raymill failed:\n{output[-3000:]}")
    ends = []
    for trial in folder.glob("runs/*/trials/*"):
        lines: list[dict[str, Any]] = [json.loads(line) for line in (trial / "history.jsonl").read_text().splitlines()]
        ends.append(((trial / "ended.json").stat().st_mtime, sum(line["seconds"] for line in lines)))
    return sorted(ends)


if __name__ == "__main__":
    main()
