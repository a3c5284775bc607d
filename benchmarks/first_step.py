"""Measure the time from the command to the first optimizer step: `raymill train` against Ray's TorchTrainer.

    python benchmarks/first_step.py [SPEC] [--rounds 3]

The sides run in turn, each with no Ray running and no prepared rows. A new process starts Ray, reads the training
file of the spec, tokenizes it, loads the model and takes one step. The TorchTrainer side is a plain script that
follows Ray's guide, and it does less: it checks no rows, splits nothing and saves nothing. SPEC must be a
text-classification spec with csv files.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

_LIMIT_S = 180.0


def main() -> None:
    options = _options()
    if options.bare:
        _bare(json.loads(options.bare))
        return
    seconds: dict[str, list[float]] = {"raymill train": [], "a bare TorchTrainer": []}
    for number in range(options.rounds):
        for name, side in (("raymill train", _raymill_side), ("a bare TorchTrainer", _bare_side)):
            with tempfile.TemporaryDirectory() as scratch:
                command, first_step = side(options.spec, Path(scratch))
                seconds[name].append(_measure_start(command, first_step))
            print(f"round {number + 1}  {name:<20} {seconds[name][-1]:5.1f} s", flush=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<20} median {median:5.1f} s until the first step is done")
    raymill, bare = medians.values()
    print(f"raymill takes {raymill / bare:.2f} times as long")


def _measure_start(command: list[str], first_step: str) -> float:
    """Return the seconds from the start of `command` until a file that matches `first_step` has a line, then end it."""
    started = time.perf_counter()
    root, _, pattern = first_step.partition("//")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            while not any(path.stat().st_size for path in Path(root).glob(pattern)):
                if process.poll() is not None or time.perf_counter() - started > _LIMIT_S:
                    process.kill()
                    raise SystemExit(f"{command} did not reach the first step:\n{process.communicate()[0][-3000:]}")
                time.sleep(0.05)
            took = time.perf_counter() - started
        finally:
            process.terminate()
        process.communicate()
    return took


def _raymill_side(spec: str, scratch: Path) -> tuple[list[str], str]:
    command = [sys.executable, "-m", "raymill", "train", spec, "--storage", str(scratch)]
    return [*command, "--set", "track.every_steps=1"], f"{scratch}//runs/*/metrics.jsonl"


def _bare_side(spec: str, scratch: Path) -> tuple[list[str], str]:
    from trainer.models import base_model
    from trainer.tasks.load_spec import load_spec

    parsed = load_spec(spec)
    settings: dict[str, Any] = {
        "file": str(parsed.data.train),
        "columns": [parsed.data.columns.get("text", "text"), parsed.data.columns.get("label", "label")],
        "base": str(base_model.locate_base_model(str(parsed.model.base))),
        "batch_size": parsed.train.batch_size,
        "storage": str(scratch),
        "done": str(scratch / "first_step"),
    }
    return [sys.executable, __file__, "--bare", json.dumps(settings)], f"{scratch}//first_step"


def _bare(settings: dict[str, Any]) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _bare_loop,
        train_loop_config=settings,
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": max(1, (os.cpu_count() or 2) - 1)}),
        run_config=RunConfig(storage_path=settings["storage"], name="bare"),
    )
    trainer.fit()


def _bare_loop(settings: dict[str, Any]) -> None:
    import pyarrow.csv
    import torch
    from ray.train.torch import prepare_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    table = pyarrow.csv.read_csv(settings["file"], parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    texts, labels = (table[name].to_pylist() for name in settings["columns"])
    classes = sorted(set(labels))
    encoded = AutoTokenizer.from_pretrained(settings["base"])(texts, truncation=True)["input_ids"]
    model = AutoModelForSequenceClassification.from_pretrained(settings["base"], num_labels=len(classes))
    model = prepare_model(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    rows = range(settings["batch_size"])
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(encoded[row]) for row in rows], batch_first=True)
    targets = torch.tensor([classes.index(labels[row]) for row in rows])
    model(input_ids=ids, attention_mask=(ids > 0).long(), labels=targets).loss.backward()
    optimizer.step()
    Path(settings["done"]).write_text("done")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", default=str(ROOT / "examples" / "support_tickets" / "run.yaml"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
