"""Image classification: one image in, one of the classes seen in training out. The parts are in `trainer.images`.

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
from trainer.models import base_model, custom
from trainer.spec.run import RunSpec
from trainer.steps import cleaner
from trainer.targets.base import LOOP
from trainer.targets.classes import Classes
from trainer.tasks.base import Task
from trainer.tasks.encoder import Columns, Encoded, Encoder
from trainer.tasks.images import preprocessor

if TYPE_CHECKING:
    import torch

    from trainer.tasks.images.decode import Form
    from trainer.tasks.images.models import Input
    from trainer.tasks.rows import Rows

_STEP = "image"
# A grey PNG of one pixel.
_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="


class ImageEncoder(Encoder):
    """Bytes of image files to pixels of one size, uint8, flat in the order H, W, K."""

    number = pa.uint8()

    def __init__(self, form: Form) -> None:
        self._form = form

    def __call__(self, columns: Columns) -> Encoded:
        from trainer.tasks.images.decode import Unusable, decode

        inputs: list[np.ndarray] = []
        reasons: list[str | None] = []
        for raw in columns["image"]:
            try:
                inputs.append(decode(raw, self._form).reshape(-1))
                reasons.append(None)
            except Unusable as error:
                inputs.append(np.empty(0, np.uint8))
                reasons.append(str(error))
        return Encoded(inputs, reasons if any(reasons) else None)


class ImageClassification(Task):
    """Trains `AutoModelForImageClassification`: pre-trained, or new from a config."""

    name = "image-classification"
    roles = {"image": "the image's file, or its bytes", "label": "its class"}  # noqa: RUF012  read-only
    target = Classes()
    request = "base64 of an image; or an image as the whole body"
    models = "base: an image model of transformers; or config: a new one"
    uses = LOOP | {"data.image", "train.augment"}
    binary = frozenset({"image"})
    max_body_bytes = 16 << 20
    other_bodies = (
        ("-H 'content-type: image/jpeg' --data-binary @photo.jpg", "one image as it is"),
        ("-F image=@one.png -F image=@two.png", "a form with one image or many"),
    )

    # -- rows

    def check_spec(self, spec: RunSpec) -> None:
        for step in spec.data.steps:
            if step not in cleaner.of_whole(spec.data) or (step.deduplicate and step.deduplicate.near):
                raise SpecError(f"data.steps has {step.name}, which is for texts; {self.name} has none", "take it out")
        if spec.model.dropout is not None:
            raise SpecError(
                f"model.dropout is for texts; {self.name} does not use it",
                "set it in model.config, by the model's own name",
            )
        if spec.model.lora and spec.model.lora.save == "adapter":
            raise SpecError(f"model.lora.save: adapter is for texts, not for {self.name}", "use merged")
        base = self._base(spec)
        params = preprocessor.step_params(spec.data.image, base)
        if spec.train.augment.crop >= params["width"]:
            raise SpecError(
                f"train.augment.crop={spec.train.augment.crop} shifts images of {params['width']} pixels out of sight",
                "take a tenth of the size or so",
            )
        if spec.model.factory:
            custom.check(spec)
            return
        from trainer.tasks.images import models

        if base:
            models.check_base(base, _fed(params))
        else:
            models.check_config(spec.model.config or {}, _fed(params))

    def begin(self, spec: RunSpec, folder: Path) -> Contract:
        params = preprocessor.step_params(spec.data.image, self._base(spec))
        library = preprocessor.library_config(params)
        if library:
            write_json(folder / preprocessor.FILE, library)
        return Contract(
            task=spec.task,
            columns=self.columns(spec),
            types={"image": "image", self.target_role: self.target.kind},
            steps=[Step(name=_STEP, params=params)],
            fitted={},
            files={},
        )

    def encoder(self, contract: Contract, folder: Path) -> ImageEncoder:
        from trainer.tasks.images.decode import Form

        return ImageEncoder(Form.of(contract.step(_STEP)))

    # -- requests

    def parse(self, contract: Contract, inputs: Sequence[Any]) -> dict[str, list[Any]]:
        from trainer.tasks.images.requests import images_of

        return {"image": images_of(inputs, contract.step(_STEP)["max_pixels"])}

    def as_request(self, contract: Contract, columns: Columns) -> list[Any]:
        return [base64.b64encode(raw).decode("ascii") for raw in columns["image"]]

    def example(self, contract: Contract) -> Any:
        return _EXAMPLE

    def show(self, contract: Contract, columns: Columns) -> list[str]:
        from trainer.tasks.images.thumbnail import thumbnail

        return [thumbnail(raw) for raw in columns["image"]]

    def body_inputs(self, contract: Contract, body: bytes, content_type: str) -> list[Any] | None:
        from trainer.tasks.images.requests import bodies

        return bodies(body, content_type)

    # -- model

    def new_model(self, contract: Contract, spec: RunSpec) -> torch.nn.Module:
        from trainer.tasks.images import models

        if spec.model.factory:
            return custom.build(spec, self.target.width(contract.fitted))
        fed, labels = _fed(contract.step(_STEP)), self.target.labels(contract.fitted)
        base = self._base(spec)
        return models.from_base(base, fed, labels) if base else models.from_config(spec.model.config or {}, fed, labels)

    def load_model(self, folder: Path) -> torch.nn.Module:
        from trainer.tasks.images import models

        return custom.load(folder) if custom.is_saved_in(folder) else models.load(folder)

    def save_model(self, model: torch.nn.Module, contract: Contract, folder: Path) -> None:
        if custom.is_own(model):
            custom.save(model, folder)
        else:
            model.save_pretrained(folder, safe_serialization=True)  # type: ignore[operator]
        library = preprocessor.library_config(contract.step(_STEP))
        if library:
            write_json(folder / preprocessor.FILE, library)

    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        import torch

        params = contract.step(_STEP)
        fed = _fed(params)
        pixels_BHWK = torch.from_numpy(np.stack(inputs).reshape(-1, fed.height, fed.width, fed.channels)).float() / 255
        pixels_BHWK = (pixels_BHWK - torch.tensor(params["mean"])) / torch.tensor(params["std"])
        return {"pixel_values": pixels_BHWK.permute(0, 3, 1, 2)}

    def augment(
        self, spec: RunSpec, contract: Contract, batch: dict[str, torch.Tensor], targets: torch.Tensor, seed: int
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        from trainer.tasks.images.augment import augment

        classes = self.target.width(contract.fitted)
        pixels, targets = augment(batch["pixel_values"], targets, spec.train.augment, classes, seed)
        return {"pixel_values": pixels}, targets

    def profile(self, parts: Mapping[str, Rows], contract: Contract, model: Any, folder: Path) -> dict[str, Any]:
        from trainer.tasks.images import profile as image_profile

        return image_profile.build(parts, _fed(contract.step(_STEP)).channels)

    def library_agrees(self, contract: Contract, folder: Path, columns: Columns, inputs: list[np.ndarray]) -> str:
        from trainer.tasks.images import library_check

        params = contract.step(_STEP)
        ours = self.collate(contract, inputs)["pixel_values"].numpy() if inputs else np.empty(0)
        return library_check.compare(
            folder, columns["image"], params["mode"], params["max_pixels"], ours, params["std"]
        )

    def _base(self, spec: RunSpec) -> Path | None:
        """Return the base model's folder, or None where the model is made from a config; raises `SpecError` for neither."""
        if spec.model.base is None and spec.model.config is None and spec.model.factory is None:
            raise SpecError(
                f"model.base and model.config are missing; {self.name} needs one of them",
                "give base: a hub id or a folder, or config: {model_type: resnet, ...} for a new model",
            )
        return None if spec.model.base is None else base_model.locate(spec.model.base)


def _fed(params: Mapping[str, Any]) -> Input:
    """Return what the model is fed by the contract's step."""
    from trainer.tasks.images.models import Input

    return Input(3 if params["mode"] == "rgb" else 1, params["height"], params["width"])
