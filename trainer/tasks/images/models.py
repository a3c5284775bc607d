"""Models of transformers for images: a pre-trained one with a new head, or a new one from a config."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.errors import ModelError, SpecError, nearest
from cluster.files import read_json
from trainer.models import pretrained

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

# Known from the labels and `data.image`: two places that say it could say different things.
_SET_HERE = {
    "num_labels": "the training rows' labels",
    "id2label": "the training rows' labels",
    "label2id": "the training rows' labels",
    "num_channels": "data.image.mode",
    "image_size": "data.image.size",
}


class Input(NamedTuple):
    """What a model is fed."""

    channels: int
    height: int
    width: int


def new_config(given: dict[str, Any], fed: Input, labels: list[str]) -> PretrainedConfig:
    """Return the transformers config of `model.config`; raises `SpecError` for one that is none."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    rest = dict(given)
    kind = rest.pop("model_type", None)
    if kind not in KNOWN:
        what = f"model.config.model_type={kind!r} is no model for images" if kind else "model.config has no model_type"
        raise SpecError(what, nearest(str(kind), KNOWN) if kind else "add one, as model_type: resnet")
    for key in rest:
        if key in _SET_HERE:
            raise SpecError(f"model.config.{key} comes from {_SET_HERE[key]}", "take it out of model.config")
    standard = AutoConfig.for_model(kind)
    known = {*standard.to_dict(), *standard.attribute_map} - {"transformers_version", "architectures", "dtype"}
    for key in rest:
        if key not in known:
            raise SpecError(f"model.config.{key} is no key of transformers' {kind}", nearest(key, known))
    try:
        found = AutoConfig.for_model(kind, **rest)
        return _fitted(found, fed, labels)
    except Exception as error:  # transformers' configs raise whatever their own checks do
        said = " ".join(line.strip() for line in str(error).splitlines()) or repr(error)
        raise SpecError(f"model.config is no config of transformers' {kind}: {said[:500]}", "correct it") from error


def from_config(given: dict[str, Any], fed: Input, labels: list[str]) -> torch.nn.Module:
    """Return a new model with random weights."""
    from transformers import AutoModelForImageClassification

    pretrained.quiet()
    model: torch.nn.Module = AutoModelForImageClassification.from_config(new_config(given, fed, labels))
    return model


def from_base(folder: Path, fed: Input, labels: list[str]) -> torch.nn.Module:
    """Return a pre-trained model with a new head."""
    changes = {"image_size": _image_size(fed)} if "image_size" in read_json(folder / "config.json") else {}
    return load(folder, ignore_mismatched_sizes=True, **changes, **_of_labels(labels))


def load(folder: Path, **changes: Any) -> torch.nn.Module:
    """Return the model saved in `folder`. Raises `ModelError` if it cannot be loaded."""
    return pretrained.load("AutoModelForImageClassification", folder, **changes)


def check_config(given: dict[str, Any], fed: Input) -> None:
    """Raise `SpecError` if no model can be made of a `model.config`, or it takes no images of this size."""
    problem = _problem(new_config(given, fed, ["a", "b"]).to_json_string(), fed)
    if problem:
        raise SpecError(
            f"the model of model.config cannot take images of {fed.height} x {fed.width} pixels: {problem}",
            "correct model.config, or change data.image.size",
        )


def check_base(folder: Path, fed: Input) -> None:
    """Raise `ModelError` or `SpecError` if the base model is not one for images, or not for images like these."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in KNOWN:
        raise ModelError(
            f"the base model is of the kind {kind!r}, which is none for images",
            "take one of resnet, vit, convnext, ...",
        )
    channels = config.get("num_channels", 3)
    if channels != fed.channels:
        raise SpecError(
            f"the base model takes {channels} channels, and data.image.mode gives {fed.channels}",
            f"set data.image.mode to {'rgb' if channels == 3 else 'grey'}",
        )
    trained = config.get("image_size")
    if trained is None or trained == _image_size(fed):
        return
    if _shapes(json.dumps(config)) != _shapes(json.dumps({**config, "image_size": _image_size(fed)})):
        raise SpecError(
            f"data.image.size={fed.height}, but the base model was trained for images of {trained} pixels and takes no others",
            f"set data.image.size to {trained}, or take it out",
        )


def _fitted(config: PretrainedConfig, fed: Input, labels: list[str]) -> PretrainedConfig:
    if hasattr(config, "num_channels"):
        config.num_channels = fed.channels
    if hasattr(config, "image_size"):
        config.image_size = _image_size(fed)
    for name, value in _of_labels(labels).items():
        setattr(config, name, value)
    return config


def _image_size(fed: Input) -> int | list[int]:
    return fed.height if fed.height == fed.width else [fed.height, fed.width]


def _of_labels(labels: list[str]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _without_weights(config_json: str) -> torch.nn.Module:
    """Return the model on torch's device `meta`: shapes alone, no memory and no arithmetic."""
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification

    values = json.loads(config_json)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model: torch.nn.Module = AutoModelForImageClassification.from_config(config)
    return model.eval()


@lru_cache(maxsize=8)
def _problem(config_json: str, fed: Input) -> str:
    """Return why images cannot go through the model, "" if they can."""
    import torch

    try:
        model = _without_weights(config_json)
        with torch.inference_mode():
            model(pixel_values=torch.empty(2, *fed, device="meta"))
    except NotImplementedError:  # something that torch cannot do without values: nothing is known
        return ""
    except Exception as error:  # whatever the model's own code stumbles over
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return ""


@lru_cache(maxsize=8)
def _shapes(config_json: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(value.shape)) for name, value in _without_weights(config_json).state_dict().items())
