"""The `train:` section of a spec: how a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.spec.method import MethodField, MethodSpec
from trainer.spec.mixture import MixturePart
from trainer.spec.section import (
    AUTO,
    FUNCTION_PATTERN,
    FractionOrAuto,
    Positive,
    PositiveOrAuto,
    PositiveOrAutoOrNone,
    RateOrAuto,
    Seed,
    SpecSection,
)

#: The keys of `train:` that raymill chooses unless the spec sets them (`trainer.defaults`).
AUTO_KEYS = ("learning_rate", "epochs", "batch_size", "tokens_per_step", "warmup_fraction", "early_stopping_patience")


class AugmentSpec(SpecSection):
    """Random changes of images in training, never in requests. Off by default."""

    crop: Annotated[int, Field(ge=0, le=256)] = 0
    """Shift by up to this many pixels in both directions; the uncovered pixels are filled with the edge."""
    flip: bool = False
    """Mirror half of the images, chosen at random, left to right."""
    mixup: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Blend pairs of images and their classes, with shares drawn from Beta(mixup, mixup); 0.2 is common. 0 is off."""


class LossSpec(SpecSection):
    """The loss that training minimizes. Validation metrics do not depend on it."""

    kind: Literal["auto", "focal"] = "auto"
    """`auto`: the default of the target, cross entropy or squared error. `focal` (classes and tags): rows that are
    already right count less (Lin et al. 2017)."""
    gamma: Annotated[float, Field(ge=0.0, le=10.0)] = 2.0
    """Focal loss: how much less rows count that are already right; 0 is cross entropy."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Classes: the share of a row's weight that is spread over all classes."""
    function: Annotated[str, Field(pattern=FUNCTION_PATTERN)] | None = None
    """A custom loss, `my_module:my_loss`: a function that takes logits (B, C), targets and class weights (or None), and
    returns the loss summed over the B rows."""

    @model_validator(mode="after")
    def _check_one_loss(self) -> LossSpec:
        if self.function and (self.kind != "auto" or self.label_smoothing):
            raise ValueError("function replaces the loss; remove `kind` and `label_smoothing`")
        return self


class CheckpointSpec(SpecSection):
    """Which checkpoints a training saves to resume from after an interruption. The best model is saved in any case."""

    every_steps: Positive | None = None
    """Save after this many optimizer steps."""
    every_minutes: Annotated[float, Field(gt=0)] | None = 5
    """Save after this many minutes. After a crash, the work since the last checkpoint is repeated."""
    keep: Positive = 2
    """Number of checkpoints to keep, the newest."""


