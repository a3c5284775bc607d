"""The optimiser of a training in torch: which parameters learn, each at its own rate."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from cluster.errors import ModelError, SpecError, nearest
from trainer.models.pretrained import new_parameters
from trainer.spec.train import Train

if TYPE_CHECKING:
    import torch

_NUMBERED = re.compile(r"(?:^|\.)(?:layers?|blocks?|h|stages|groups?)\.(\d+)\.")
_HEAD = re.compile(r"(?:^|\.)(?:classifier|score|pooler|qa_outputs|head|pre_classifier)(?:\.|$)")
_PEFT = re.compile(r"\.(?:modules_to_save\.[^.]+|base_layer|original_module)(?=\.)")


def optimizer(model: torch.nn.Module, train: Train) -> torch.optim.Optimizer:
    """Return AdamW with weight decay on matrices only. Each group's `peak` is its highest learning rate.

    Raises `ModelError` where 8 bits are asked for and cannot be had.
    """
    import torch

    groups = parameter_groups(model, train)
    if train.optimizer == "adamw_8bit":
        return _in_8_bits(groups)
    return torch.optim.AdamW(groups, fused=True)


def freeze(model: torch.nn.Module, patterns: Iterable[str]) -> None:
    """Keep the parameters whose names match as they are. Raises `SpecError` for a pattern that matches none, or all."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise SpecError(f"train.freeze: no parameter is called {pattern!r}", nearest(pattern, names[:200]))
        for name in found:
            model.get_parameter(name).requires_grad_(False)
    if not any(value.requires_grad for value in model.parameters()):
        raise SpecError("train.freeze leaves no parameter to learn", "name fewer of them")


def parameter_groups(model: torch.nn.Module, train: Train) -> list[dict[str, Any]]:
    """Return the parameters that learn in groups of one rate each, those with weight decay first."""
    learning = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    depth = depths([name for name, _ in learning], new_parameters(model) or ())
    _must_have_a_head(depth, train)
    highest = max(depth.values(), default=0)
    groups = []
    for decays in (True, False):
        by_rate: dict[float, list[torch.nn.Parameter]] = {}
        for name, value in learning:
            if (value.ndim > 1) is decays:
                rate = train.learning_rate * (train.layer_decay or 1.0) ** (highest - depth[name])
                if depth[name] == highest and train.head_learning_rate:
                    rate = train.head_learning_rate
                by_rate.setdefault(rate, []).append(value)
        weight_decay = train.weight_decay if decays else 0.0
        for rate, values in sorted(by_rate.items(), key=lambda each: -each[0]):
            groups.append({"params": values, "lr": rate, "peak": rate, "weight_decay": weight_decay})
    return groups


def _must_have_a_head(depth: dict[str, int], train: Train) -> None:
    """Raise `SpecError` for rates by layer of a model whose head, or layers, cannot be told from the rest."""
    key = "head_learning_rate" if train.head_learning_rate else "layer_decay"
    highest = max(depth.values(), default=0)
    has_head = any(depth[name] == highest > 0 and not _NUMBERED.search(name) for name in depth)
    if (train.head_learning_rate or train.layer_decay) and not has_head:
        raise SpecError(f"train.{key}: it cannot be told which of this model's parameters are its head", "take it out")


def _is_head(name: str) -> bool:
    return bool(_HEAD.search(name)) or name.startswith("head")


def depths(names: Iterable[str], new: Iterable[str] = ()) -> dict[str, int]:
    """Return how deep each parameter is: 0 for embeddings and the like, 1 for the first layer, the head above the last.

    The head is what is `new` in the model, and what is called like one.
    """
    known, heads = list(names), set(new)
    layers = {name: int(found.group(1)) + 1 for name in known if (found := _NUMBERED.search(name))}
    head = max(layers.values(), default=0) + 1
    return {name: layers.get(name, head if _is_head(name) or _PEFT.sub("", name) in heads else 0) for name in known}


def _in_8_bits(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    import torch

    if not torch.cuda.is_available():
        raise ModelError("train.optimizer=adamw_8bit needs a GPU, and this worker has none", "use adamw")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ModelError("train.optimizer=adamw_8bit needs bitsandbytes", "pip install raymill[8bit]") from error
    found: torch.optim.Optimizer = AdamW8bit(groups)
    return found
