"""Compare fine-tuning on texts by raymill and by HF Trainer, with its defaults and in its best configuration.

    python benchmarks/train_throughput.py                                    the repository's own data
    python benchmarks/train_throughput.py examples/banking77/run.yaml        any text-classification spec
    python benchmarks/train_throughput.py SPEC --accuracy --seeds 3 --epochs 3

All sides train the same model on the same prepared rows with the same batch size, learning rate and schedule. They
run in turn, each in its own process, and are timed over the steps after a warm-up. HF Trainer's best configuration is
determined first: length grouping in bf16 with both kinds of attention, and in fp32. The upper bound is the rate of
the matrix multiplications alone, without padding, at this machine's measured speed. With --accuracy, full trainings
are compared on the validation rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


DEFAULTS = {"group": False, "precision": "fp32", "attention": "sdpa"}
BEST = [
    {"group": True, "precision": "bf16", "attention": "sdpa"},
    {"group": True, "precision": "bf16", "attention": "eager"},
    {"group": True, "precision": "fp32", "attention": "sdpa"},
]
_SKIPPED = 10


def main() -> None:
    options = _options()
    if options.side:
        print("\n" + json.dumps(_SIDES[options.side](options, json.loads(options.mode))))
        return
    best = max(BEST, key=lambda mode: _run(options, "hf", mode, steps=options.trial_steps)["rows_per_s"])
    sides: dict[str, tuple[str, dict[str, Any]]] = {
        "HF Trainer, defaults": ("hf", DEFAULTS),
        f"HF Trainer, {_describe(best)}": ("hf", best),
        "raymill": ("raymill", {}),
    }
    if options.accuracy:
        _compare_accuracy(options, sides)
    else:
        _compare_speed(options, sides)


def _compare_speed(options: argparse.Namespace, sides: dict[str, tuple[str, dict[str, Any]]]) -> None:
    results_by_side: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for round_number in range(options.rounds):
        for name, (side, mode) in sides.items():
            result = _run(options, side, mode, steps=options.steps)
            results_by_side[name].append(result)
            print(f"round {round_number + 1}  {name:<34} {result['rows_per_s']:7.1f} rows/s", flush=True)
    floor = _run(options, "floor", {}, steps=options.steps)
    print(f"\n{'':<34} {'rows/s':>8} {'padding':>8} {'of the bound':>13}   (median of {options.rounds})")
    medians = {
        name: statistics.median(result["rows_per_s"] for result in results) for name, results in results_by_side.items()
    }
    for name, results in results_by_side.items():
        share = medians[name] / floor["rows_per_s"]
        print(f"{name:<34} {medians[name]:8.1f} {results[0]['padding']:8.1%} {share:13.0%}")
    print(
        f"{'matrix multiplications alone':<34} {floor['rows_per_s']:8.1f}    at {floor['gflops']:.0f} GFLOP/s in {floor['precision']}"
    )
    defaults, best, raymill = medians.values()
    print(f"\nraymill is {raymill / best:.2f} times as fast as HF Trainer's best configuration")
    print(f"and {raymill / defaults:.2f} times as fast as its defaults")
    pairs = zip(*results_by_side.values(), strict=True)
    ratios = [f"{pair[2]['rows_per_s'] / pair[1]['rows_per_s']:.2f}" for pair in pairs]
    print(f"ratio to its best configuration by round: {', '.join(ratios)}")


def _compare_accuracy(options: argparse.Namespace, sides: dict[str, tuple[str, dict[str, Any]]]) -> None:
    results_by_side: dict[str, list[dict[str, Any]]] = {}
    for name in list(sides)[1:]:
        for seed in range(1, options.seeds + 1):
            side, mode = sides[name]
            result = _run(options, side, {**mode, "seed": seed, "is_full": True}, steps=0)
            results_by_side.setdefault(name, []).append(result)
            print(f"{name:<34} seed {seed}  accuracy {result['accuracy']:.4f}  {result['seconds']:.0f} s", flush=True)
    print(f"\nafter {options.epochs} epochs, on the validation rows, {options.seeds} seeds:")
    means = []
    for name, results in results_by_side.items():
        values = [result["accuracy"] for result in results]
        means.append(statistics.mean(values))
        seconds = statistics.mean(result["seconds"] for result in results)
        print(f"  {name:<34} accuracy {means[-1]:.4f} ({min(values):.4f} to {max(values):.4f})  {seconds:.0f} s each")
    print(f"  raymill minus HF Trainer: {100 * (means[1] - means[0]):+.2f} points")


def _run(options: argparse.Namespace, side: str, mode: dict[str, Any], steps: int) -> dict[str, Any]:
    """Run one side in its own process and return its result."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, __file__, options.spec, "--side", side, "--mode", json.dumps(mode)]
        command += ["--steps", str(steps), "--threads", str(options.threads), "--storage", options.storage]
        command += ["--batch-size", str(options.batch_size), "--epochs", str(options.epochs), "--scratch", scratch]
        command += ["--learning-rate", str(options.learning_rate)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _load_rows(options: argparse.Namespace, **train: Any) -> tuple[Any, Any]:
    """Return the spec and its prepared rows."""
    from trainer.data.prepare import prepare as preparing
    from trainer.tasks.load_spec import load_spec

    train = {"batch_size": options.batch_size, "learning_rate": options.learning_rate, **train}
    changes = [f"train.{key}={json.dumps(value)}" for key, value in train.items()]
    spec = load_spec(options.spec, [*changes, f"storage={json.dumps(options.storage)}"])
    spec = spec.model_copy(update={"tune": None})
    if spec.task != "text-classification":
        raise SystemExit(f"{options.spec} is for {spec.task}; this benchmark needs a text-classification spec")
    return spec, preparing.prepare_rows(spec, lambda progress: None, Path(options.scratch) / "quarantine.parquet")


def _raymill(options: argparse.Namespace, mode: dict[str, Any]) -> dict[str, Any]:
    from trainer.optim.batch_plan import plan_batches
    from trainer.optim.distributed.worker_context import WorkerContext
    from trainer.tasks import catalog as task_catalog
    from trainer.training.callbacks import FunctionCallback
    from trainer.training.context import TrainContext
    from trainer.training.run import run_training

    length = {} if mode.get("is_full") else {"max_steps": options.steps}
    spec, prepared = _load_rows(options, epochs=options.epochs, seed=mode.get("seed", 1), **length)
    folder = Path(options.scratch)
    history: list[dict[str, Any]] = []
    started = time.perf_counter()
    worker = WorkerContext(0, 1, "cpu", options.threads)
    callback = FunctionCallback(lambda metrics, save: history.append(metrics))
    run_training(TrainContext(task_catalog.get_task(spec.task), spec, prepared, worker, callback, folder))
    seconds = time.perf_counter() - started
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = lines[max(1, _SKIPPED // spec.track.every_steps) :]
    before = lines[lines.index(timed[0]) - 1]["step"]
    took = 0.0
    for line in timed:
        took += line["step_time_s"] * (line["step"] - before)
        before = line["step"]
    steps = timed[-1]["step"] - lines[lines.index(timed[0]) - 1]["step"]
    lengths = prepared.part("train").lengths
    padded = sum(int(lengths[rows].max()) * len(rows) for rows in plan_batches(lengths, 1, 1, options.batch_size))
    return {
        "rows_per_s": steps * options.batch_size / took,
        "padding": 1.0 - int(lengths.sum()) / padded,
        "accuracy": history[-1]["accuracy"],
        "seconds": seconds,
    }


def _hf(options: argparse.Namespace, mode: dict[str, Any]) -> dict[str, Any]:
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    from hf_rows import datasets_of, quiet

    quiet()

    from trainer.models import base_model

    spec, prepared = _load_rows(options)
    parts = datasets_of(prepared)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        base_model.locate_base_model(spec.model.base),
        num_labels=len(prepared.contract.fitted["labels"]),
        attn_implementation=mode["attention"],
        dtype=torch.float32,
    )
    counts = {"tokens": 0, "padded": 0}
    pad_id = prepared.contract.step_params("tokenize")["pad_id"]

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad_id)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        counts["tokens"] += int(mask.sum())
        counts["padded"] += mask.numel()
        labels = torch.tensor([row["labels"] for row in rows])
        return {"input_ids": padded, "attention_mask": mask, "labels": labels}

    ends: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            ends.append(time.perf_counter())

    is_full = mode.get("is_full")
    arguments = transformers.TrainingArguments(
        output_dir=options.scratch,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=64,
        learning_rate=options.learning_rate,
        weight_decay=spec.train.weight_decay,
        warmup_steps=spec.train.warmup_fraction if is_full else 0,
        num_train_epochs=options.epochs,
        max_steps=-1 if is_full else options.steps,
        seed=mode.get("seed", 1),
        bf16=mode["precision"] == "bf16",
        train_sampling_strategy="group_by_length" if mode["group"] else "random",
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )

    def accuracy(predicted: Any) -> dict[str, float]:
        return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}

    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        data_collator=collate,
        callbacks=[Clock()],
        compute_metrics=accuracy,
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    took = ends[-1] - ends[_SKIPPED - 1]
    return {
        "rows_per_s": (len(ends) - _SKIPPED) * options.batch_size / took,
        "padding": 1.0 - counts["tokens"] / counts["padded"],
        "accuracy": trainer.evaluate()["eval_accuracy"] if is_full else None,
        "seconds": seconds,
    }


