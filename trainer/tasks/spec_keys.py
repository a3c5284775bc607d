"""The keys of a spec that only some tasks and targets use. A spec that sets an unused key is refused."""

from __future__ import annotations

#: The keys that the torch training loop (`trainer.training.loop`) uses and estimators for tables do not use.
TORCH_LOOP_KEYS = frozenset(
    {
        "model.lora",
        "model.factory",
        "train.max_steps",
        "train.max_time_s",
        "train.batch_size",
        "train.micro_batch_size",
        "train.head_learning_rate",
        "train.layerwise_lr_decay",
        "train.freeze",
        "train.optimizer",
        "train.loss",
        "train.ema_decay",
        "train.gradient_checkpointing",
        "train.offload_activations",
        "train.checkpoint",
        "cluster.strategy",
    }
)

#: The keys of language models. A custom task uses them only if it names them.
LANGUAGE_KEYS = frozenset(
    {
        "data.chat",
        "model.tokenizer",
        "model.quantize",
        "train.method",
        "train.mixture",
        "train.tokens_per_step",
        "train.micro_batch_tokens",
        "evaluate.answers",
    }
)

#: The keys with which a language model is trained: its steps are counted in tokens, and it has no head of its own.
LANGUAGE_MODEL_KEYS = LANGUAGE_KEYS | TORCH_LOOP_KEYS - {
    "model.factory",
    "train.batch_size",
    "train.micro_batch_size",
    "train.head_learning_rate",
    "train.loss",
}

#: All keys that some tasks do not use. A task or its target names those that it uses in `used_keys`.
OPTIONAL_KEYS = (
    TORCH_LOOP_KEYS
    | LANGUAGE_KEYS
    | {
        "data.image",
        "data.tag_separator",
        "model.kind",
        "model.params",
        "train.augment",
        "train.folds",
    }
)


def unused_keys(used_keys: frozenset[str]) -> list[str]:
    """Return the optional keys of a spec that are not in `used_keys`, the keys that a task and its target use."""
    return sorted(OPTIONAL_KEYS - used_keys)
