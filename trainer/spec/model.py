"""The `model:` section of a spec: what training starts from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainer.spec.chat import TokenizerSpec
from trainer.spec.section import FUNCTION_PATTERN, Fraction, Positive, SpecSection


class LoraSpec(SpecSection):
    """Train small matrices beside the weights and leave the weights unchanged (peft)."""

    rank: Positive = 16
    """Rank of the small matrices."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """The output of the small matrices is scaled by `alpha / rank`. Default: twice the rank."""
    dropout: Fraction = 0.0
    """Dropout before the small matrices. Not for text generation."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Layers that get small matrices, by the end of their names, for example `[query, value]`."""
    modules_to_save: list[str] = Field(default_factory=list)
    """Layers that are trained whole and saved with the matrices, by the end of their names, for example `[lm_head]`."""
    rslora: bool = False
    """Scale the output of the small matrices by `alpha / sqrt(rank)`, so that high ranks learn as fast (rank-stabilized
    LoRA)."""
    dora: bool = False
    """Train the length of each output's weights apart from their direction (DoRA): slower, sometimes better at low ranks."""
    save: Literal["merged", "adapter"] = "merged"
    """`merged`: add the matrices to the weights, which gives a plain model; `adapter`: save only the matrices and the
    head, which need the base model."""


class ModelSpec(SpecSection):
    """What is trained: a pre-trained model, a new model from a config, or an estimator for tables."""

    base: Annotated[str, Field(min_length=1)] | None = None
    """A hub id, a local folder, or `package://some_package/folder` inside an installed Python package. Text tasks
    require it; image tasks take it or `config`."""
    config: dict[str, Any] | None = None
    """Images: a transformers config, for example `{model_type: resnet, depths: [1, 1]}`. The model is built from it and
    trained from scratch."""
    tokenizer: TokenizerSpec | None = None
    """Text generation: the tokenizer of a new model (`config`), made from the training rows. Default: the base model's."""
    kind: Annotated[str, Field(min_length=1)] | None = None
    """Tables: the estimator, for example `xgboost`; `raymill tasks` lists them."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Tables: the parameters of the estimator, for example `{max_depth: 4}`."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Dropout of the head. Default: the base model's."""

    lora: LoraSpec | None = None
    """Train small matrices beside the weights instead of the weights. Default: train all weights."""
    quantize: Literal["nf4"] | None = None
    """Text generation with `lora` on a GPU: hold the base model's weights in 4 bits (QLoRA, bitsandbytes)."""
    factory: Annotated[str, Field(pattern=FUNCTION_PATTERN)] | None = None
    """A custom model, `my_module:build`: a function that takes the base model's folder and the number of outputs, and
    returns a torch module that returns `logits` (docs/how-to/own-model-or-loss.md)."""

    @model_validator(mode="after")
    def _check_one_model(self) -> ModelSpec:
        if self.lora and (self.factory or self.config is not None):
            other = "model.factory" if self.factory else "model.config"
            raise ValueError(
                "model.lora needs a pre-trained model, because a new model must train all weights; remove "
                f"`model.lora` or `{other}`"
            )
        if self.quantize and (self.lora is None or self.lora.save != "adapter"):
            raise ValueError(
                f"model.quantize: {self.quantize} needs model.lora with `save: adapter`: only small matrices can be trained "
                "beside weights of 4 bits, and merging them into such weights would change the model"
            )
        if self.base is not None and self.config is not None:
            raise ValueError("give model.base or model.config, not both: a config means a new model")
        return self
