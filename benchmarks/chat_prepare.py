"""Compare the preparation of chats by raymill and by `datasets.map` with the same chat template and tokenizer.

    python benchmarks/chat_prepare.py --base FOLDER                   20,000 chats, both sides in turn
    python benchmarks/chat_prepare.py --base FOLDER --rows 1000000    time and peak memory of every process

FOLDER is a base model with a chat template. Each side runs in its own process, with two worker processes. raymill reads,
checks and compares all rows (duplicates, leaks), splits, renders every prefix, tokenizes, and writes ids with the mask of
what is learned. `datasets` loads the same jsonl, applies the template with its tokenizer and saves ids to disk; it makes no
mask and checks nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from prepare import describe, make_words, run_side

ROOT = Path(__file__).parents[1]


def main() -> None:
    options = _options()
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    data = options.folder / f"chats-{options.rows}.jsonl"
    if not data.is_file():
        _write_chats(data, options.rows)
    best: dict[str, dict[str, Any]] = {}
    for round_number, side in itertools.product(range(options.rounds), SIDES):
        command = [sys.executable, __file__, "--side", side, "--data", str(data), "--folder", str(options.folder)]
        result = run_side([*command, "--base", options.base, "--processes", str(options.processes)])
        if side not in best or result["seconds"] < best[side]["seconds"]:
            best[side] = result
        print(f"round {round_number + 1}  {side:<10} {describe(result, options.rows)}", flush=True)
    print(f"\n{options.rows:,} chats, {data.stat().st_size / 1e6:.0f} MB of jsonl, best of {options.rounds}")
    print(f"raymill is {best['datasets']['seconds'] / best['raymill']['seconds']:.2f} times as fast as datasets.map")


def _raymill(options: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT))
    from cluster.connect import connect_to_ray
    from trainer.data.prepare import prepare as preparing
    from trainer.tasks.load_spec import load_spec

    storage = options.folder / "storage"
    shutil.rmtree(storage, ignore_errors=True)
    spec = load_spec(
        {
            "name": "bench",
            "task": "text-generation",
            "data": {"train": str(options.data), "max_bad_fraction": 0.5},
            "model": {"base": options.base},
            "storage": str(storage),
        }
    )
    with connect_to_ray(None):
        started = time.perf_counter()
        prepared = preparing.prepare_rows(spec, lambda progress: None, storage / "quarantine.parquet", with_ray=True)
        seconds = time.perf_counter() - started
    print(json.dumps({key: prepared.summary[key] for key in ("rows", "quarantined")}), file=sys.stderr)
    shutil.rmtree(storage)
    return {"seconds": seconds}


def _datasets(options: argparse.Namespace) -> dict[str, Any]:
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    folder = options.folder / "datasets"
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    rows = datasets.load_dataset("json", data_files=str(options.data), split="train", cache_dir=str(folder / "cache"))

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        return {"input_ids": tokenizer.apply_chat_template(batch["messages"], return_dict=False)}

    tokenized = rows.map(tokenize, batched=True, num_proc=options.processes, remove_columns=["messages"])
    tokenized.save_to_disk(str(folder / "saved"))
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return {"seconds": seconds}


SIDES = {"datasets": _datasets, "raymill": _raymill}


def _write_chats(path: Path, count: int) -> None:
    """Write distinct chats of one to three turns, with words of realistic frequencies."""
    rng = random.Random(1)
    words = make_words(rng)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8") as file:
        for number in range(count):
            messages = []
            for turn in range(rng.choice([1, 1, 2, 3])):
                question = " ".join(rng.choices(words, k=rng.randint(8, 40)))
                answer = " ".join(rng.choices(words, k=rng.randint(20, 90)))
                messages += [
                    {"role": "user", "content": f"{number}.{turn} {question}"},
                    {"role": "assistant", "content": answer},
                ]
            file.write(json.dumps({"messages": messages}) + "\n")
    unfinished.replace(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of a base model with a chat template")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="number of processes of datasets.map")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/raymill-bench-chats"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
