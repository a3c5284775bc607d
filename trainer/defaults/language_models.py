"""The rule for language models: from the tokens and the model to tokens a step, epochs, a learning rate and the rest.

docs/explanation/defaults.md says how the numbers were found. Every function is plain: the same facts give the same
values.
"""

from __future__ import annotations

import math

from trainer.defaults.facts import Choice, TrainingFacts
from trainer.defaults.rule import bounded, complete_choices, count_text, describe_model, two_digits
from trainer.spec.train import TrainSpec

# An epoch has at least this many steps, as long as a step has enough tokens for a steady gradient.
_STEPS, _NEW_STEPS = 50, 200
_STEP_BOUNDS, _NEW_STEP_BOUNDS = (1_024, 32_768), (2_048, 262_144)

# A pre-trained model sees few rows three times, and many rows once.
_EPOCHS, _MANY_TOKENS, _FEWER_PASSES = 3, 2_000_000, 0.35
# A new model uses this many tokens for each of its weights (Hoffmann et al. 2022), with at most this many repetitions
# (Muennighoff et al. 2023: about four are as good as new tokens, and more still help a little).
_TOKENS_PER_WEIGHT, _NEW_EPOCHS = 20, (1, 10)

# Full fine-tuning: 2e-5 for 7 billion weights, more for smaller models by the square root.
_RATE, _RATE_WEIGHTS, _RATE_POWER, _RATES = 2e-5, 7e9, 0.5, (5e-6, 5e-4)
# LoRA bears ten times the rate of full fine-tuning, whatever its rank (Schulman 2025, LoRA Without Regret).
_LORA_FACTOR, _LORA_RATES = 10.0, (5e-5, 2e-3)
# New models: 1.2e-3 for 10 million weights; 125 million get 6.4e-4, as GPT-3's smallest.
_NEW_RATE, _NEW_RATE_WEIGHTS, _NEW_RATE_POWER, _NEW_RATES = 1.2e-3, 1e7, 0.25, (1e-4, 3e-3)
_REFERENCE_STEP, _NEW_REFERENCE_STEP = 8_192, 16_384
_USUAL_WEIGHTS, _USUAL_NEW_WEIGHTS = 1e9, 1e7


def choose_by_tokens(facts: TrainingFacts, train: TrainSpec) -> dict[str, Choice]:
    """Return a choice for each key of `train:` that is `auto`. A key that the spec sets counts with its value."""
    step = _choose_step(facts)
    n_step = train.tokens_per_step if isinstance(train.tokens_per_step, int) else int(step.value)
    epochs = _choose_epochs(facts)
    n_epochs = train.epochs if isinstance(train.epochs, int) else int(epochs.value)
    n_steps = n_epochs * max(1, round(facts.n_tokens / n_step))
    choices = {
        "tokens_per_step": step,
        "epochs": epochs,
        "learning_rate": _choose_rate(facts, n_step),
    }
    return complete_choices(choices, train, n_epochs, n_steps)


def _choose_step(facts: TrainingFacts) -> Choice:
    """Return a power of two."""
    is_new = not facts.model.is_pretrained
    steps, bounds = (_NEW_STEPS, _NEW_STEP_BOUNDS) if is_new else (_STEPS, _STEP_BOUNDS)
    size = 2 ** math.floor(math.log2(max(1.0, facts.n_tokens / steps)))
    return Choice(int(bounded(size, bounds)), f"{count_text(facts.n_tokens)} tokens of training rows")


def _choose_epochs(facts: TrainingFacts) -> Choice:
    tokens = max(1.0, facts.n_tokens)
    if facts.model.is_pretrained:
        epochs = max(1, round(_EPOCHS * min(1.0, _MANY_TOKENS / tokens) ** _FEWER_PASSES))
        return Choice(epochs, f"{count_text(tokens)} tokens for a pre-trained model")
    weights = facts.model.body_weights or _USUAL_NEW_WEIGHTS
    epochs = round(bounded(_TOKENS_PER_WEIGHT * weights / tokens, _NEW_EPOCHS))
    return Choice(epochs, f"{count_text(tokens)} tokens for a new model of {count_text(weights)} weights")


def _choose_rate(facts: TrainingFacts, n_step: int) -> Choice:
    model = facts.model
    if model.is_pretrained:
        rate = bounded(_RATE * (_RATE_WEIGHTS / (model.body_weights or _USUAL_WEIGHTS)) ** _RATE_POWER, _RATES)
        if model.uses_lora:
            rate = bounded(rate * _LORA_FACTOR, _LORA_RATES)
        rate *= _step_factor(n_step, _REFERENCE_STEP)
    else:
        weights = model.body_weights or _USUAL_NEW_WEIGHTS
        rate = bounded(_NEW_RATE * (_NEW_RATE_WEIGHTS / weights) ** _NEW_RATE_POWER, _NEW_RATES)
        rate *= _step_factor(n_step, _NEW_REFERENCE_STEP)
    return Choice(two_digits(rate), f"{describe_model(facts)}, steps of {n_step:,} tokens")


def _step_factor(n_step: int, reference: int) -> float:
    """Return how much larger a rate may be: larger steps have less noise in their gradients."""
    return bounded(math.sqrt(n_step / reference), (0.5, 2.0))
