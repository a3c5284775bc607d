"""The settings of image preprocessing: read them from the spec or the base model, and write them for transformers.

The spec's settings are `data.image` in trainer/spec/data.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cluster.errors import ModelError, SpecError
from cluster.files import read_json
from trainer.spec.data import ImageSpec

#: Read by transformers' AutoImageProcessor; it makes the model's folder usable without raymill.
PREPROCESSOR_FILE = "preprocessor_config.json"

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_DEFAULT_SIZE = 224
# As in ConvNextImageProcessor, which ResNet and RegNet use too: images of this size or more are not cropped.
_NO_CROP_FROM, _CROP_PCT = 384, 224 / 256


def step_params(image: ImageSpec, base: Path | None) -> dict[str, Any]:
    """Return the parameters of the contract's step `image`.

    Each comes from the spec, else from the base model, else it is raymill's default.
    Raises `SpecError` if the number of means or standard deviations does not match the channels, and `ModelError` if
    raymill cannot preprocess images as the base model requires.
    """
    params = _base_params(base) if base else _plain_params(_DEFAULT_SIZE, _DEFAULT_SIZE, "crop", None)
    if image.resize and image.resize != params["resize"]:
        params = _plain_params(params["height"], params["width"], image.resize, None)
    if image.size:
        short = round(image.size * params["short"] / min(params["height"], params["width"]))
        params = {**params, "height": image.size, "width": image.size, "short": short}
    channels = 3 if image.mode == "rgb" else 1
    for name, values in {"mean": image.mean, "std": image.std}.items():
        params[name] = (
            _spread_over_channels(values, channels, f"data.image.{name}")
            if values
            else _fit_to_channels(params.get(name), channels)
        )
    return {"resample": "bilinear", **params, "mode": image.mode, "max_pixels": image.max_pixels}


def library_config(params: dict[str, Any]) -> dict[str, Any] | None:
    """Return a preprocessor_config.json that makes transformers produce the same pixels; None if it cannot."""
    processor = {"crop": "CLIPImageProcessor", "stretch": "ViTImageProcessor"}.get(params["resize"])
    if processor is None:
        return None
    size = {"height": params["height"], "width": params["width"]}
    crop = {"size": {"shortest_edge": params["short"]}, "do_center_crop": True, "crop_size": size}
    return {
        "image_processor_type": processor,
        "do_convert_rgb": params["mode"] == "rgb",
        "do_resize": True,
        **(crop if params["resize"] == "crop" else {"size": size}),
        "resample": next(number for number, name in _RESAMPLE.items() if name == params["resample"]),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": params["mean"],
        "image_std": params["std"],
    }


def _base_params(base: Path) -> dict[str, Any]:
    if not (base / PREPROCESSOR_FILE).is_file():
        size = read_json(base / "config.json").get("image_size")
        height, width = _sides(size if isinstance(size, (int, list)) else _DEFAULT_SIZE)
        return _plain_params(height, width, "crop", None)
    try:
        return _params_of_config(read_json(base / PREPROCESSOR_FILE))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{base / PREPROCESSOR_FILE} cannot be read: {error!r}",
            "save it again, or set `size`, `mean` and `std` in `data.image`",
        ) from error


def _params_of_config(config: dict[str, Any]) -> dict[str, Any]:
    _check_supported(config)
    params = _params_of_size(config)
    if isinstance(config.get("resample"), int):
        params["resample"] = _RESAMPLE.get(config["resample"], "bilinear")
    normalizes = config.get("do_normalize", True)
    return {
        **params,
        "mean": config.get("image_mean") if normalizes else [0.0],
        "std": config.get("image_std") if normalizes else [1.0],
    }


def _check_supported(config: dict[str, Any]) -> None:
    factor = config.get("rescale_factor", 1 / 255)
    if config.get("do_flip_channel_order"):
        required = "channels in the order blue, green, red"
    elif not math.isclose(factor, 1 / 255, rel_tol=1e-3):
        required = f"pixels times {factor}"
    else:
        return
    raise ModelError(f"{PREPROCESSOR_FILE} of the base model requires {required}", "choose another base model")


def _params_of_size(config: dict[str, Any]) -> dict[str, Any]:
    size = config.get("size", _DEFAULT_SIZE)
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    crop = config.get("crop_size")
    if crop is not None and config.get("do_center_crop", True):
        height, width = _sides(crop)
        return _plain_params(height, width, "crop", max(min(_sides(size)), height, width))
    if config.get("crop_pct") is not None or kind.startswith("ConvNext"):
        side = min(_sides(size))
        crops = side < _NO_CROP_FROM
        pct = config.get("crop_pct") or _CROP_PCT
        return _plain_params(side, side, "crop" if crops else "stretch", int(side / pct) if crops else None)
    height, width = _sides(size)
    has_short_side = isinstance(size, dict) and "shortest_edge" in size
    return _plain_params(height, width, "crop" if has_short_side else "stretch", None)


def _sides(size: Any) -> tuple[int, int]:
    """Return (height, width) of a size in any of the forms that transformers uses."""
    if isinstance(size, dict):
        short = size.get("shortest_edge")
        return (short, short) if short else (int(size["height"]), int(size["width"]))
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[-1])
    return int(size), int(size)


def _plain_params(height: int, width: int, resize: str, short: int | None) -> dict[str, Any]:
    return {"height": height, "width": width, "resize": resize, "short": short or max(height, width)}


def _spread_over_channels(values: list[float], channels: int, key: str) -> list[float]:
    """Return one value per channel; a single value is used for all."""
    if len(values) not in (1, channels):
        raise SpecError(
            f"{key} has {len(values)} values, but images have {channels} channels",
            "give one value, or one per channel",
        )
    return [float(value) for value in values] * (channels // len(values))


def _fit_to_channels(values: list[float] | None, channels: int) -> list[float]:
    """Return a base model's values for this number of channels. If the number differs, each channel gets their mean."""
    values = values or [0.5]
    if len(values) != channels:
        values = [sum(values) / len(values)] * channels
    return [float(value) for value in values]
