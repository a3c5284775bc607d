"""The `train:` section of the spec: one fine-tuning. Neither torch nor ray is loaded here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.spec.data import FUNCTION_PATTERN
from trainer.spec.section import Fraction, Positive, Section, Seed


class Augment(Section):
    """Images changed at random while training, never when answering; off by default."""

    crop: Annotated[int, Field(ge=0, le=256)] = 0
    """Shift by up to this many pixels in both directions: what is uncovered is filled with the edge."""
    flip: bool = False
    """Mirror every second image left to right."""
    mixup: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Blend pairs of images and their classes, with shares drawn from Beta(mixup, mixup); 0.2 is common. 0 is off."""


class Loss(Section):
    """What the training makes small. Validation figures are those of the target whatever stands here."""

    kind: Literal["auto", "focal"] = "auto"
    """`auto` is the target's own: cross entropy, squared error. `focal` (classes and tags) counts rows less that are
    right already (Lin et al. 2017)."""
    gamma: Annotated[float, Field(ge=0.0, le=10.0)] = 2.0
    """Focal loss: how much less; 0 is cross entropy."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Classes: this share of a row's weight is spread over all classes."""
    function: Annotated[str, Field(pattern=FUNCTION_PATTERN)] | None = None
    """A loss of your own, `my_module:my_loss`: called with logits (B, C), targets and class weights (or None), it returns
    the loss summed over the B rows."""

    @model_validator(mode="after")
    def _is_one_loss(self) -> Loss:
        if self.function and (self.kind != "auto" or self.label_smoothing):
            raise ValueError("function replaces the loss: take kind and label_smoothing out")
        return self


class Checkpoints(Section):
    """What a training keeps to go on from after an interruption; the best model is kept beside it in any case."""

    every_steps: Positive | None = None
    """Save after so many optimiser steps."""
    every_minutes: Annotated[float, Field(gt=0)] | None = 5
    """Save after so many minutes. What lies between two saves is done again after a crash."""
    keep: Positive = 2
    """How many are kept, the newest."""


class Train(Section):
    """One fine-tuning."""

    epochs: Positive = 3
    """Passes over the training rows."""
    max_steps: Positive | None = None
    """End after so many optimiser steps, if that is before the last epoch's end."""
    max_time_s: Annotated[float, Field(gt=0)] | None = None
    """End after so many seconds of training, those before an interruption included."""
    batch_size: Positive = 32
    """Rows of one optimiser step, over all workers together, however many there are."""
    micro_batch_size: Positive | None = None
    """Most rows that a worker puts through the model at a time: its part of a step is added up from several passes
    (gradient accumulation), with the same result. Default: all at a time."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 5e-5
    """Peak learning rate, reached after the warm-up."""
    head_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Peak learning rate of what is new in the model, its head. Default: the same."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Each layer below the head learns at so much of the rate of the one above it, as 0.9. Default: all alike."""
    freeze: list[str] = Field(default_factory=list)
    """Parameters that stay as they are, by name with `*`, as `bert.embeddings.*`."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw` is torch's, fused; `adamw_8bit` keeps its state in 8 bits (bitsandbytes, needs a GPU)."""
    schedule: Literal["linear", "cosine", "constant", "wsd"] = "linear"
    """How the rate falls after the warm-up: in a line or a half cosine to 0, not at all, or not until `decay_fraction` of
    all steps is left, then in a line to 0 (warm-up, stable, decay)."""
    decay_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Schedule `wsd`: the share of all steps in which the rate falls."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """AdamW's weight decay; biases and normalisation weights have none."""
    warmup_fraction: Fraction = 0.1
    """Share of all steps in which the learning rate rises from 0."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Gradients are scaled down to at most this norm."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """What matrices are multiplied in. `auto` takes bf16 where the hardware multiplies faster in it, else fp32. Weights are
    kept in fp32 either way. `fp16` scales the loss; it is for GPUs older than bf16."""
    loss: Loss = Field(default_factory=Loss)
    """What is made small."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Validate and keep the running mean of the weights, as 0.999 of the mean and 0.001 of each step. Default: the weights
    themselves."""
    gradient_checkpointing: bool = False
    """Compute layers again in the backward pass instead of keeping them: less memory, about a third slower."""
    deterministic: bool = False
    """On a GPU: only algorithms that give the same bits each time. On CPUs they all do."""
    checkpoint: Checkpoints = Field(default_factory=Checkpoints)
    """What is kept to go on from after an interruption."""
    early_stopping_patience: Positive | None = None
    """Stop after this many epochs without a better validation metric. Default: never."""
    seed: Seed = 42
    """Seed of the order of rows, the new head's weights and dropout."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How many times a worker that died is replaced; the run goes on from its last checkpoint."""
    augment: Augment = Field(default_factory=Augment)
    """Images only."""
    folds: Annotated[int, Field(ge=2, le=50)] | None = None
    """Tables only: judge a training by cross-validation, the mean over so many folds of the training and validation rows;
    the model itself is then fitted on all of them. Default: by the validation rows."""
