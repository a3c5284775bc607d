"""Measure how long commands take to start: the median of several runs of each, in turn.

python benchmarks/startup.py [--runs 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Time the commands and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as empty:
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "raymill --help": [sys.executable, "-m", "raymill", "--help"],
            "import trainer.spec.run": [sys.executable, "-c", "import trainer.spec.run"],
            "raymill models": [sys.executable, "-m", "raymill", "models", "--storage", empty],
            "raymill run (wrong spec)": [sys.executable, "-m", "raymill", "run", "nowhere.yaml"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
                seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        print(f"{name:<26} median {statistics.median(times):.2f} s   min {min(times):.2f}   max {max(times):.2f}")


if __name__ == "__main__":
    main()