def _floor(options: argparse.Namespace, mode: dict[str, Any]) -> dict[str, Any]:
    """Return the rate of the multiplications of a training step alone: all tokens in all layers, without padding."""
    import torch

    from trainer.models import base_model
    from trainer.models.pretrained import load_pretrained
    from trainer.optim.precision import resolve_precision

    torch.set_num_threads(options.threads)
    spec, prepared = _load_rows(options)
    model = load_pretrained("AutoModel", base_model.locate_base_model(spec.model.base)).module
    layers = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embeddings" not in name)
    tokens = float(prepared.part("train").lengths.mean())
    width, inner = model.config.hidden_size, model.config.intermediate_size
    precision = resolve_precision("auto", "cpu", options.threads)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows = max(64, round(tokens * options.batch_size / 64) * 64)  # an even shape, at which the library is fastest
    shapes = [(rows, width, width), (rows, width, inner), (rows, inner, width)]
    flops = took = 0.0
    for m, k, n in shapes:
        left, right = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        for _ in range(5):
            torch.nn.functional.linear(left, right)
        started, times = time.perf_counter(), 0
        while time.perf_counter() - started < 1.0:
            torch.nn.functional.linear(left, right)
            times += 1
        took += (time.perf_counter() - started) / times
        flops += 2.0 * m * k * n
    rate = flops / took
    # One forward and two backward multiplications, two operations each.
    return {"rows_per_s": rate / (6.0 * layers * tokens), "gflops": rate / 1e9, "precision": precision}


_SIDES = {"hf": _hf, "raymill": _raymill, "floor": _floor}


def _describe(mode: dict[str, Any]) -> str:
    return f"{'by length, ' if mode['group'] else ''}{mode['precision']}, {mode['attention']}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", default=str(ROOT / "examples" / "support_tickets" / "run.yaml"))
    parser.add_argument("--steps", type=int, default=150, help="optimizer steps of each side")
    parser.add_argument(
        "--trial-steps", type=int, default=50, help="steps per configuration tried to find HF Trainer's best"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--accuracy", action="store_true", help="compare full trainings instead of steps")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--storage", default=str(ROOT / ".raymill"))
    parser.add_argument("--scratch", default="")
    parser.add_argument("--side", choices=["hf", "raymill", "floor"], help=argparse.SUPPRESS)
    parser.add_argument("--mode", default="{}", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
