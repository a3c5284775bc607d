"""transformers models for images: a pre-trained one with a new head, or a new one from a config."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.errors import ModelError, SpecError, first_line, suggest
from cluster.files import read_json
from trainer.models.new_model import NewModel
from trainer.models.pretrained import load_pretrained, model_without_weights, silence_transformers

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

# raymill sets these from the labels and from `data.image`; a value in `model.config` could contradict them.
_SET_BY_RAYMILL = {
    "num_labels": "the training rows' labels",
    "id2label": "the training rows' labels",
    "label2id": "the training rows' labels",
    "num_channels": "data.image.mode",
    "image_size": "data.image.size",
}


class ImageShape(NamedTuple):
    """The shape of one model input."""

    channels: int
    height: int
    width: int


def new_config(values: dict[str, Any], shape: ImageShape, labels: list[str]) -> PretrainedConfig:
    """Return the transformers config of `model.config`. Raises `SpecError` if it is not valid."""
    from transformers import AutoConfig

    known_types = _known_model_types()
    own_values = dict(values)
    model_type = own_values.pop("model_type", None)
    if model_type is None:
        raise SpecError("model.config has no model_type", "add one, for example `model_type: resnet`")
    if model_type not in known_types:
        raise SpecError(
            f"model.config.model_type={model_type!r} is not a model for images", suggest(str(model_type), known_types)
        )
    for key in own_values:
        if key in _SET_BY_RAYMILL:
            raise SpecError(f"model.config.{key} comes from {_SET_BY_RAYMILL[key]}", "remove it from `model.config`")
    default = AutoConfig.for_model(model_type)
    known_keys = {*default.to_dict(), *default.attribute_map} - {"transformers_version", "architectures", "dtype"}
    for key in own_values:
        if key not in known_keys:
            raise SpecError(f"model.config.{key} is not a key of transformers' {model_type}", suggest(key, known_keys))
    try:
        return _set_shape_and_labels(AutoConfig.for_model(model_type, **own_values), shape, labels)
    except Exception as error:  # transformers' configs raise whatever their own checks raise
        message = " ".join(line.strip() for line in str(error).splitlines()) or repr(error)
        raise SpecError(
            f"model.config is not a valid config of transformers' {model_type}: {message[:500]}",
            "correct the keys of `model.config` that transformers' message names",
        ) from error


def model_from_config(values: dict[str, Any], shape: ImageShape, labels: list[str]) -> torch.nn.Module:
    """Return a new model with random weights."""
    from transformers import AutoModelForImageClassification

    silence_transformers()
    model: torch.nn.Module = AutoModelForImageClassification.from_config(new_config(values, shape, labels))
    return model


def model_from_base(folder: Path, shape: ImageShape, labels: list[str]) -> NewModel:
    """Return a pre-trained model with a new head."""
    changes = {"image_size": _image_size(shape)} if "image_size" in read_json(folder / "config.json") else {}
    return load_image_model(folder, ignore_mismatched_sizes=True, **changes, **_label_settings(labels))


def count_weights(values: dict[str, Any], shape: ImageShape) -> int:
    """Return the number of weights of a new model, without creating them."""
    shapes = _weight_shapes(new_config(values, shape, ["a", "b"]).to_json_string())
    return sum(math.prod(shape) for _, shape in shapes)


def load_image_model(folder: Path, **changes: Any) -> NewModel:
    """Return the model saved in `folder`. Raises `ModelError` if it cannot be loaded."""
    return load_pretrained("AutoModelForImageClassification", folder, **changes)


def check_config(values: dict[str, Any], shape: ImageShape) -> None:
    """Raise `SpecError` if `model.config` is not valid, or its model does not take images of this shape."""
    problem = _problem(new_config(values, shape, ["a", "b"]).to_json_string(), shape)
    if problem:
        raise SpecError(
            f"the model of model.config cannot take images of {shape.height} x {shape.width} pixels: {problem}",
            "correct `model.config`, or change `data.image.size`",
        )


def check_base(folder: Path, shape: ImageShape) -> None:
    """Raise `ModelError` if the base model is not for images, `SpecError` if images have the wrong shape for it."""
    config = read_json(folder / "config.json")
    model_type = config.get("model_type")
    if model_type not in _known_model_types():
        raise ModelError(
            f"the base model has the type {model_type!r}, which is not for images",
            "choose a model such as resnet, vit or convnext",
        )
    channels = config.get("num_channels", 3)
    if channels != shape.channels:
        raise SpecError(
            f"the base model takes {channels} channels, and data.image.mode gives {shape.channels}",
            f"set `data.image.mode` to {'rgb' if channels == 3 else 'gray'}",
        )
    trained_size = config.get("image_size")
    if trained_size is None or trained_size == _image_size(shape):
        return
    resized = {**config, "image_size": _image_size(shape)}
    if _weight_shapes(json.dumps(config)) != _weight_shapes(json.dumps(resized)):
        raise SpecError(
            f"data.image.size={shape.height}, but the base model takes only images of {trained_size} pixels",
            f"set `data.image.size` to {trained_size}, or remove it",
        )


def _known_model_types() -> Any:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

    return MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES


def _set_shape_and_labels(config: PretrainedConfig, shape: ImageShape, labels: list[str]) -> PretrainedConfig:
    if hasattr(config, "num_channels"):
        config.num_channels = shape.channels
    if hasattr(config, "image_size"):
        config.image_size = _image_size(shape)
    for name, value in _label_settings(labels).items():
        setattr(config, name, value)
    return config


def _image_size(shape: ImageShape) -> int | list[int]:
    return shape.height if shape.height == shape.width else [shape.height, shape.width]


def _label_settings(labels: list[str]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def model_on_meta(folder: Path | None, values: dict[str, Any], shape: ImageShape, outputs: int) -> torch.nn.Module:
    """Return the base model in `folder`, or the one of a config, on torch's device `meta`."""
    labels = [str(number) for number in range(outputs)]
    if folder is None:
        return _model_without_weights(new_config(values, shape, labels).to_json_string())
    config = read_json(folder / "config.json")
    if "image_size" in config:
        config["image_size"] = _image_size(shape)
    return _model_without_weights(json.dumps({**config, **_label_settings(labels)}))


def _model_without_weights(config_json: str) -> torch.nn.Module:
    """Return the model on torch's device `meta`, ready to predict."""
    from transformers import AutoConfig

    values = json.loads(config_json)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model: torch.nn.Module = model_without_weights("AutoModelForImageClassification", config).eval()
    return model


@lru_cache(maxsize=8)
def _problem(config_json: str, shape: ImageShape) -> str:
    """Return why the model cannot take images of this shape, or "" if it can."""
    import torch

    try:
        model = _model_without_weights(config_json)
        with torch.inference_mode():
            model(pixel_values=torch.empty(2, *shape, device="meta"))
    except NotImplementedError:  # an operation needs the values of its tensors, so the model cannot be checked
        return ""
    except Exception as error:  # whatever the model's own code raises
        return first_line(error)
    return ""


@lru_cache(maxsize=8)
def _weight_shapes(config_json: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    weights = _model_without_weights(config_json).state_dict()
    return tuple((name, tuple(value.shape)) for name, value in weights.items())