class TrainSpec(SpecSection):
    """How a model is trained."""

    epochs: PositiveOrAuto = AUTO
    """Passes over the training rows. `auto`: chosen from the number of rows and the model
    (docs/explanation/defaults.md)."""
    max_steps: Positive | None = None
    """Stop after this many optimizer steps, if that is before the end of the last epoch."""
    max_time_s: Annotated[float, Field(gt=0)] | None = None
    """Stop after this many seconds of training, including those before an interruption."""
    batch_size: PositiveOrAuto = AUTO
    """Rows per optimizer step, over all workers together, whatever their number. `auto`: chosen from the number of rows
    and their lengths."""
    micro_batch_size: Positive | None = None
    """Maximum number of rows that a worker puts through the model at a time. Larger parts of a batch take several
    passes (gradient accumulation), with the same result. Default: all at once."""
    tokens_per_step: PositiveOrAuto = AUTO
    """Language models: tokens per optimizer step, over all workers together, whatever their number. The steps of an epoch
    are as equal as whole rows allow. `auto`: chosen from the number of tokens and the model."""
    micro_batch_tokens: Positive | None = None
    """Language models: maximum number of tokens that a worker puts through the model at a time, or one longer row. A
    larger part of a step takes several passes, with the same result. Default: all at once."""
    sequence_tokens: Annotated[int, Field(ge=2)] | None = None
    """Language models: training cuts each row into sequences of this many tokens, which are shuffled on their own. Held-out
    rows and requests stay whole. For plain texts: the answers of conversations would be learned without what was asked."""
    learning_rate: RateOrAuto = AUTO
    """Peak learning rate, reached after the warm-up. `auto`: chosen from the size and the kind of the model, and the
    batch size."""
    head_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Peak learning rate of the new part of the model, its head. Default: `learning_rate`."""
    layerwise_lr_decay: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The learning rate of each layer below the head is that of the layer above times this factor, for example 0.9.
    Default: the same rate for all layers."""
    freeze: list[str] = Field(default_factory=list)
    """Parameters that are not trained, by name with `*`, for example `bert.embeddings.*`."""
    optimizer: Literal["adamw", "adamw_8bit", "muon"] = "adamw"
    """`adamw`: torch's, fused; `adamw_8bit`: state in 8 bits (bitsandbytes, needs a GPU); `muon`: Muon for the matrices of
    layers, AdamW for the rest, mostly for training from scratch."""
    matrix_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Optimizer `muon`: peak learning rate of the matrices of layers, on AdamW's scale. Default: `learning_rate`."""
    schedule: Literal["linear", "cosine", "constant", "wsd"] = "linear"
    """Learning rate after the warm-up. `linear`, `cosine`: falls to 0 in a line or a half cosine; `constant`: does not
    fall; `wsd` (warm-up, stable, decay): falls to 0 in a line over the last `decay_fraction` of all steps."""
    decay_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Schedule `wsd`: the share of all steps in which the rate falls."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """Weight decay of AdamW. Biases and normalization weights have none."""
    warmup_fraction: FractionOrAuto = AUTO
    """Share of all steps in which the learning rate rises from 0. `auto`: a tenth, and less for long trainings."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Gradients are scaled down to at most this norm."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Precision of matrix products. `auto`: bf16 if the hardware is faster with it, else fp32. Weights are fp32 in any
    case. `fp16` scales the loss; it is for GPUs without bf16."""
    loss: LossSpec = Field(default_factory=LossSpec)
    """The loss that training minimizes."""
    mixture: list[MixturePart] = Field(default_factory=list)
    """Language models: how often the rows of each file are used, and in which epochs. Every epoch has the same number of
    tokens. Default: every row once an epoch."""
    method: MethodField = Field(default_factory=MethodSpec)
    """Language models: what is learned from the rows, for example `dpo` or `{kind: dpo, beta: 0.2}`."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Validate and save the moving average of the weights. With 0.999, each step replaces 0.001 of the average by the
    new weights. Default: the weights themselves."""
    gradient_checkpointing: bool = False
    """Compute layers again in the backward pass instead of storing them: less memory, about a third slower."""
    offload_activations: bool = False
    """Hold large activations in main memory until the backward pass: longer sequences on a GPU, at the cost of copies."""
    deterministic: bool = False
    """On a GPU: use only algorithms that give the same bits each time. On a CPU, all algorithms do."""
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec)
    """Which checkpoints are saved to resume from after an interruption."""
    early_stopping_patience: PositiveOrAutoOrNone = AUTO
    """Stop after this many epochs without a better validation metric; `null`: never. `auto`: about half of the
    epochs if `epochs` is `auto` too, else never."""
    seed: Seed = 42
    """Seed of the order of rows, the new head's weights and dropout."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How many times a worker that died is replaced; the run resumes from its last checkpoint."""
    augment: AugmentSpec = Field(default_factory=AugmentSpec)
    """Random changes of images. Images only."""
    folds: Annotated[int, Field(ge=2, le=50)] | None = None
    """Tables only: evaluate a training by cross-validation. Its metrics are means over this many folds of the training
    and validation rows; the model itself is then fitted on all these rows. Default: evaluate on the validation rows."""

    @model_validator(mode="after")
    def _check_cut_rows(self) -> TrainSpec:
        if self.sequence_tokens is not None and self.method.kind != "sft":
            raise ValueError(f"sequence_tokens cuts texts, not the rows of method {self.method.kind}; remove it")
        return self

    # The keys that may be `auto`, as numbers. Each raises `ValueError` while the key is still `auto`.

    @property
    def n_epochs(self) -> int:
        """`epochs`."""
        return int(_number("epochs", self.epochs))

    @property
    def rows_per_step(self) -> int:
        """`batch_size`."""
        return int(_number("batch_size", self.batch_size))

    @property
    def n_tokens_per_step(self) -> int:
        """`tokens_per_step`."""
        return int(_number("tokens_per_step", self.tokens_per_step))

    @property
    def peak_learning_rate(self) -> float:
        """`learning_rate`."""
        return _number("learning_rate", self.learning_rate)

    @property
    def warmup_share(self) -> float:
        """`warmup_fraction`."""
        return _number("warmup_fraction", self.warmup_fraction)

    @property
    def patience(self) -> int | None:
        """`early_stopping_patience`; None: never stop early."""
        return None if self.early_stopping_patience == AUTO else self.early_stopping_patience


def _number(key: str, value: float | Literal["auto"]) -> float:
    if isinstance(value, str):
        raise ValueError(f"train.{key} is still auto; trainer.defaults.resolve chooses its value")
    return value
