"""Measure the time until a search first reaches a validation F1: raymill against Optuna in a loop around HF Trainer.

    python benchmarks/tune.py [SPEC] [--rows 3000] [--trials 12] [--epochs 6] [--target F1] [--rounds 1]

Both sides use the same search space, trials, epochs, training and validation rows, TPE with the same seed, and all
cores. HF Trainer runs in its best configuration (batches by length, bf16 if it is faster on this machine) and
evaluates after every epoch, like raymill. raymill's clock starts with its command and includes Ray and the workers'
imports; the loop's clock starts with its process. SPEC is any text-classification spec; the default is the example
with the repository's own data. Times are read from the best-so-far curves of both sides, for the target and for
levels below it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

_SPACE = {
    "train.learning_rate": {"loguniform": [1e-5, 1e-3]},
    "train.batch_size": {"choice": [8, 16, 32, 64]},
    "train.warmup_fraction": {"uniform": [0.0, 0.3]},
    "train.weight_decay": {"loguniform": [1e-3, 0.2]},
}
_METRIC = "macro_f1"
_LEVELS = 8
_LIMIT_S = 3600.0

Curve = list[tuple[float, float]]


def main() -> None:
    options = _options()
    if options.side:
        _loop(options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        spec = _spec_file(options, Path(scratch))
        for number in range(options.rounds):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            sides: dict[str, Callable[[Path, Path], Curve]] = {
                "raymill": lambda spec, folder: _raymill(spec, folder),
                "Optuna around HF Trainer": lambda spec, folder: _optuna(options, spec, folder),
            }
            curves = {name: _best_so_far(side(spec, folder)) for name, side in sides.items()}
            _print(curves, options.target)


def _print(curves: dict[str, Curve], target: float | None) -> None:
    print(f"\nbest validation {_METRIC} so far and the seconds until it was reached")
    for name, curve in curves.items():
        print(f"  {name}: " + "  ".join(f"{value:.3f} at {seconds:.0f} s" for seconds, value in curve))
    raymill, loop = curves.values()
    top = min(raymill[-1][1], loop[-1][1])
    print(f"\n{_METRIC:>9} {'raymill':>10} {'the loop':>10} {'ratio':>7}")
    target = target or top
    for level in sorted({round(top * (step + 1) / _LEVELS, 3) for step in range(_LEVELS - 1)} | {target}):
        mine, other = _reached(raymill, level), _reached(loop, level)
        ratio = f"{other / mine:.2f}" if mine and other else ""
        mark = "  <- the target" if level == target else ""
        print(f"{level:9.4f} {_seconds(mine):>10} {_seconds(other):>10} {ratio:>7}{mark}")
    print(f"{'the end':>9} {raymill[-1][1]:>10.3f} {loop[-1][1]:>10.3f}   best {_METRIC} of each side")


def _seconds(seconds: float | None) -> str:
    return f"{seconds:.0f} s" if seconds else "never"


def _reached(curve: Curve, level: float) -> float | None:
    return next((seconds for seconds, value in curve if value >= level), None)


def _best_so_far(curve: Curve) -> Curve:
    best: Curve = []
    for seconds, value in curve:
        if not best or value > best[-1][1]:
            best.append((seconds, value))
    return best


# -- raymill


def _raymill(spec: Path, folder: Path) -> Curve:
    command = [sys.executable, "-m", "raymill", "tune", str(spec), "--storage", str(folder)]
    started, curve, seen = time.perf_counter(), [], set[tuple[str, int]]()
    with (folder / "log").open("w") as log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log) as process:
        while True:
            ended = process.poll() is not None
            for path in folder.glob("runs/*/trials/*/history.jsonl"):
                for line in path.read_text().splitlines():
                    epoch = json.loads(line)
                    if (path.parent.name, epoch["epoch"]) not in seen:
                        seen.add((path.parent.name, epoch["epoch"]))
                        curve.append((time.perf_counter() - started, float(epoch[_METRIC])))
            if ended or time.perf_counter() - started > _LIMIT_S:
                break
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"raymill failed:\n{(folder / 'log').read_text()[-3000:]}")
    print(f"raymill: all trials in {time.perf_counter() - started:.0f} s, {len(seen)} epochs")
    return curve


# -- Optuna around HF Trainer


def _optuna(options: argparse.Namespace, spec: Path, folder: Path) -> Curve:
    command = [sys.executable, __file__, str(spec), "--side", "optuna", "--trials", str(options.trials)]
    command += ["--epochs", str(options.epochs), "--seed", str(options.seed), "--folder", str(folder)]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=2 * _LIMIT_S)
    if done.returncode:
        raise SystemExit(f"the loop failed:\n{done.stderr[-3000:]}")
    print(f"Optuna around HF Trainer: all trials in {time.perf_counter() - started:.0f} s")
    return [tuple(point) for point in json.loads(done.stdout.strip().splitlines()[-1])]


def _loop(options: argparse.Namespace) -> None:
    started = time.time() - _since_start()
    import optuna
    import torch
    import transformers
    from hf_rows import datasets_of, quiet
    from sklearn.metrics import f1_score

    from trainer.data.prepare import prepare as preparing
    from trainer.models import base_model
    from trainer.optim.precision import resolve_precision
    from trainer.tasks.load_spec import load_spec

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    quiet()
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    spec = load_spec(options.spec, [f"storage={json.dumps(options.folder)}"])
    prepared = preparing.prepare_rows(spec, lambda progress: None, Path(options.folder) / "quarantine.parquet")
    parts = datasets_of(prepared)
    base = base_model.locate_base_model(str(spec.model.base))
    collate = transformers.DataCollatorWithPadding(transformers.AutoTokenizer.from_pretrained(base))
    precision = resolve_precision("auto", "cpu", threads)
    curve: Curve = []

    def metrics(predicted: Any) -> dict[str, float]:
        value = f1_score(predicted.label_ids, predicted.predictions.argmax(-1), average="macro", zero_division=0)
        curve.append((time.time() - started, float(value)))
        return {_METRIC: float(value)}

    def collate_without_length(rows: list[dict[str, Any]]) -> Any:
        return collate([{key: value for key, value in row.items() if key != "length"} for row in rows])

    def objective(trial: optuna.Trial) -> float:
        learning_rate = trial.suggest_float(
            "train.learning_rate", *_SPACE["train.learning_rate"]["loguniform"], log=True
        )
        sizes = _SPACE["train.batch_size"]["choice"]
        batch_size = sizes[trial.suggest_categorical("train.batch_size", list(range(len(sizes))))]
        warmup = trial.suggest_float("train.warmup_fraction", *_SPACE["train.warmup_fraction"]["uniform"])
        decay = trial.suggest_float("train.weight_decay", *_SPACE["train.weight_decay"]["loguniform"], log=True)
        arguments = transformers.TrainingArguments(
            output_dir=options.folder,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=64,
            learning_rate=learning_rate,
            weight_decay=decay,
            warmup_steps=warmup,  # below 1: a fraction of all steps
            num_train_epochs=options.epochs,
            seed=spec.train.seed,
            bf16=precision == "bf16",
            bf16_full_eval=precision == "bf16",
            train_sampling_strategy="group_by_length",
            use_cpu=True,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
        )
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=len(prepared.contract.fitted["labels"]), dtype=torch.float32
        )
        before = len(curve)
        transformers.Trainer(
            model,
            arguments,
            train_dataset=parts["train"],
            eval_dataset=parts["validation"],
            data_collator=collate_without_length,
            compute_metrics=metrics,
        ).train()
        return max(value for _, value in curve[before:])

    first = max(3, min(10, options.trials // 3))
    sampler = optuna.samplers.TPESampler(seed=options.seed, n_startup_trials=first, multivariate=True)
    optuna.create_study(direction="maximize", sampler=sampler).optimize(objective, n_trials=options.trials)
    print("\n" + json.dumps(curve))


def _since_start() -> float:
    """Return the seconds since this process started, so that its imports count."""
    import psutil

    return time.time() - psutil.Process().create_time()


# -- data of both sides


def _spec_file(options: argparse.Namespace, scratch: Path) -> Path:
    """Write a spec that searches over about `options.rows` rows of the given spec and holds out validation rows."""
    import yaml

    from trainer.tasks.load_spec import load_spec

    raw = load_spec(options.spec).model_dump(mode="json", exclude_unset=True)
    raw["data"].pop("test", None)
    raw["data"]["split"] = {"validation": options.validation, "test": 0.01, "stratify": True}
    raw["data"]["steps"] = [{"sample": {"rows": options.rows}}] if options.rows else []
    raw["train"] = {"epochs": options.epochs}
    raw["evaluate"] = {"metric": _METRIC}
    raw["tune"] = {"trials": options.trials, "seed": options.seed, "space": _SPACE}
    path = scratch / "spec.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", default=str(ROOT / "examples" / "support_tickets" / "run.yaml"))
    parser.add_argument("--rows", type=int, default=3000, help="approximate number of rows; 0: all")
    parser.add_argument("--validation", type=float, default=0.1, help="fraction of all rows held out for validation")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--target", type=float, help=f"validation {_METRIC} to reach; default: the best value that both sides reach"
    )
    parser.add_argument("--seed", type=int, default=42, help="seed of the sampler")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=["optuna"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
