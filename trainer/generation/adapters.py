"""LoRA adapters of peft, for many of them in one batch over one base.

Tokens of one adapter lie side by side in a step, so each adapter costs two small products a layer.

Letters in shapes: T tokens, I inputs, O outputs, r rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cluster.errors import ModelError

_PREFIX = "base_model.model."


class LowRank(NamedTuple):
    """What an adapter adds to a linear layer: `values @ down.T @ up.T`."""

    down_rI: torch.Tensor
    up_Or: torch.Tensor

    def add(self, outputs_TO: torch.Tensor, values_TI: torch.Tensor) -> None:
        """Add it to the outputs, in place."""
        outputs_TO.addmm_(values_TI @ self.down_rI.T, self.up_Or.T)


class AdapterSpan(NamedTuple):
    """Tokens of a step that one adapter computes, from `start` to before `stop`."""

    adapter: int
    start: int
    stop: int


Layers = Mapping[str, LowRank]


def read_adapter(folder: Path, linear_names: Collection[str], device: torch.device) -> Layers:
    """Return an adapter by the name of the base's linear layer, such as `model.layers.0.self_attn.q_proj`.

    The scale is part of `up_Or`. Raises `ModelError` for an adapter that does not only add to these layers.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    paths = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for path in paths:
        if not path.is_file():
            raise ModelError(f"{path} does not exist", "name a folder that peft wrote with save_pretrained")
    config = json.loads(paths[0].read_text(encoding="utf-8"))
    _check(config, folder)
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(paths[1]).items():
        match = re.fullmatch(r"(.+)\.lora_([AB])\.weight", key.removeprefix(_PREFIX))
        if not match or match[1] not in linear_names:
            raise ModelError(
                f"adapter {folder}: {key} does not belong to a linear layer of the base's decoder",
                "merge it into its base",
            )
        halves.setdefault(match[1], {})[match[2]] = tensor.float()
    layers = {}
    for name, pair in halves.items():
        scale = _scale(config, name, len(pair["A"]))
        layers[name] = LowRank(pair["A"].to(device), (pair["B"] * scale).to(device))
    return layers


def _check(config: dict[str, Any], folder: Path) -> None:
    fix = "merge it into its base and serve the result as a model of its own"
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"adapter {folder} is of kind {config.get('peft_type')}, only LORA is served beside its base", fix
        )
    for field in (
        "use_dora",
        "modules_to_save",
        "lora_bias",
        "trainable_token_indices",
        "layer_replication",
        "megatron_config",
    ):
        if config.get(field):
            raise ModelError(f"adapter {folder} sets {field}, which cannot be served beside its base", fix)
    if config.get("bias", "none") != "none":
        raise ModelError(f"adapter {folder} trains biases, which cannot be served beside its base", fix)


def _scale(config: dict[str, Any], name: str, rank: int) -> float:
    """Return the factor of one layer, as peft defines it."""
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
