"""The task image-classification: predicts the class of an image, one of the classes of the training rows.

Letters in shapes: B images, K channels, H and W pixels.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cluster.errors import SpecError
from cluster.files import write_json
from trainer.contract.contract import Contract, Step
from trainer.models import custom
from trainer.models.base_model import locate_base_model
from trainer.models.model_facts import ModelFacts, base_model_facts
from trainer.models.save import save_torch_model
from trainer.spec.run import RunSpec
from trainer.steps.cleaner import dataset_steps
from trainer.targets.classes import Classes
from trainer.tasks.base import Task
from trainer.tasks.draft_options import DraftedSections, DraftFacts
from trainer.tasks.encoder import Columns, Encoded, Encoder
from trainer.tasks.fitting import unfitted_contract
from trainer.tasks.images import preprocessor
from trainer.tasks.spec_keys import TORCH_LOOP_KEYS

if TYPE_CHECKING:
    import torch

    from trainer.tasks.images.decode import ImageForm
    from trainer.tasks.images.models import ImageShape
    from trainer.tasks.rows import RowsView

_STEP = "image"
# A gray PNG of one pixel.
_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="


class ImageEncoder(Encoder):
    """Turns the bytes of image files into pixels of one size, uint8, flat in the order H, W, K."""

    number_type = pa.uint8()

    def __init__(self, form: ImageForm) -> None:
        self._form = form

    def __call__(self, columns: Columns) -> Encoded:
        from trainer.tasks.images.decode import UnusableImage, decode_image

        inputs: list[np.ndarray] = []
        reasons: list[str | None] = []
        for raw in columns["image"]:
            try:
                inputs.append(decode_image(raw, self._form).reshape(-1))
                reasons.append(None)
            except UnusableImage as error:
                inputs.append(np.empty(0, np.uint8))
                reasons.append(str(error))
        return Encoded(inputs, reasons if any(reasons) else None)


class ImageClassification(Task):
    """Trains `AutoModelForImageClassification`, pre-trained or new from a config."""

    name = "image-classification"
    roles = {"image": "the image's file, or its bytes", "label": "its class"}  # noqa: RUF012  read-only
    target = Classes()
    request = "base64 of an image; or an image as the whole body"
    models = "base: an image model of transformers; or config: a new one"
    used_keys = TORCH_LOOP_KEYS | {"data.image", "train.augment"}
    binary_roles = frozenset({"image"})
    max_body_bytes = 16 << 20
    other_bodies = (
        ("-H 'content-type: image/jpeg' --data-binary @photo.jpg", "one image as the body"),
        ("-F image=@one.png -F image=@two.png", "a form with one image or several"),
    )

    # -- rows

    def check_spec(self, spec: RunSpec) -> None:
        self._check_text_settings(spec)
        base = self._base(spec)
        params = preprocessor.step_params(spec.data.image, base)
        if spec.train.augment.crop >= params["width"]:
            raise SpecError(
                f"train.augment.crop={spec.train.augment.crop} shifts images of {params['width']} pixels out of view",
                "set `train.augment.crop` to about a tenth of the size",
            )
        if spec.model.factory:
            custom.check_factory(spec)
            return
        from trainer.tasks.images import models

        if base:
            models.check_base(base, _input_shape(params))
        else:
            models.check_config(spec.model.config or {}, _input_shape(params))

    def _check_text_settings(self, spec: RunSpec) -> None:
        for step in spec.data.steps:
            if step not in dataset_steps(spec.data) or (step.deduplicate and step.deduplicate.near):
                raise SpecError(
                    f"data.steps has {step.name}, which is for texts; {self.name} has no texts",
                    "remove it from `data.steps`",
                )
        if spec.model.dropout is not None:
            raise SpecError(
                f"model.dropout is for texts; {self.name} does not use it",
                "set dropout in `model.config`, under the name that the model uses",
            )
        if spec.model.lora and spec.model.lora.save == "adapter":
            raise SpecError(f"model.lora.save: adapter is for texts, not for {self.name}", "use `save: merged`")

    def make_contract(self, spec: RunSpec, folder: Path) -> Contract:
        params = preprocessor.step_params(spec.data.image, self._base(spec))
        _write_library_config(params, folder)
        return unfitted_contract(self, spec, steps=[Step(name=_STEP, params=params)], types={"image": "image"})

    def encoder(self, contract: Contract, folder: Path) -> ImageEncoder:
        from trainer.tasks.images.decode import ImageForm

        return ImageEncoder(ImageForm.from_params(contract.step_params(_STEP)))

    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        import torch

        params = contract.step_params(_STEP)
        shape = _input_shape(params)
        flat = torch.from_numpy(np.stack(inputs))
        pixels_BHWK = flat.reshape(-1, shape.height, shape.width, shape.channels).float() / 255
        pixels_BHWK = (pixels_BHWK - torch.tensor(params["mean"])) / torch.tensor(params["std"])
        return {"pixel_values": pixels_BHWK.permute(0, 3, 1, 2)}

    # -- requests

    def parse(self, contract: Contract, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        from trainer.tasks.images.requests import read_images

        return {"image": read_images(inputs, contract.step_params(_STEP)["max_pixels"])}

    def body_inputs(self, contract: Contract, body: bytes, content_type: str) -> list[Any] | None:
        from trainer.tasks.images.requests import images_of_body

        return images_of_body(body, content_type)

    def as_request(self, contract: Contract, columns: Columns) -> list[Any]:
        return [base64.b64encode(raw).decode("ascii") for raw in columns["image"]]

    def example(self, contract: Contract) -> Any:
        return _EXAMPLE

    # -- model

    def new_model(self, contract: Contract, spec: RunSpec) -> Any:
        from trainer.tasks.images import models

        if spec.model.factory:
            return custom.build_custom_model(spec, self.target.width(contract.fitted))
        shape, labels = _input_shape(contract.step_params(_STEP)), self.target.labels(contract.fitted)
        base = self._base(spec)
        if base:
            return models.model_from_base(base, shape, labels)
        return models.model_from_config(spec.model.config or {}, shape, labels)

    def model_facts(self, spec: RunSpec) -> ModelFacts:
        from trainer.tasks.images import models

        if spec.model.config is None:
            return base_model_facts(spec)
        shape = _input_shape(preprocessor.step_params(spec.data.image, None))
        return ModelFacts(models.count_weights(spec.model.config, shape), 1.0, is_pretrained=False)

    def model_on_meta(self, spec: RunSpec, outputs: int) -> Any | None:
        from trainer.tasks.images import models

        base = self._base(spec)
        shape = _input_shape(preprocessor.step_params(spec.data.image, base))
        return models.model_on_meta(base, spec.model.config or {}, shape, outputs)

    def batch_on_meta(self, spec: RunSpec, rows: int, length: int) -> dict[str, torch.Tensor]:
        import torch

        shape = _input_shape(preprocessor.step_params(spec.data.image, self._base(spec)))
        return {"pixel_values": torch.empty(rows, *shape, device="meta")}

    def save_model(self, model: Any, contract: Contract, folder: Path) -> None:
        save_torch_model(model, folder)
        _write_library_config(contract.step_params(_STEP), folder)

    def load_model(self, folder: Path) -> torch.nn.Module:
        from trainer.tasks.images import models

        if custom.holds_custom_model(folder):
            return custom.load_custom_model(folder)
        return models.load_image_model(folder).module

    def augment(
        self, spec: RunSpec, contract: Contract, batch: dict[str, torch.Tensor], targets: torch.Tensor, seed: int
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        from trainer.tasks.images.augment import augment_images

        n_classes = self.target.width(contract.fitted)
        pixels, targets = augment_images(batch["pixel_values"], targets, spec.train.augment, n_classes, seed)
        return {"pixel_values": pixels}, targets

    def _base(self, spec: RunSpec) -> Path | None:
        """Return the base model's folder, or None for a new model. Raises `SpecError` if the spec has neither."""
        if spec.model.base is None and spec.model.config is None and spec.model.factory is None:
            raise SpecError(
                f"model.base and model.config are missing; {self.name} needs one of them",
                "set `base` to a hub id or a folder, or `config: {model_type: resnet, ...}` for a new model",
            )
        return None if spec.model.base is None else locate_base_model(spec.model.base)

    # -- drafts

    def draft(self, facts: DraftFacts) -> DraftedSections:
        from trainer.tasks.images.draft import draft_image_sections

        return draft_image_sections(facts)

    # -- reporting

    def show(self, contract: Contract, columns: Columns) -> list[str]:
        from trainer.tasks.images.thumbnail import thumbnail

        return [thumbnail(raw) for raw in columns["image"]]

    def profile(self, parts: Mapping[str, RowsView], contract: Contract, model: Any, folder: Path) -> dict[str, Any]:
        from trainer.tasks.images.profile import build_image_profile

        return build_image_profile(parts, _input_shape(contract.step_params(_STEP)).channels)

    def check_against_library(
        self, contract: Contract, folder: Path, columns: Columns, inputs: list[np.ndarray]
    ) -> str:
        from trainer.tasks.images.library_check import compare_pixels

        params = contract.step_params(_STEP)
        ours = self.collate(contract, inputs)["pixel_values"].numpy() if inputs else np.empty(0)
        return compare_pixels(folder, columns["image"], params["mode"], params["max_pixels"], ours, params["std"])


def _input_shape(params: Mapping[str, Any]) -> ImageShape:
    """Return the shape of a model input from the parameters of the contract's step."""
    from trainer.tasks.images.models import ImageShape

    return ImageShape(3 if params["mode"] == "rgb" else 1, params["height"], params["width"])


def _write_library_config(params: dict[str, Any], folder: Path) -> None:
    config = preprocessor.library_config(params)
    if config:
        write_json(folder / preprocessor.PREPROCESSOR_FILE, config)
