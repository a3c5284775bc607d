"""The `train.method:` section of a spec: what a language model learns from its rows."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trainer.spec.section import FUNCTION_PATTERN, Positive, SpecSection

MethodKind = Literal["sft", "dpo", "ipo", "orpo", "kto", "simpo", "grpo"]

#: The methods that learn from pairs of a chosen and a rejected answer.
PAIR_METHODS = frozenset({"dpo", "ipo", "orpo", "simpo"})
#: The methods that compare the model with the one that training starts from.
REFERENCE_METHODS = frozenset({"dpo", "ipo", "kto"})

_DEFAULT_BETA: dict[MethodKind, float] = {
    "sft": 0.0,
    "dpo": 0.1,
    "ipo": 0.1,
    "orpo": 0.1,
    "kto": 0.1,
    "simpo": 2.0,
    "grpo": 0.0,
}
_LOSSES = ("dpo", "ipo", "orpo", "kto", "simpo", "grpo")
#: Key -> the methods that use it.
_USED_BY: dict[str, tuple[str, ...]] = {
    "beta": _LOSSES,
    "label_smoothing": ("dpo", "simpo"),
    "margin": ("simpo",),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
    "rewards": ("grpo",),
    "rollout": ("grpo",),
    "clip": ("grpo",),
    "clip_high": ("grpo",),
    "updates": ("grpo",),
    "scale_advantages": ("grpo",),
    "mean_over": ("grpo",),
}

#: The rewards that raymill has; any other is `module:function`.
SHIPPED_REWARDS = ("exact_match", "regex", "unit_tests")


class RewardSpec(SpecSection):
    """One reward of an answer. Several are added up, each times its weight."""

    kind: Annotated[str, Field(min_length=1)]
    """`exact_match`: 1 if the answer is the row's completion; `regex`: 1 if the answer matches `pattern`; `unit_tests`: 1 if
    the answer's Python code passes the row's completion, a script of tests; or your own `my_module:reward`, a function
    that takes the prompt, the answer and the row's completion (texts) and returns a number."""
    weight: Annotated[float, Field(ge=-1000.0, le=1000.0)] = 1.0
    """The reward counts this many times."""
    pattern: str | None = None
    """`regex`: a regular expression of Python that must match somewhere in the answer."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    """`unit_tests`: seconds that the tests of one answer may take."""
    memory_mb: Annotated[int, Field(ge=32, le=65536)] = 512
    """`unit_tests`: memory that the tests of one answer may use."""

    @field_validator("kind")
    @classmethod
    def _check_kind(cls, kind: str) -> str:
        if kind not in SHIPPED_REWARDS and not re.fullmatch(FUNCTION_PATTERN, kind):
            raise ValueError(f"{kind!r} is no reward; write {', '.join(SHIPPED_REWARDS)}, or `my_module:function`")
        return kind

    @model_validator(mode="after")
    def _check_pattern(self) -> RewardSpec:
        if (self.kind == "regex") != (self.pattern is not None):
            raise ValueError("kind: regex needs `pattern`, and no other kind uses it")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern: {self.pattern!r} is no regular expression: {error}") from None
        return self


def _expand_reward(value: Any) -> Any:
    """Return the long form of a reward that is written as its kind alone."""
    return {"kind": value} if isinstance(value, str) else value


RewardItem = Annotated[RewardSpec, BeforeValidator(_expand_reward, json_schema_input_type=str | RewardSpec)]


class RolloutSpec(SpecSection):
    """How the model answers the prompts in training."""

    prompts: Positive = 16
    """Prompts of one step, over all workers together. They take the place of `train.tokens_per_step`."""
    samples: Annotated[int, Field(ge=2, le=1024)] = 8
    """Answers to each prompt. An answer's advantage is its reward minus the mean of these answers."""
    max_tokens: Positive = 256
    """The most tokens of an answer; a longer one is cut there."""
    temperature: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    """The logits are divided by it before sampling."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Sample from the most probable tokens that have this much probability together."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample from this many of the most probable tokens; 0: from all."""


class MethodSpec(SpecSection):
    """What a language model learns from its rows: to continue them, to prefer answers, or to earn rewards."""

    kind: MethodKind = "sft"
    """`sft`: to give the answers of the rows. `dpo`, `ipo`, `orpo`, `simpo`: to prefer the chosen answer of a pair to the
    rejected one. `kto`: the same from single answers that are desirable or not. `grpo`: to give answers that earn a
    reward."""
    beta: Annotated[float, Field(ge=0.0, le=100.0)] | None = None
    """`dpo`, `ipo`, `kto`: how strongly the model is held to the one that training starts from; `orpo`: weight of the
    preference beside the likelihood of the chosen answer; `simpo`: scale of the rewards; `grpo`: weight of the KL
    divergence from the base model (needs `model.lora`). Default: 0.1; `simpo` 2; `grpo` 0."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """`dpo`, `simpo`: the share of the pairs whose chosen and rejected answers may have been swapped."""
    margin: Annotated[float, Field(ge=0.0, le=100.0)] = 1.0
    """`simpo`: the reward of the chosen answer should be larger than that of the rejected one by this much."""
    desirable_weight: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """`kto`: weight of the desirable answers; raise it if they are rare."""
    undesirable_weight: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """`kto`: weight of the undesirable answers; raise it if they are rare."""
    rewards: list[RewardItem] = Field(default_factory=list)
    """`grpo`: what is rewarded, for example `[exact_match]` or `[my_module:reward]`."""
    rollout: RolloutSpec = Field(default_factory=RolloutSpec)
    """`grpo`: how the model answers the prompts in training."""
    clip: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """`grpo`: a token's probability is not moved further than by this share since the answers were sampled."""
    clip_high: Annotated[float, Field(gt=0.0, le=10.0)] | None = None
    """`grpo`: the same for tokens that become more probable. Default: `clip`."""
    updates: Annotated[int, Field(ge=1, le=16)] = 1
    """`grpo`: optimizer steps with the same answers. With 1, nothing is ever clipped."""
    scale_advantages: bool = True
    """`grpo`: divide the advantages of a prompt's answers by the standard deviation of their rewards."""
    mean_over: Literal["tokens", "answers"] = "tokens"
    """`grpo`: the loss is the mean over all tokens of a step, or over its answers, of which each is the mean over its
    tokens."""

    @model_validator(mode="after")
    def _check_keys_fit_kind(self) -> MethodSpec:
        for key, kinds in _USED_BY.items():
            default = type(self).model_fields[key].get_default(call_default_factory=True)
            if self.kind not in kinds and getattr(self, key) != default:
                raise ValueError(f"kind: {self.kind} does not use {key}; remove `{key}`")
        if self.kind == "grpo" and not self.rewards:
            raise ValueError("kind: grpo needs `rewards`, for example `[exact_match]`")
        if self.kind in ("ipo", "simpo") and self.beta == 0:
            raise ValueError(f"beta: {self.kind} needs a beta above 0")
        return self

    @property
    def samples_answers(self) -> bool:
        """Whether the model answers the prompts in training, instead of learning the answers of the rows."""
        return self.kind == "grpo"

    @property
    def strength(self) -> float:
        """`beta`, or its default for this method."""
        return _DEFAULT_BETA[self.kind] if self.beta is None else self.beta


def _expand_method(value: Any) -> Any:
    """Return the long form of a method that is written as its kind alone."""
    return {"kind": value} if isinstance(value, str) else value


#: A method: its kind alone, or its keys.
MethodField = Annotated[MethodSpec, BeforeValidator(_expand_method, json_schema_input_type=MethodKind | MethodSpec)]
