"""Compare the defaults that raymill chooses with a search, with its earlier fixed defaults, and with HF Trainer's.

    python benchmarks/defaults.py [SPEC ...] [--trials 16] [--only old,auto,hf,search] [--set data.max_length=24]

Each side trains on the rows of each spec and is measured on its held-out rows. Values of the four keys in a spec are
replaced. The sides:

- old: learning rate 5e-5, 3 epochs, batches of 32, a tenth of warm-up; for tables the estimators' former rounds
- auto: the values that raymill chooses for the rows and the model
- hf: the defaults of HF's TrainingArguments (rate 5e-5, batches of 8, no warm-up, no weight decay) with as many epochs
  as `auto`, trained by raymill's loop; not for tables
- search: the best of `--trials` random trials by the validation rows, none stopped early

Seconds are those of a run's stages: prepare, train, evaluate, register. All sides run in this process, so imports count
once. Without SPEC: the examples whose data is in the repository.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

_SPECS = ["support_tickets/run.yaml", "app_reviews/stars.yaml", "app_reviews/tags.yaml", "diabetes/run.yaml"]
_SIDES = ("old", "auto", "hf", "search")
_AUTO = ["train.learning_rate=auto", "train.epochs=auto", "train.batch_size=auto", "train.warmup_fraction=auto"]
_OLD = ["train.learning_rate=5e-5", "train.epochs=3", "train.batch_size=32", "train.warmup_fraction=0.1"]
_OLD_ROUNDS = ["model.params={gradient_boosting: {max_iter: 200}, xgboost: {n_estimators: 300}}"]
_HF = ["train.learning_rate=5e-5", "train.batch_size=8", "train.warmup_fraction=0.0", "train.weight_decay=0.0"]
_PRETRAINED_SPACE = (
    "train.learning_rate: {loguniform: [2e-5, 2e-3]}, train.batch_size: {choice: [8, 16, 32]}, "
    "train.epochs: {randint: [3, 15]}, train.warmup_fraction: {uniform: [0.0, 0.2]}"
)
_NEW_SPACE = (
    "train.learning_rate: {loguniform: [1e-4, 3e-2]}, train.batch_size: {choice: [16, 32, 64]}, "
    "train.epochs: {randint: [3, 30]}, train.warmup_fraction: {uniform: [0.0, 0.2]}"
)
_TABLE_SPACE = (
    "model.params.gradient_boosting.max_iter: {lograndint: [30, 1000]}, "
    "model.params.gradient_boosting.max_leaf_nodes: {choice: [7, 15, 31]}, "
    "model.params.gradient_boosting.learning_rate: {loguniform: [0.02, 0.2]}"
)


class Result(NamedTuple):
    """One side on one spec."""

    metric: str
    value: float
    seconds: float
    chosen: dict[str, Any]


def main() -> None:
    options = _options()
    print("| data set | rows | classes | side | held-out metric | seconds | values |")
    print("|---|---|---|---|---|---|---|")
    for path in options.specs:
        with tempfile.TemporaryDirectory() as storage:
            _compare(Path(path), [*options.set, f"storage={storage}"], options.only, options.trials)


def _compare(path: Path, overrides: list[str], sides: list[str], trials: int) -> None:
    name, n_rows, n_classes, space = _describe(path, overrides)
    is_table = space == _TABLE_SPACE
    base = [*overrides, "tune=null"]
    results: dict[str, Result] = {}
    for side in sides:
        if side == "hf" and is_table:
            continue
        if side == "old":
            results[side] = _run(
                path, [*base, *(_OLD_ROUNDS if is_table else _OLD), "train.early_stopping_patience=null"]
            )
        elif side == "auto":
            results[side] = _run(path, [*base, *_AUTO])
        elif side == "hf":
            epochs = results["auto"].chosen["train.epochs"]["value"] if "auto" in results else 3
            results[side] = _run(path, [*base, *_HF, f"train.epochs={epochs}", "train.early_stopping_patience=null"])
        else:
            search = f"tune={{algorithm: random, scheduler: none, trials: {trials}, space: {{{space}}}}}"
            results[side] = _run(path, [*overrides, *_AUTO, search])
        _print(name, n_rows, n_classes, side if side != "search" else f"best of {trials}", results[side])


def _run(path: Path, overrides: list[str]) -> Result:
    """Train, evaluate and register without a gate; return the metric on the held-out rows."""
    import raymill
    from trainer.tasks.load_spec import load_spec

    started = time.monotonic()
    outcome = raymill.run(path, overrides=[*overrides, "promote.enabled=false"])
    metric = load_spec(path, overrides).evaluate.metric
    seconds = sum(outcome.stages.values()) or time.monotonic() - started
    return Result(metric, outcome.metrics["test"][metric], seconds, outcome.chosen)


def _describe(path: Path, overrides: list[str]) -> tuple[str, int, int, str]:
    """Return the name of a spec, its training rows, its classes, and the search space that suits its model."""
    import raymill
    from trainer.data.prepared import Prepared
    from trainer.tasks.catalog import get_task
    from trainer.tasks.load_spec import load_spec

    spec = load_spec(path, overrides)
    task = get_task(spec.task)
    outcome = raymill.prepare(path, overrides=overrides)
    prepared = Prepared(Path(str(outcome.prepared)))
    target = task.target
    n_classes = len(target.labels(prepared.contract.fitted)) if target.has_labels else 0
    space = _TABLE_SPACE if task.learns_from_features else _PRETRAINED_SPACE if spec.model.base else _NEW_SPACE
    return spec.name, outcome.rows["train"], n_classes, space


def _print(name: str, n_rows: int, n_classes: int, side: str, result: Result) -> None:
    values = ", ".join(f"{key.rpartition('.')[2]} {choice['value']:.3g}" for key, choice in result.chosen.items())
    row = [name, f"{n_rows:,}", n_classes or "", side, f"{result.metric} {result.value:.4f}", f"{result.seconds:.1f}"]
    print("| " + " | ".join(map(str, [*row, values])) + " |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", default=[str(ROOT / "examples" / name) for name in _SPECS])
    parser.add_argument("--trials", type=int, default=16, help="trials of a search (16)")
    parser.add_argument("--only", default=",".join(_SIDES), help="sides to run, separated by commas (all)")
    parser.add_argument(
        "--set", action="append", default=[], help="a key for all specs, for example data.max_length=24"
    )
    options = parser.parse_args()
    options.only = [side.strip() for side in options.only.split(",")]
    unknown = sorted(set(options.only) - set(_SIDES))
    if unknown or options.trials < 1:
        parser.error(f"--only takes {', '.join(_SIDES)}, and --trials at least 1; given: {unknown or options.trials}")
    options.only.sort(key=_SIDES.index)
    return options


if __name__ == "__main__":
    main()
