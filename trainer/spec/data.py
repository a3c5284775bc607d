"""The `data:` section of a spec: sources, columns, checks, cleaning, images, splits."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from trainer.spec.chat import ChatSpec
from trainer.spec.features import FeatureSpecs
from trainer.spec.format import FormatField, FormatSpec
from trainer.spec.section import Fraction, SpecSection
from trainer.spec.split import SplitSpec
from trainer.spec.steps import StepItem


class QuerySpec(SpecSection):
    """Rows of a database, read once into an Arrow file in the storage folder."""

    url: Annotated[str, Field(min_length=1)]
    """A SQLAlchemy URL without a password, or `env:NAME`: the environment variable that holds the URL."""
    query: Annotated[str, Field(min_length=1)]
    """The SELECT whose rows are used."""


class FileSpec(SpecSection):
    """Files with a format of their own, where a part of the data has several formats."""

    path: Annotated[str, Field(min_length=1)]
    """A file, a folder, a pattern or an address."""
    format: FormatField
    """How these files are read, instead of `data.format`."""


def _kind_of_source(value: Any) -> str:
    """Return which form a source has, so that a mistake gives one message and not one for each form."""
    if isinstance(value, FileSpec) or (isinstance(value, dict) and "path" in value):
        return "<file>"
    if isinstance(value, (dict, QuerySpec)):
        return "<query>"
    return "<paths>" if isinstance(value, list) else "<path>"


def _kind_of_entry(value: Any) -> str:
    """Return which form an entry in a list of sources has."""
    return "<file>" if isinstance(value, (dict, FileSpec)) else "<path>"


_Entry = Annotated[Annotated[str, Tag("<path>")] | Annotated[FileSpec, Tag("<file>")], Discriminator(_kind_of_entry)]

#: A path, a path with a format, a list of them, or a query.
Sources = Annotated[
    Annotated[str, Field(min_length=1), Tag("<path>")]
    | Annotated[FileSpec, Tag("<file>")]
    | Annotated[list[_Entry], Tag("<paths>")]
    | Annotated[QuerySpec, Tag("<query>")],
    Discriminator(_kind_of_source),
]


class ImageSpec(SpecSection):
    """How images become equally large inputs, in training and in requests."""

    size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Height and width in pixels. Default: the base model's size, else 224."""
    mode: Literal["rgb", "gray"] = "rgb"
    """`rgb`: three channels; `gray`: one channel."""
    resize: Literal["crop", "stretch", "pad"] | None = None
    """`crop`: fit the shorter side and cut the center out; `stretch`: fit both sides; `pad`: fit the longer side and
    fill the rest with black. Default: as the base model was trained, else `crop`."""
    mean: list[Annotated[float, Field(ge=0.0, le=1.0)]] | None = None
    """Subtracted from each channel, whose values are 0 to 1. Default: the base model's mean, else 0.5."""
    std: list[Annotated[float, Field(gt=0.0, le=1.0)]] | None = None
    """Each channel is divided by it. Default: the base model's standard deviation, else 0.5."""
    max_pixels: Annotated[int, Field(ge=16, le=170_000_000)] = 50_000_000
    """An image with more pixels is a bad row; a request with it gets a 413. Decoding it could use up all memory."""


#: Problems that a spec may allow. They are found by comparing rows with each other.
AllowableIssue = Literal["duplicate", "contradicting labels", "also in train", "also in validation"]
ALLOWABLE_ISSUES = get_args(AllowableIssue)


