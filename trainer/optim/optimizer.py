"""The torch optimizer of a training: which parameters learn, and the learning rate of each.

The names are `train.optimizer` in trainer/spec/train.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cluster.errors import ModelError, SpecError, suggest
from trainer.spec.train import TrainSpec

if TYPE_CHECKING:
    import torch

_LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h|stages|groups?)\.(\d+)\.")
_HEAD = re.compile(r"(?:^|\.)(?:classifier|score|pooler|qa_outputs|head|pre_classifier)(?:\.|$)")
_PEFT = re.compile(r"\.(?:modules_to_save\.[^.]+|base_layer|original_module)(?=\.)")


def build_optimizer(
    model: torch.nn.Module, train: TrainSpec, new_parameters: Collection[str] = ()
) -> torch.optim.Optimizer:
    """Return AdamW with weight decay on matrices only. Each group's `peak` is its highest learning rate.

    `new_parameters` names the parameters without pre-trained values. Raises `ModelError` for `adamw_8bit` without a GPU
    or without bitsandbytes.
    """
    import torch

    groups = group_parameters(model, train, new_parameters)
    if train.optimizer == "adamw_8bit":
        return _build_adamw_8bit(groups)
    return torch.optim.AdamW(groups, fused=True)


def freeze_parameters(model: torch.nn.Module, patterns: Iterable[str]) -> None:
    """Exclude the parameters whose names match one of `patterns` (with `*`) from training.

    Raises `SpecError` for a pattern that matches no parameter, or if no parameter is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise SpecError(f"train.freeze: no parameter is called {pattern!r}", suggest(pattern, names[:200]))
        for name in matches:
            model.get_parameter(name).requires_grad_(False)
    if not any(value.requires_grad for value in model.parameters()):
        raise SpecError("train.freeze leaves no parameter to train", "remove patterns from `train.freeze`")


def group_parameters(
    model: torch.nn.Module, train: TrainSpec, new_parameters: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups of equal learning rate; groups with weight decay come first."""
    trainable = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    depth = layer_depths([name for name, _ in trainable], new_parameters)
    _check_has_head(depth, train)
    highest = max(depth.values(), default=0)
    groups = []
    for decays in (True, False):
        by_rate: dict[float, list[torch.nn.Parameter]] = {}
        for name, value in trainable:
            if (value.ndim > 1) is decays:
                rate = train.peak_learning_rate * (train.layerwise_lr_decay or 1.0) ** (highest - depth[name])
                if depth[name] == highest and train.head_learning_rate:
                    rate = train.head_learning_rate
                by_rate.setdefault(rate, []).append(value)
        weight_decay = train.weight_decay if decays else 0.0
        for rate, values in sorted(by_rate.items(), key=lambda item: -item[0]):
            groups.append({"params": values, "lr": rate, "peak": rate, "weight_decay": weight_decay})
    return groups


def _check_has_head(depth: dict[str, int], train: TrainSpec) -> None:
    """Raise `SpecError` if the spec sets learning rates by layer for a model whose head is unknown."""
    key = "head_learning_rate" if train.head_learning_rate else "layerwise_lr_decay"
    highest = max(depth.values(), default=0)
    has_head = any(depth[name] == highest > 0 and not _LAYER.search(name) for name in depth)
    if (train.head_learning_rate or train.layerwise_lr_decay) and not has_head:
        raise SpecError(
            f"train.{key}: the parameters of this model's head cannot be identified", f"remove `train.{key}`"
        )


def _is_head(name: str) -> bool:
    return bool(_HEAD.search(name)) or name.startswith("head")


def layer_depths(names: Iterable[str], new: Iterable[str] = ()) -> dict[str, int]:
    """Return the depth of each parameter: 0 for embeddings, 1 for the first layer, the highest for the head.

    The head is every parameter in `new`, and every parameter with a usual name of a head, for example `classifier`.
    """
    known, heads = list(names), set(new)
    layers = {name: int(match.group(1)) + 1 for name in known if (match := _LAYER.search(name))}
    head = max(layers.values(), default=0) + 1
    return {name: layers.get(name, head if _is_head(name) or _PEFT.sub("", name) in heads else 0) for name in known}


def layer_matrices(model: torch.nn.Module) -> set[str]:
    """Return the names of the trainable matrices in the model's layers, which excludes its embeddings and its head."""
    return {
        name
        for name, value in model.named_parameters()
        if value.requires_grad and value.ndim == 2 and _LAYER.search(name)
    }


def _build_adamw_8bit(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    import torch

    if not torch.cuda.is_available():
        raise ModelError(
            "train.optimizer=adamw_8bit needs a GPU, and this worker has none", "set `train.optimizer: adamw`"
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ModelError("train.optimizer=adamw_8bit needs bitsandbytes", "pip install 'raymill[8bit]'") from error
    optimizer: torch.optim.Optimizer = AdamW8bit(groups)
    return optimizer
