"""The model and the size of a drafted spec for images. How it is trained follows from the rows: `train:` stays `auto`."""

from __future__ import annotations

from typing import Any

from trainer.tasks.draft_options import Doubt, DraftedSections, DraftFacts

_HUB_BASE = "microsoft/resnet-18"
# Smaller images are learned from scratch: a pre-trained model has never seen such images.
_MAX_SMALL_SIDE = 64
# `data.image.size` is a multiple of the step, so that strides divide it.
_SIZE_STEP, _MIN_SIZE = 8, 16
_SMALL_RESNET: dict[str, Any] = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 32,
    "hidden_sizes": [32, 64],
    "depths": [1, 1],
    "downsample_in_first_stage": False,
}


def draft_image_sections(facts: DraftFacts) -> DraftedSections:
    """Return `data` and `model`: a small new model for small images, else a pre-trained one."""
    shorter = min(facts.image_size or (_MAX_SMALL_SIDE + 1,) * 2)
    if facts.base is None and shorter <= _MAX_SMALL_SIDE:
        return _new_model(facts, shorter)
    base = facts.base or _HUB_BASE
    if facts.base:
        return DraftedSections({"model": {"base": base}}, {"model.base": "from --base"})
    comments = {"model.base": "pre-trained on ImageNet: the first run downloads it from the hub"}
    download = Doubt(
        f"the first run downloads the base model {base} from the hub",
        "without a network, name a folder with --base, or replace `model.base` by "
        "`model.config: {model_type: resnet, layer_type: basic, depths: [1, 1, 1, 1], hidden_sizes: [32, 64, 128, 256]}`",
    )
    return DraftedSections({"model": {"base": base}}, comments, doubts=(download,))


def _new_model(facts: DraftFacts, shorter: int) -> DraftedSections:
    size = max(_MIN_SIZE, -(-shorter // _SIZE_STEP) * _SIZE_STEP)
    image: dict[str, Any] = {"size": size}
    comments = {
        "data.image.size": "pixels",
        "model.config": "a small ResNet that is trained from scratch: needs no network",
        "cluster.cpus_per_worker": "the model is too small to use a second core well",
    }
    if facts.is_gray:
        image["mode"] = "gray"
        comments["data.image.mode"] = "all images that were looked at are gray"
    sentence = (
        f"The images have only {shorter} pixels, so a small new ResNet is trained from scratch. If they are photographs, "
        "name a pre-trained model with --base, for example microsoft/resnet-18."
    )
    return DraftedSections(
        {
            "data": {"image": image},
            "model": {"config": dict(_SMALL_RESNET)},
            "cluster": {"cpus_per_worker": 1},
        },
        comments,
        (sentence,),
    )
