"""How images are made alike: what a base model was trained with, what the spec says, and the same for transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cluster.errors import ModelError, SpecError
from cluster.files import read_json
from trainer.spec.data import Image

#: Read by transformers' AutoImageProcessor: beside the model, so that its folder works without raymill.
FILE = "preprocessor_config.json"

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_DEFAULT_SIZE = 224
# What ConvNextImageProcessor does, which ResNet and RegNet were published with: from here on nothing is cut off.
_NO_CROP_FROM, _CROP_PCT = 384, 224 / 256


def step_params(image: Image, base: Path | None) -> dict[str, Any]:
    """Return the parameters of the contract's step `image`: what the spec says, else the base model's, else our own.

    Raises `SpecError` for as many means as the images have no channels, `ModelError` for a base whose preparation
    cannot be done here.
    """
    found = _of_base(base) if base else _plain(_DEFAULT_SIZE, _DEFAULT_SIZE, "crop", None)
    if image.resize and image.resize != found["resize"]:
        found = _plain(found["height"], found["width"], image.resize, None)
    if image.size:
        short = round(image.size * found["short"] / min(found["height"], found["width"]))
        found = {**found, "height": image.size, "width": image.size, "short": short}
    channels = 3 if image.mode == "rgb" else 1
    for name, given in {"mean": image.mean, "std": image.std}.items():
        found[name] = (
            _by_channel(given, channels, f"data.image.{name}") if given else _of_channels(found.get(name), channels)
        )
    return {"resample": "bilinear", **found, "mode": image.mode, "max_pixels": image.max_pixels}


def library_config(params: dict[str, Any]) -> dict[str, Any] | None:
    """Return the preprocessor_config.json by which transformers makes the same pixels, or None where it has none such."""
    form = {"crop": "CLIPImageProcessor", "stretch": "ViTImageProcessor"}.get(params["resize"])
    if form is None:
        return None
    whole = {"height": params["height"], "width": params["width"]}
    cut = {"size": {"shortest_edge": params["short"]}, "do_center_crop": True, "crop_size": whole}
    return {
        "image_processor_type": form,
        "do_convert_rgb": params["mode"] == "rgb",
        "do_resize": True,
        **(cut if params["resize"] == "crop" else {"size": whole}),
        "resample": next(number for number, name in _RESAMPLE.items() if name == params["resample"]),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": params["mean"],
        "image_std": params["std"],
    }


def _of_base(base: Path) -> dict[str, Any]:
    if not (base / FILE).is_file():
        size = read_json(base / "config.json").get("image_size")
        height, width = _sides(size if isinstance(size, (int, list)) else _DEFAULT_SIZE)
        return _plain(height, width, "crop", None)
    try:
        return _taken_apart(read_json(base / FILE))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{base / FILE} cannot be read: {error!r}", "save it again, or give data.image.size, mean and std"
        ) from error


def _taken_apart(config: dict[str, Any]) -> dict[str, Any]:
    factor = config.get("rescale_factor", 1 / 255)
    if config.get("do_flip_channel_order") or not math.isclose(factor, 1 / 255, rel_tol=1e-3):
        what = (
            "the channels in the order blue, green, red"
            if config.get("do_flip_channel_order")
            else f"pixels times {factor}"
        )
        raise ModelError(f"{FILE} of the base model asks for {what}", "take another base model; this is not done here")
    size = config.get("size", _DEFAULT_SIZE)
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    crop = config.get("crop_size")
    if crop is not None and config.get("do_center_crop", True):
        height, width = _sides(crop)
        found = _plain(height, width, "crop", max(min(_sides(size)), height, width))
    elif config.get("crop_pct") is not None or kind.startswith("ConvNext"):
        side = min(_sides(size))
        crops = side < _NO_CROP_FROM
        pct = config.get("crop_pct") or _CROP_PCT
        found = _plain(side, side, "crop" if crops else "stretch", int(side / pct) if crops else None)
    else:
        height, width = _sides(size)
        only_short = isinstance(size, dict) and "shortest_edge" in size
        found = _plain(height, width, "crop" if only_short else "stretch", None)
    if isinstance(config.get("resample"), int):
        found["resample"] = _RESAMPLE.get(config["resample"], "bilinear")
    normal = config.get("do_normalize", True)
    return {
        **found,
        "mean": config.get("image_mean") if normal else [0.0],
        "std": config.get("image_std") if normal else [1.0],
    }


def _sides(size: Any) -> tuple[int, int]:
    """Return (height, width) of a size in any of the forms there are."""
    if isinstance(size, dict):
        found = size.get("shortest_edge")
        return (found, found) if found else (int(size["height"]), int(size["width"]))
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[-1])
    return int(size), int(size)


def _plain(height: int, width: int, resize: str, short: int | None) -> dict[str, Any]:
    return {"height": height, "width": width, "resize": resize, "short": short or max(height, width)}


def _by_channel(values: list[float], channels: int, what: str) -> list[float]:
    """Return one value a channel; a single one stands for all."""
    if len(values) not in (1, channels):
        raise SpecError(
            f"{what} has {len(values)} values, images have {channels} channels", "give one value, or one a channel"
        )
    return [float(value) for value in values] * (channels // len(values))


def _of_channels(values: list[float] | None, channels: int) -> list[float]:
    """Return a base model's values for as many channels; of three, a grey image takes the mean."""
    values = values or [0.5]
    if len(values) != channels:
        values = [sum(values) / len(values)] * channels
    return [float(value) for value in values]
