"""The `model:` section of the spec: what training starts from. Neither torch nor ray is loaded here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainer.spec.data import FUNCTION_PATTERN
from trainer.spec.section import Fraction, Positive, Section


class Lora(Section):
    """Small matrices beside the weights learn, the weights themselves stay (peft)."""

    rank: Positive = 16
    """Rank of the small matrices."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """They count `alpha / rank` times. Default: twice the rank."""
    dropout: Fraction = 0.0
    """Dropout before them."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Layers that get them, by the end of their names, as `[query, value]`."""
    save: Literal["merged", "adapter"] = "merged"
    """`merged` adds them to the weights: a plain model. `adapter` keeps them and the head alone, to be put on the base."""


class Model(Section):
    """What is trained: a pre-trained model, a new one from a config, or an estimator for tables."""

    base: Annotated[str, Field(min_length=1)] | None = None
    """A hub id, a local folder, or `package://some_package/folder` inside an installed Python package. Tasks on texts need
    one; tasks on images take it or `config`."""
    config: dict[str, Any] | None = None
    """Images: a transformers config, as `{model_type: resnet, depths: [1, 1]}`; the model is built from it and trained from
    scratch."""
    kind: Annotated[str, Field(min_length=1)] | None = None
    """Tables: which estimator, as `xgboost`; `raymill tasks` lists them."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Tables: the estimator's own parameters, as `{max_depth: 4}`."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Dropout of the head. Default: as the base model has it."""

    lora: Lora | None = None
    """Learn small matrices beside the weights instead of the weights. Default: all weights learn."""
    factory: Annotated[str, Field(pattern=FUNCTION_PATTERN)] | None = None
    """A model of your own, `my_module:build`: called with the base model's folder and the number of outputs, it returns a
    torch module that gives `logits` (docs/training.md)."""

    @model_validator(mode="after")
    def _is_one_model(self) -> Model:
        if self.lora and (self.factory or self.config is not None):
            raise ValueError(
                f"model.lora is for a pre-trained model; with model.{'factory' if self.factory else 'config'} take it out: "
                "what begins at random must learn as a whole"
            )
        if self.base is not None and self.config is not None:
            raise ValueError("give model.base or model.config, not both: a config means a new model")
        return self
