"""The `evaluate.answers:` section of a spec: answers that a language model writes to held-out prompts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainer.spec.section import FUNCTION_PATTERN, Positive, SpecSection

AnswerMetricName = Literal["exact_match", "bleu", "chrf", "rouge_l", "json_valid", "answer_score", "pass_at_k"]


class AnswersSpec(SpecSection):
    """Write an answer to each held-out prompt with the engine of endpoints, and compare it with the row's own."""

    metrics: Annotated[list[AnswerMetricName], Field(min_length=1)] = Field(default=["exact_match", "chrf"])
    """What is computed. `exact_match`: the answer equals the row's; `bleu`, `chrf`, `rouge_l`: how near it is;
    `json_valid`: rows whose own answer is JSON get JSON, of `schema` if it is given; `answer_score`: the mean of
    `function`; `pass_at_k`: the chance that one of `samples` answers has a `function` of at least 1."""
    max_tokens: Positive = 64
    """The most tokens of an answer."""
    max_rows: Positive | None = None
    """Write answers for this many held-out rows, the first ones. Default: all."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """0: the most probable token, always."""
    samples: Positive = 1
    """Answers to each prompt, for `pass_at_k`."""
    stop: list[str] = Field(default_factory=list)
    """Texts that end an answer, besides the end of the turn."""
    json_schema: dict[str, Any] | None = None
    """`json_valid`: the JSON schema that answers must match."""
    function: Annotated[str, Field(pattern=FUNCTION_PATTERN)] | None = None
    """`answer_score` and `pass_at_k`: your function, `my_module:score`. It takes the prompt, the answer and the row's
    own answer, as texts, and returns a number."""
    shown: Annotated[int, Field(ge=0, le=100)] = 8
    """How many answers the report shows, beside those of the champion."""

    @model_validator(mode="after")
    def _check_metrics(self) -> AnswersSpec:
        needs = [name for name in ("answer_score", "pass_at_k") if name in self.metrics]
        if needs and not self.function:
            raise ValueError(
                f"{needs[0]} needs a function; set `function: my_module:score`, or remove it from `metrics`"
            )
        if self.function and not needs:
            raise ValueError("function is not used; add `answer_score` or `pass_at_k` to `metrics`")
        if self.json_schema is not None and "json_valid" not in self.metrics:
            raise ValueError("json_schema is not used; add `json_valid` to `metrics`")
        if self.samples > 1 and "pass_at_k" not in self.metrics:
            raise ValueError(f"samples: {self.samples} is only for pass_at_k; add it to `metrics`, or remove `samples`")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("with temperature: 0 all samples are equal; set a `temperature` above 0, such as 0.8")
        return self
