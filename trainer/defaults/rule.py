"""The rule for `train:`: from the rows and the model to a batch size, epochs, a learning rate, a warm-up and patience.

docs/explanation/defaults.md says how the numbers were found and what was measured. Every function is plain: the same
facts give the same values.
"""

from __future__ import annotations

import math

from trainer.defaults.facts import Choice, TrainingFacts
from trainer.spec.section import AUTO
from trainer.spec.train import TrainSpec

# Rows up to which a batch size is used. With few rows, small batches give enough steps to learn from.
_BATCH_SIZES = {1_000: 8, 10_000: 16, 200_000: 32}
_LARGEST_BATCH = 64
# A new image model on few rows; its normalization needs more rows in a batch.
_NEW_MODEL_BATCH = 32
# A batch of long texts is smaller, so that it fits into memory.
_MAX_TOKENS = 16_384

# Pre-trained models: every row is used `_PASSES` times, and `_EXTRA_ROWS` more rows are used, which is much for few rows.
# More classes take more steps to tell apart.
_PASSES, _EXTRA_ROWS, _EXTRA_ROWS_PER_CLASS, _MAX_EPOCHS = 5, 2_500, 8, 20
# With more rows than this, the model needs fewer passes over them.
_MANY_ROWS, _FEWER_PASSES = 20_000, 0.35
# New models: enough steps to learn from nothing.
_NEW_MODEL_STEPS, _NEW_MODEL_EPOCHS = 600, (5, 40)

# The rate that suits a pre-trained body of 11 million weights (6 layers of width 384) at batches of 16 rows. Larger
# models take smaller rates in proportion, as in the recipes of their authors: 5e-5 for 85 million, 2e-5 for 300.
_RATE, _RATE_WEIGHTS, _RATE_POWER = 4e-4, 11e6, 0.9
_RATES = (1e-5, 1e-3)
# A pre-trained model of unknown size gets the rate of a usual one: too low a rate only takes longer.
_USUAL_WEIGHTS = 85e6
# Fewer trained weights bear a higher rate, up to this factor: LoRA, and a body that is partly frozen.
_MAX_SHARE_FACTOR = 5.0
# A new model of 100,000 weights at batches of 32 rows.
_NEW_RATE, _NEW_RATE_WEIGHTS, _NEW_RATE_POWER = 3e-3, 1e5, 0.25
_NEW_RATES = (2e-4, 5e-3)
_REFERENCE_BATCH, _NEW_REFERENCE_BATCH = 16, 32

_WARMUP, _MAX_WARMUP_STEPS = 0.1, 1_000
_MIN_PATIENCE = 3


def choose_training(facts: TrainingFacts, train: TrainSpec) -> dict[str, Choice]:
    """Return a choice for each key of `train:` that is `auto`. A key that the spec sets counts with its value."""
    batch = _choose_batch_size(facts)
    n_batch = train.batch_size if isinstance(train.batch_size, int) else int(batch.value)
    epochs = _choose_epochs(facts, n_batch)
    n_epochs = train.epochs if isinstance(train.epochs, int) else int(epochs.value)
    n_steps = n_epochs * math.ceil(facts.n_rows / n_batch)
    choices = {
        "batch_size": batch,
        "epochs": epochs,
        "learning_rate": _choose_rate(facts, n_batch),
    }
    return complete_choices(choices, train, n_epochs, n_steps)


def complete_choices(choices: dict[str, Choice], train: TrainSpec, n_epochs: int, n_steps: int) -> dict[str, Choice]:
    """Return `choices` and those that follow from the epochs and steps, without the keys that the spec sets."""
    choices = {**choices, "warmup_fraction": choose_warmup(min(n_steps, train.max_steps or n_steps))}
    if train.epochs == AUTO:  # else all epochs are trained
        choices["early_stopping_patience"] = choose_patience(n_epochs)
    return {key: choice for key, choice in choices.items() if getattr(train, key) == AUTO}


def _choose_batch_size(facts: TrainingFacts) -> Choice:
    """Return a power of two that fits the rows, then a multiple of the number of workers."""
    size = next((size for rows, size in _BATCH_SIZES.items() if facts.n_rows <= rows), _LARGEST_BATCH)
    reason = f"{count_text(facts.n_rows)} training rows"
    if not facts.model.is_pretrained and size < _NEW_MODEL_BATCH:
        size, reason = _NEW_MODEL_BATCH, "a new model needs larger batches than a pre-trained one"
    longest = 2 ** max(0, int(math.log2(_MAX_TOKENS / max(1.0, facts.mean_length))))
    if longest < size:
        size, reason = longest, f"texts of {facts.mean_length:.0f} tokens on average"
    if facts.n_rows < size:
        size, reason = 2 ** int(math.log2(max(1, facts.n_rows))), f"only {count_text(facts.n_rows)} training rows"
    shared = math.ceil(size / facts.workers) * facts.workers
    return Choice(shared, reason if shared == size else f"{reason}, shared by {facts.workers} workers")


