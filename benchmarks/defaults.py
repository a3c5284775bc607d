"""Compare the defaults that raymill chooses with a search, with its earlier fixed defaults, and with HF Trainer's.

    python benchmarks/defaults.py [SPEC ...] [--trials 16] [--only old,auto,hf,search] [--set data.max_length=24]

Each side trains on the rows of each spec and is measured on its held-out rows. Values of the four keys in a spec are
replaced. The sides:

- old: learning rate 5e-5, 3 epochs, batches of 32, a tenth of warm-up; for tables the estimators' former rounds
- auto: the values that raymill chooses for the rows and the model
- hf: the defaults of HF's TrainingArguments (rate 5e-5, batches of 8, no warm-up, no weight decay) with as many epochs
  as `auto`, trained by raymill's loop; not for tables
- search: the best of `--trials` random trials, chosen by the validation rows; rates, batch sizes, epochs and warm-ups for
  models that take steps, rounds, rates and leaves for boosted trees

Seconds are those of a run's stages: prepare, train, evaluate, register. All sides run in this process, so imports count
once. Without SPEC: the examples whose data is in the repository.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from trainer.spec.evaluate import LOWER_IS_BETTER  # noqa: E402  after the path

_SPECS = ["support_tickets/run.yaml", "app_reviews/stars.yaml", "app_reviews/tags.yaml", "diabetes/run.yaml"]
_SIDES = ("old", "auto", "hf", "search")
_AUTO = ["train.learning_rate=auto", "train.epochs=auto", "train.batch_size=auto", "train.warmup_fraction=auto"]
_OLD = ["train.learning_rate=5e-5", "train.epochs=3", "train.batch_size=32", "train.warmup_fraction=0.1"]
_OLD_ROUNDS = ["model.params={gradient_boosting: {max_iter: 200}, xgboost: {n_estimators: 300}}"]
_HF = ["train.learning_rate=5e-5", "train.batch_size=8", "train.warmup_fraction=0.0", "train.weight_decay=0.0"]


class Result(NamedTuple):
    """One side on one spec."""

    metric: str
    value: float
    """On the held-out rows."""
    validation: float
    seconds: float
    chosen: dict[str, Any]


class Subject(NamedTuple):
    """The rows and the model of a spec."""

    name: str
    n_rows: int
    n_classes: int
    is_table: bool
    kind: str
    """The kind of estimator; empty if the task is not on tables."""
    is_pretrained: bool


def main() -> None:
    options = _options()
    print("| data set | rows | classes | side | held-out metric | seconds | values |")
    print("|---|---|---|---|---|---|---|")
    for path in options.specs:
        with tempfile.TemporaryDirectory() as storage:
            _compare(Path(path), [*options.set, f"storage={storage}"], options.only, options.trials)


def _compare(path: Path, overrides: list[str], sides: list[str], trials: int) -> None:
    subject = _describe(path, overrides)
    base = [*overrides, "tune=null"]
    results: dict[str, Result] = {}
    for side in sides:
        if side == "hf" and subject.is_table:
            continue
        if side == "old":
            fixed = _OLD_ROUNDS if subject.is_table else _OLD
            results[side] = _run(path, [*base, *fixed, "train.early_stopping_patience=null"])
        elif side == "auto":
            results[side] = _run(path, [*base, *_AUTO])
        elif side == "hf":
            epochs = results["auto"].chosen["train.epochs"]["value"] if "auto" in results else 3
            results[side] = _run(path, [*base, *_HF, f"train.epochs={epochs}", "train.early_stopping_patience=null"])
        else:
            results[side] = _search(path, base, subject, trials)
        _print(subject, side if side != "search" else f"best of {trials}", results[side])


def _search(path: Path, base: list[str], subject: Subject, trials: int) -> Result:
    """Return the held-out result of the trial that is best on the validation rows, with the seconds of all trials."""
    rng = random.Random(1)
    results = [_run(path, [*base, *_draw(rng, subject)]) for _ in range(trials)]
    select_best = min if results[0].metric in LOWER_IS_BETTER else max
    best = select_best(results, key=lambda result: result.validation)
    return best._replace(seconds=sum(result.seconds for result in results))


def _draw(rng: random.Random, subject: Subject) -> list[str]:
    """Return the overrides of one random trial."""
    if subject.is_table:
        rounds = {"gradient_boosting": "max_iter", "xgboost": "n_estimators"}.get(subject.kind)
        if rounds is None:
            return _draw_steps(rng, (3e-4, 3e-2), (16, 128), (5, 100)) if subject.kind == "mlp" else []
        leaves = "max_leaf_nodes" if rounds == "max_iter" else "max_depth"
        size = rng.choice((7, 15, 31)) if rounds == "max_iter" else rng.choice((2, 4, 6))
        params = f"{rounds}: {round(_log_uniform(rng, 30, 1000))}, {leaves}: {size}"
        return [f"model.params={{{params}, learning_rate: {_log_uniform(rng, 0.02, 0.2):.4f}}}"]
    if subject.is_pretrained:
        return _draw_steps(rng, (2e-5, 2e-3), (8, 32), (3, 15))
    return _draw_steps(rng, (1e-4, 3e-2), (16, 64), (3, 30))


def _draw_steps(
    rng: random.Random, rates: tuple[float, float], batches: tuple[int, int], epochs: tuple[int, int]
) -> list[str]:
    return [
        f"train.learning_rate={_log_uniform(rng, *rates):.2e}",
        f"train.batch_size={2 ** rng.randint(batches[0].bit_length() - 1, batches[1].bit_length() - 1)}",
        f"train.epochs={rng.randint(*epochs)}",
        f"train.warmup_fraction={rng.uniform(0.0, 0.2):.3f}",
    ]


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def _run(path: Path, overrides: list[str]) -> Result:
    """Train, evaluate and register without a gate; return the metric on the held-out rows."""
    import raymill
    from trainer.tasks.load_spec import load_spec

    started = time.monotonic()
    outcome = raymill.run(path, overrides=[*overrides, "promote.enabled=false"])
    metric = load_spec(path, overrides).evaluate.metric
    seconds = sum(outcome.stages.values()) or time.monotonic() - started
    return Result(
        metric, outcome.metrics["test"][metric], outcome.metrics["validation"][metric], seconds, outcome.chosen
    )


def _describe(path: Path, overrides: list[str]) -> Subject:
    """Prepare the rows of a spec and describe them."""
    import raymill
    from trainer.data.prepared import Prepared
    from trainer.tasks.catalog import get_task
    from trainer.tasks.estimators.catalog import DEFAULT_KIND
    from trainer.tasks.load_spec import load_spec

    spec = load_spec(path, overrides)
    task = get_task(spec.task)
    outcome = raymill.prepare(path, overrides=overrides)
    fitted = Prepared(Path(str(outcome.prepared))).contract.fitted
    n_classes = len(task.target.labels(fitted)) if task.target.has_labels else 0
    is_table = task.learns_from_features
    kind = (spec.model.kind or DEFAULT_KIND) if is_table else ""
    return Subject(spec.name, outcome.rows["train"], n_classes, is_table, kind, spec.model.base is not None)


def _print(subject: Subject, side: str, result: Result) -> None:
    values = ", ".join(f"{key.rpartition('.')[2]} {choice['value']:.3g}" for key, choice in result.chosen.items())
    name = f"{subject.name}, {subject.kind}" if subject.kind else subject.name
    row = [name, f"{subject.n_rows:,}", subject.n_classes or "", side]
    row += [f"{result.metric} {result.value:.4f}", f"{result.seconds:.1f}", values]
    print("| " + " | ".join(map(str, row)) + " |", flush=True)


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
