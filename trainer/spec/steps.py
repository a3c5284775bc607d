"""The `data.steps:` section of a spec: cleaning steps, in order, with their parameters."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trainer.spec.section import FUNCTION_PATTERN, Positive, Seed, SpecSection

#: A name in `redact.patterns`.
REDACTED_NAME_PATTERN = r"^[a-z][a-z0-9_]*$"


class NormalizeSpec(SpecSection):
    """Write equivalent texts in the same way: Unicode form, white space, case."""

    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode form: NFC joins letters and their accents; NFKC also turns ligatures and full-width letters into plain
    ones."""
    whitespace: bool = True
    """Replace runs of spaces, tabs and line ends by one space and remove them at both ends."""
    lowercase: bool = False
    """Turn all letters into lower case."""


class StripHtmlSpec(SpecSection):
    """Remove tags, comments, scripts and styles, and turn entities into characters. Takes no parameters."""


class RedactSpec(SpecSection):
    """Replace personal data by its kind in brackets, for example [EMAIL], so that it is neither learned nor served."""

    kinds: list[Literal["email", "card", "phone", "ip", "url"]] = Field(default=["email", "card"])
    """Built-in patterns. A card number counts only if its check digit is right."""
    patterns: dict[Annotated[str, Field(pattern=REDACTED_NAME_PATTERN)], str] = Field(default_factory=dict)
    """Custom patterns: name -> regular expression. For example `{order: "ORD-[0-9]+"}` writes [ORDER]."""

    @field_validator("patterns")
    @classmethod
    def _check_patterns(cls, patterns: dict[str, str]) -> dict[str, str]:
        for name, pattern in patterns.items():
            try:
                if re.compile(pattern).match(""):
                    raise ValueError(
                        f"{name}: {pattern!r} matches the empty text, so it would match everywhere; "
                        "change it so that it matches at least one character"
                    )
            except re.error as error:
                raise ValueError(f"{name}: {pattern!r} is not a valid regular expression: {error}") from None
        return patterns


class DeduplicateSpec(SpecSection):
    """Keep the first of equal rows and leave out the others; with `near`, near-equal rows too. They do not count as bad
    rows."""

    near: Annotated[float, Field(ge=0.5, lt=1.0)] | None = None
    """Two texts are near-duplicates if they share at least this part of their five-character pieces (Jaccard
    similarity, estimated with MinHash). Default: only equal texts are duplicates."""


class BalanceSpec(SpecSection):
    """Give all classes the same weight in training."""

    method: Literal["undersample", "oversample", "weight"] = "weight"
    """`undersample`: leave rows of larger classes out; `oversample`: repeat rows of smaller classes; `weight`: weight
    the loss."""


class SampleSpec(SpecSection):
    """Train on a part of the training rows, chosen by seed and content."""

    rows: Positive | None = None
    """Approximate number of rows to use."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Share of the rows to use."""
    seed: Seed = 17
    """Changes which rows are used."""

    @model_validator(mode="after")
    def _check_one_size(self) -> SampleSpec:
        if (self.rows is None) == (self.fraction is None):
            raise ValueError("give exactly one of rows and fraction")
        return self


class FunctionSpec(SpecSection):
    """A custom step: a function that takes a text and returns the text to use, or None to reject the row."""

    function: Annotated[str, Field(pattern=FUNCTION_PATTERN)]
    """`module:function`. The module lies in the working directory or elsewhere on your Python path, but not in
    site-packages."""


class StepSpec(SpecSection):
    """One step: its name with parameters, for example `normalize: {lowercase: true}`, or the name alone."""

    normalize: NormalizeSpec | None = None
    """Write equivalent texts in the same way. Requests go through it too."""
    strip_html: StripHtmlSpec | None = None
    """Remove HTML. Requests go through it too."""
    redact: RedactSpec | None = None
    """Replace personal data such as e-mail addresses and card numbers. Requests go through it too."""
    python: FunctionSpec | None = None
    """Call a custom function. Requests go through it too."""
    deduplicate: DeduplicateSpec | None = None
    """Leave out equal or near-equal rows."""
    balance: BalanceSpec | None = None
    """Give all classes the same weight. Training rows only."""
    sample: SampleSpec | None = None
    """Use a part of the training rows."""

    @model_validator(mode="after")
    def _check_one_step(self) -> StepSpec:
        names = [name for name, params in self if params is not None]
        if len(names) != 1:
            raise ValueError(
                f"each item of steps holds one step, and this one holds {', '.join(names) or 'none'}; "
                "begin each step with `- `"
            )
        return self

    @property
    def name(self) -> str:
        """Name of the step."""
        return next(name for name, params in self if params is not None)

    @property
    def params(self) -> Any:
        """Parameters of the step, a `SpecSection`."""
        return getattr(self, self.name)


def _expand_step(value: Any) -> Any:
    """Return the long form of a step that is written as its name alone, or as `module:function`."""
    if isinstance(value, str):
        return {"python": {"function": value}} if ":" in value else {value: {}}
    if isinstance(value, dict):
        with_params = {name: params for name, params in value.items() if params is not None}
        return with_params or {name: {} for name in value}  # a resolved spec lists the other steps as null
    return value


#: One item of `data.steps`: a step, its name alone, or `module:function`.
StepItem = Annotated[StepSpec, BeforeValidator(_expand_step, json_schema_input_type=str | StepSpec)]