def _choose_epochs(facts: TrainingFacts, batch_size: int) -> Choice:
    rows = max(1, facts.n_rows)
    if not facts.model.is_pretrained:
        low, high = _NEW_MODEL_EPOCHS
        expected = _NEW_MODEL_STEPS / math.ceil(rows / batch_size)
        epochs = min(high, max(low, round(expected)))
        return Choice(
            _fewer_for_many(epochs, rows), f"a new model learns from nothing; {count_text(rows)} training rows"
        )
    extra = _EXTRA_ROWS + _EXTRA_ROWS_PER_CLASS * facts.n_classes
    epochs = min(_MAX_EPOCHS, round(_PASSES + extra / rows))
    classes = f" of {facts.n_classes:,} classes" if facts.n_classes else ""
    few = " are few, so each is used more often" if rows < extra else ""
    return Choice(_fewer_for_many(epochs, rows), f"{count_text(rows)} training rows{classes}{few}")


def _fewer_for_many(epochs: int, rows: int) -> int:
    """Return fewer epochs for many rows, at least one."""
    return max(1, round(epochs * min(1.0, _MANY_ROWS / rows) ** _FEWER_PASSES))


def _choose_rate(facts: TrainingFacts, batch_size: int) -> Choice:
    model = facts.model
    if model.is_pretrained:
        weights = model.body_weights or _USUAL_WEIGHTS
        rate = bounded(_RATE * (_RATE_WEIGHTS / weights) ** _RATE_POWER, _RATES)
        rate *= min(_MAX_SHARE_FACTOR, (1 / model.trainable_share) ** _RATE_POWER)
        rate *= _batch_factor(batch_size, _REFERENCE_BATCH)
    else:
        weights = model.body_weights or _NEW_RATE_WEIGHTS
        rate = bounded(_NEW_RATE * (_NEW_RATE_WEIGHTS / weights) ** _NEW_RATE_POWER, _NEW_RATES)
        rate *= _batch_factor(batch_size, _NEW_REFERENCE_BATCH)
    return Choice(two_digits(rate), f"{describe_model(facts)}, batches of {batch_size}")


def _batch_factor(batch_size: int, reference: int) -> float:
    """Return how much larger a rate may be: larger batches have less noise in their gradients."""
    return bounded(math.sqrt(batch_size / reference), (0.5, 2.0))


def describe_model(facts: TrainingFacts) -> str:
    """Return what a rate depends on, for a sentence: `a pre-trained model of 11 million weights`."""
    model = facts.model
    if model.body_weights is None:
        return "a pre-trained model" if model.is_pretrained else "a new model"
    size = (
        f"{count_text(model.body_weights)} weights besides its word embeddings"
        if facts.mean_length
        else (f"{count_text(model.body_weights)} weights")
    )
    origin = "a pre-trained model" if model.is_pretrained else "a new model"
    trained = ""
    if model.uses_lora:
        trained = f", of which LoRA trains matrices of {model.trainable_share:.1%}"
    elif model.trainable_share < 1:
        trained = f", of which {model.trainable_share:.0%} are trained"
    return f"{origin} of {size}{trained}"


def choose_warmup(n_steps: int) -> Choice:
    """Return the share of a training's steps in which the learning rate rises."""
    share = min(_WARMUP, _MAX_WARMUP_STEPS / max(1, n_steps))
    if share < _WARMUP:
        return Choice(two_digits(share), f"{_MAX_WARMUP_STEPS:,} of {count_text(n_steps)} steps are enough")
    return Choice(_WARMUP, "a tenth of all steps")


def choose_patience(n_epochs: int) -> Choice:
    """Return the number of epochs without progress after which a training stops."""
    patience = max(_MIN_PATIENCE, math.ceil(n_epochs / 2))
    return Choice(patience, "the learning rate falls until the end, so later epochs may still be better")


def bounded(value: float, bounds: tuple[float, float]) -> float:
    """Return the number within `bounds` that is closest to `value`."""
    return min(bounds[1], max(bounds[0], value))


def two_digits(value: float) -> float:
    """Return a number rounded to two significant digits."""
    return float(f"{value:.1e}")


def count_text(number: float) -> str:
    """Return a number for a sentence: `512`, `10,003`, `1.2 million`."""
    return f"{number / 1e6:.3g} million" if number >= 1e6 else f"{int(number):,}"
