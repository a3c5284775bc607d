"""Train examples/shakespeare, and nanoGPT's loop in the same seconds: nats a character on the last 10 % of a text.

    SHAKESPEARE=~/input.txt python benchmarks/shakespeare.py [--nanogpt FOLDER] [--set train.epochs=2]

FOLDER is a clone of https://github.com/karpathy/nanoGPT; its `train.py` runs with the settings that its README gives for CPUs,
with as many steps as the seconds allow. nanoGPT judges by samples of its last 10 %, raymill by every character. One side after
the other, with all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PUBLISHED = "nanoGPT's README: 1.88 on a laptop's CPU in about 3 minutes, 1.4697 on an A100 in about 3 minutes"
_SMALL = (
    "--device=cpu --compile=False --eval_iters=100 --log_interval=1000000 --block_size=64 --batch_size=12 --n_layer=4 "
    "--n_head=4 --n_embd=128 --dropout=0.0"
)
_PROBE_STEPS = 100


def main() -> None:
    """Run both sides and print their losses over seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    text = Path(os.environ["SHAKESPEARE"]).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        seconds = run_raymill(Path(folder), options.overrides)
        if options.nanogpt:
            run_nanogpt(options.nanogpt, Path(folder), text, seconds)
    print(PUBLISHED)


def run_raymill(folder: Path, overrides: list[str]) -> float:
    """Print raymill's losses; return the seconds of its training."""
    for name in ("make_rows.py", "run.yaml"):
        shutil.copy(ROOT / "examples/shakespeare" / name, folder)
    subprocess.run([sys.executable, folder / "make_rows.py"], check=True)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "raymill",
        "run",
        folder / "run.yaml",
        "--storage",
        folder / "storage",
        "--json",
    ]
    for override in overrides:
        command += ["--set", override]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    whole = time.perf_counter() - started
    outcome = json.loads(done.stdout)
    (history,) = (folder / "storage/runs").glob("*/history.jsonl")
    seconds = 0.0
    for line in map(json.loads, history.read_text().splitlines()):
        seconds += line["seconds"]
        print(f"raymill   {seconds:6.1f} s   epoch {line['epoch']}   {line['log_loss']:.4f} on validation rows")
    print(f"raymill   {whole:6.1f} s   the whole run, {outcome['metrics']['test']['log_loss']:.4f} on the last 10 %")
    return seconds


def run_nanogpt(clone: Path, folder: Path, text: str, seconds: float) -> None:
    """Print the loss of nanoGPT's loop after about `seconds`."""
    own = folder / "nanogpt"
    shutil.copytree(clone, own)
    data = own / "data/shakespeare_char"
    (data / "input.txt").write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "prepare.py"], cwd=data, check=True, stdout=subprocess.DEVNULL)
    _, short = _nanogpt_steps(own, 1)
    _, longer = _nanogpt_steps(own, _PROBE_STEPS)
    n_steps = max(_PROBE_STEPS, int(seconds / ((longer - short) / (_PROBE_STEPS - 1))))
    loss, took = _nanogpt_steps(own, n_steps)
    print(f"nanoGPT   {took - short:6.1f} s   {n_steps} steps, {loss:.4f} on 100 samples of the last 10 %")


def _nanogpt_steps(folder: Path, n_steps: int) -> tuple[float, float]:
    """Train `n_steps`; return the last loss on held-out text, and the seconds."""
    settings = [*_SMALL.split(), f"--max_iters={n_steps}", f"--lr_decay_iters={n_steps}", f"--eval_interval={n_steps}"]
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *settings]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return float(re.findall(r"val loss ([\d.]+)", done.stdout)[-1]), time.perf_counter() - started


if __name__ == "__main__":
    main()
