"""The size of a base model and the share of it that is trained, from the headers of its files: no weight is read."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from cluster.files import read_json
from trainer.models.base_model import locate_base_model
from trainer.spec.model import LoraSpec
from trainer.spec.run import RunSpec

_METADATA = "__metadata__"


class ModelFacts(NamedTuple):
    """What the defaults of a training depend on."""

    body_weights: int | None
    """Number of weights without the word embeddings, of which a step changes few; None if it is not known."""
    trainable_share: float
    """Share of the body's weights that is trained: above 0, at most 1."""
    is_pretrained: bool
    uses_lora: bool = False


#: A model of which nothing is known but that it is new, such as one that a custom task builds.
UNKNOWN_MODEL = ModelFacts(None, 1.0, is_pretrained=False)


def base_model_facts(spec: RunSpec) -> ModelFacts:
    """Return the facts of `model.base`; a model without one is new, and its size is not known.

    Downloads the model from the hub if it is not here yet. Raises `ModelError` as `locate_base_model` does.
    """
    if spec.model.base is None:
        return UNKNOWN_MODEL
    folder = locate_base_model(spec.model.base)
    shapes = {name: shape for name, shape in tensor_shapes(folder) if not is_word_embedding(folder, shape)}
    body = sum(map(math.prod, shapes.values()))
    if not body:
        return ModelFacts(None, 1.0, is_pretrained=True, uses_lora=spec.model.lora is not None)
    if spec.model.lora:
        trained = sum(lora_weights(spec.model.lora, name, shape) for name, shape in shapes.items())
    else:
        trained = sum(math.prod(shape) for name, shape in shapes.items() if not is_frozen(name, spec.train.freeze))
    share = min(1.0, max(trained, 1) / body)
    return ModelFacts(body, share, is_pretrained=True, uses_lora=spec.model.lora is not None)


def tensor_shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and the shape of every tensor in a model's folder that has at least one axis."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        for name, tensor in header.items():
            shape = () if name == _METADATA else tuple(tensor["shape"])
            if shape:
                yield name, shape


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a model's folder."""
    config: dict[str, Any] = read_json(folder / "config.json")
    return config


def is_word_embedding(folder: Path, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor of this shape has a row for each token of the model in `folder`."""
    return len(shape) == 2 and shape[0] == read_config(folder).get("vocab_size")


def is_frozen(name: str, patterns: list[str]) -> bool:
    """Return whether `train.freeze` matches a tensor. A model with a head may put a prefix such as `bert.` before it."""
    return any(fnmatchcase(name, pattern) or fnmatchcase(name, pattern.partition(".")[2]) for pattern in patterns)


def lora_weights(lora: LoraSpec, name: str, shape: tuple[int, ...]) -> int:
    """Return the number of weights of the small matrices beside one tensor; 0 if it gets none."""
    layer, _, kind = name.rpartition(".")
    is_target = lora.targets == "all-linear" or any(layer.endswith(target) for target in lora.targets)
    is_linear = len(shape) == 2 and kind == "weight" and "embedding" not in name.lower()
    return lora.rank * sum(shape) if is_linear and is_target else 0