class DataSpec(SpecSection):
    """Where the rows are and how they are read, cleaned, checked and split."""

    train: Sources
    """Training rows: a file, a folder, a glob, a list of them, an s3://, gs:// or hdfs:// address, hf://name[:config],
    or a database query; `{path: ..., format: ...}` for files with a format of their own. Files may be compressed (.gz,
    .bz2, .xz, .zst, .lz4, .zip)."""
    validation: Sources | None = None
    """Rows to choose the best checkpoint by. Default: split off the training rows."""
    test: Sources | None = None
    """Held-out rows for the final metrics and the gate. Default: split off the training rows."""
    format: FormatField = Field(default_factory=FormatSpec)
    """Format of all files: its kind alone, for example `csv`, or keys such as `{separator: ";", encoding: cp1252}`; those
    of `data.train.format` (docs/reference/data.md)."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Names of your columns by their role in the task, for example `{text: message, label: intent}`. Default: each
    column is named like its role."""
    labels: list[Annotated[str, Field(min_length=1)]] | None = None
    """The allowed classes: rows with another label are bad rows. Default: the classes of the training rows."""
    tag_separator: Annotated[str, Field(min_length=1)] = "|"
    """Separates the tags in a cell, for example `red|blue`. A cell that begins with `[` is a JSON list of tags. Only
    for tasks that predict tags."""
    max_chars: Annotated[int, Field(ge=1)] = 100_000
    """A longer text is a bad row."""
    allow_issues: list[AllowableIssue] = Field(default_factory=list)
    """Problems between rows that are allowed, for example duplicates: such rows are used and do not count as bad."""
    steps: list[StepItem] = Field(default_factory=list)
    """Cleaning steps, in order. Each is the step's name, its name with parameters, or your own `module:function`."""
    image: ImageSpec = Field(default_factory=ImageSpec)
    """How images are read. Images only."""
    chat: ChatSpec = Field(default_factory=ChatSpec)
    """How rows become tokens, and what is learned of them. Text generation only."""
    features: FeatureSpecs = Field(default_factory=dict)
    """Columns by kind, for example `{age: numeric, country: {kind: categorical}}`. Tasks on tables learn from them
    (docs/reference/features.md). Other tasks check them row by row and describe them in the model's profile."""
    split: SplitSpec = Field(default_factory=SplitSpec)
    """How rows are held out."""
    max_length: Annotated[int, Field(ge=4, le=1 << 20)] = 256
    """Maximum length of an input in tokens. A longer input is cut at the end. The model's own limit applies too. Text
    generation: the default is 2048, and `data.chat.overlong` says what becomes of a longer one."""
    max_bad_fraction: Fraction = 0.01
    """Share of bad rows above which a run stops before training. Bad rows are always listed with their reason."""
    mode: Literal["prepared", "streaming"] = "prepared"
    """`prepared`: training rows are written to shards first, and their order is exact. `streaming`: Ray Data feeds the
    training from the files in each epoch; only held-out rows are written, and training rows are not compared with each
    other."""

    @field_validator("labels")
    @classmethod
    def _check_no_repeats(cls, labels: list[str] | None) -> list[str] | None:
        seen: set[str] = set()
        for label in labels or []:
            if label in seen:
                raise ValueError(f"labels names {label!r} twice; list each class once")
            seen.add(label)
        return labels

    @model_validator(mode="after")
    def _check_split_is_used(self) -> DataSpec:
        separate = [part for part in ("validation", "test") if getattr(self, part)]
        if separate and self.split.test_from:
            raise ValueError(
                f"data.{separate[0]} and split.test_from exclude each other; remove `data.{separate[0]}`, or remove "
                "`split.validation_from` and `split.test_from`"
            )
        if len(separate) == 2 and self.split.by != "content":
            raise ValueError(
                f"validation and test are given, so there is nothing to split by {self.split.by}; remove `split`"
            )
        return self

    @model_validator(mode="after")
    def _check_streaming(self) -> DataSpec:
        if self.mode == "prepared":
            return self
        for step in self.steps:
            samples_by_count = step.sample and not step.sample.fraction
            repeats_or_drops = step.balance and step.balance.method != "weight"
            if step.name == "deduplicate" or samples_by_count or repeats_or_drops:
                raise ValueError(
                    f"mode: streaming cannot do the step {step.name} as given, because it compares all rows; "
                    "use `mode: prepared`, `balance: {method: weight}` or `sample: {fraction: ...}`"
                )
        if self.split.by == "time" and not self.split.test_from:
            raise ValueError("mode: streaming with split.by: time needs validation_from and test_from, not shares")
        return self
