"""The `data:` section of a spec: sources, columns, checks, cleaning steps, splits.

Frozen pydantic models and nothing else, as in `trainer.spec.run`, which has the other sections. Over 250 lines because every
key stands here with its sentence.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from trainer.spec.features import Columns
from trainer.spec.section import Fraction, Positive, Section, Seed


class Query(Section):
    """Rows of a database, read once into an Arrow file under the storage folder."""

    url: Annotated[str, Field(min_length=1)]
    """A SQLAlchemy URL without a password, or `env:NAME`: the environment variable that holds the URL."""
    query: Annotated[str, Field(min_length=1)]
    """The SELECT whose rows are used."""


def _kind_of_source(given: Any) -> str:
    """Which of the three a value is meant to be, so that a mistake gets one message and not one for each."""
    if isinstance(given, (dict, Query)):
        return "<query>"
    return "<paths>" if isinstance(given, list) else "<path>"


Sources = Annotated[
    Annotated[str, Field(min_length=1), Tag("<path>")]
    | Annotated[list[str], Tag("<paths>")]
    | Annotated[Query, Tag("<query>")],
    Discriminator(_kind_of_source),
]

#: `module:function` of a step of the user's own.
FUNCTION_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
#: A name of `redact.patterns`.
REDACTED_NAME_PATTERN = r"^[a-z][a-z0-9_]*$"

# What every Python from 3.10 on reads alike; later ones read more.
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.([0-9]{3}|[0-9]{6}))?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)


def time_of(moment: str) -> dt.datetime:
    """Return a `Moment` as a time; without a zone it is UTC. Raises `ValueError` if it is none."""
    try:
        if not _MOMENT.fullmatch(moment):
            raise ValueError("another form")
        found = dt.datetime.fromisoformat(moment.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(
            f"{moment!r} is no time; write it as 2026-03-01, 2026-03-01T12:00:00Z or 2026-03-01T12:00:00+02:00"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=dt.timezone.utc)


def _as_text(given: Any) -> Any:
    """YAML makes a date of 2026-03-01 and a number of 2026."""
    if isinstance(given, dt.date):
        return given.isoformat()
    return str(given) if type(given) is int else given


def _is_time(moment: str) -> str:
    time_of(moment)
    return moment


#: A point in time as a spec may hold it: ISO 8601, as 2026-03-01 or 2026-03-01T12:00:00Z.
Moment = Annotated[str, BeforeValidator(_as_text), AfterValidator(_is_time)]


class Split(Section):
    """How rows are held out where `data.validation` or `data.test` name no files."""

    by: Literal["content", "group", "time"] = "content"
    """`content`: each row for itself; `group`: rows with the same value of `column` stay together; `time`: the newest
    rows by `column` are held out."""
    column: str | None = None
    """Column of the group or the time; needed for both, and for nothing else."""
    validation: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the training rows that is held out to choose the best checkpoint."""
    test: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the training rows that is held out for the final figures."""
    validation_from: Moment | None = None
    """`by: time`: rows from here on are the validation part. Unlike a share it does not move when rows are added."""
    test_from: Moment | None = None
    """`by: time`: rows from here on are the test part."""
    seed: Seed = 13
    """Changes which rows are held out. A row's place depends on the seed and its own content, not on its position and
    not on the other rows: adding rows moves none."""
    stratify: bool = False
    """`by: content`: see that every class of 5 rows or more is in all parts, by moving the nearest row of a class that the
    seed left out of one. Such a row may move again when the class grows; without it adding rows moves none."""

    @model_validator(mode="after")
    def _can_be_done(self) -> Split:
        if self.validation + self.test > 0.8:
            raise ValueError(
                f"validation={self.validation} and test={self.test} leave under a fifth of the rows to train on; "
                "keep their sum at 0.8 or less"
            )
        if (self.by == "content") != (self.column is None):
            rule = "needs `column`" if self.column is None else "takes no `column`"
            raise ValueError(f"by: {self.by} {rule}; by: group and by: time go by a column of your data")
        if self.stratify and self.by != "content":
            raise ValueError(f"stratify: true goes with by: content only, not with by: {self.by}; take one of them out")
        first, second = self.validation_from, self.test_from
        if (first or second) and (self.by != "time" or not (first and second)):
            raise ValueError("validation_from and test_from belong together, and to by: time")
        if first and second and not time_of(first) < time_of(second):
            raise ValueError(
                f"validation_from={first} must be before test_from={second} (without a zone they are UTC): "
                "the newest rows are the test"
            )
        return self


class Normalise(Section):
    """One spelling for what means the same."""

    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode form: NFC joins letters and their accents, NFKC also turns ligatures and full-width letters into plain ones."""
    whitespace: bool = True
    """Runs of spaces, tabs and line ends become one space; none is left at the ends."""
    lowercase: bool = False
    """Lower-case letters throughout."""


class StripHtml(Section):
    """Tags, comments, scripts and styles are taken out; entities become characters."""


class Redact(Section):
    """What must not be learned or served is replaced by its name in brackets, as [EMAIL]."""

    kinds: list[Literal["email", "card", "phone", "ip", "url"]] = Field(default=["email", "card"])
    """Known patterns. A card number counts only if its check digit is right."""
    patterns: dict[Annotated[str, Field(pattern=REDACTED_NAME_PATTERN)], str] = Field(default_factory=dict)
    """Your own: name -> regular expression, as `{order: "ORD-[0-9]+"}`, replaced by [ORDER]."""

    @field_validator("patterns")
    @classmethod
    def _are_patterns(cls, patterns: dict[str, str]) -> dict[str, str]:
        for name, pattern in patterns.items():
            try:
                if re.compile(pattern).match(""):
                    raise ValueError(f"{name}: {pattern!r} matches nothing at all, so it would be put everywhere")
            except re.error as error:
                raise ValueError(f"{name}: {pattern!r} is no regular expression: {error}") from None
        return patterns


class Deduplicate(Section):
    """Equal rows are left out beyond the first, and near-equal ones with `near`. They do not count as bad rows."""

    near: Annotated[float, Field(ge=0.5, lt=1.0)] | None = None
    """Share of common five-character pieces (Jaccard similarity, found by MinHash) from which two texts are near-duplicates.
    Default: exact ones only."""


class Balance(Section):
    """Classes of like weight in training."""

    how: Literal["undersample", "oversample", "weight"] = "weight"
    """`undersample`: leave rows of larger classes out; `oversample`: repeat rows of smaller ones; `weight`: weigh the loss."""


class Sample(Section):
    """A part of the training rows, chosen by seed and content."""

    rows: Positive | None = None
    """About how many rows to keep."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The share to keep."""
    seed: Seed = 17
    """Changes which rows are kept."""

    @model_validator(mode="after")
    def _is_one_size(self) -> Sample:
        if (self.rows is None) == (self.fraction is None):
            raise ValueError("give exactly one of rows and fraction")
        return self


class OwnFunction(Section):
    """A function of yours: takes a text, returns the text to use, or None for a row that must not be used."""

    function: Annotated[str, Field(pattern=FUNCTION_PATTERN)]
    """`module:function`; the module lies in the working directory or elsewhere on your Python path, but not in
    site-packages."""


def _long_form(given: Any) -> Any:
    """A step may be written as its name alone, and one of your own as `module:function`."""
    if isinstance(given, str):
        return {"python": {"function": given}} if ":" in given else {given: {}}
    if isinstance(given, dict):
        return {name: {} if params is None else params for name, params in given.items()}
    return given


class StepSpec(Section):
    """One step: its name and its parameters, as `normalise: {lowercase: true}`; the name alone for its defaults."""

    normalise: Normalise | None = None
    """One spelling for what means the same. Also done to a request."""
    strip_html: StripHtml | None = None
    """Take HTML out. Also done to a request."""
    redact: Redact | None = None
    """Replace e-mail addresses, card numbers and the like. Also done to a request."""
    python: OwnFunction | None = None
    """A function of your own. Also done to a request."""
    deduplicate: Deduplicate | None = None
    """Leave out equal or near-equal rows."""
    balance: Balance | None = None
    """Even the classes out. Training rows only."""
    sample: Sample | None = None
    """Take a part of the training rows."""

    @model_validator(mode="after")
    def _is_one_step(self) -> StepSpec:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(f"one step at a time, but this one has {', '.join(given) or 'none'}; begin each with `- `")
        return self

    @property
    def name(self) -> str:
        """Which step it is."""
        return next(name for name, value in self if value is not None)

    @property
    def params(self) -> Any:
        """Its parameters, a `Section`."""
        return getattr(self, self.name)


class Image(Section):
    """How images are made alike, for training and requests."""

    size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Height and width in pixels. Default: as the base model was trained, else 224."""
    mode: Literal["rgb", "grey"] = "rgb"
    """Three channels or one."""
    resize: Literal["crop", "stretch", "pad"] | None = None
    """`crop`: the shorter side is fitted and the middle cut out; `stretch`: both sides are fitted; `pad`: the longer side
    is fitted and the rest filled with black. Default: as the base model was trained, else `crop`."""
    mean: list[Annotated[float, Field(ge=0.0, le=1.0)]] | None = None
    """Subtracted from each channel (of 0 to 1). Default: the base model's, else 0.5."""
    std: list[Annotated[float, Field(gt=0.0, le=1.0)]] | None = None
    """Each channel is divided by it. Default: the base model's, else 0.5."""
    max_pixels: Annotated[int, Field(ge=16, le=170_000_000)] = 50_000_000
    """An image of more pixels is a bad row, and in a request a 413: decoding it could take all memory."""


#: Checks of the whole data that a spec may switch off.
Allowed = Literal["duplicate", "contradicting labels", "also in train", "also in validation"]
ALLOWED = get_args(Allowed)


class Data(Section):
    """Where the rows are and how they are read."""

    train: Sources
    """Training rows: a file, a folder, a glob, a list of them, an s3://, gs:// or hdfs:// address, hf://name[:config], or a
    database query. Files may be compressed (.gz, .bz2, .xz, .zst, .lz4)."""
    validation: Sources | None = None
    """Rows to choose the best checkpoint by. Default: split off the training rows."""
    test: Sources | None = None
    """Held-out rows for the final figures and the gate. Default: split off the training rows."""
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "arrow", "text", "images"] = "auto"
    """Format of all files; `auto` goes by the file's ending. `text`, `images`: a folder with a folder of text or image
    files for each class."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Names of your columns by their part in the task, as `{text: message, label: intent}`. Default: the same name."""
    labels: list[Annotated[str, Field(min_length=1)]] | None = None
    """The classes there may be: rows with another label are bad rows. Default: what the training rows hold."""
    tag_separator: Annotated[str, Field(min_length=1)] = "|"
    """What stands between the tags of one cell, as in `red|blue`. A cell that begins with `[` is a JSON list of tags. Only
    for tasks that predict tags."""
    max_chars: Annotated[int, Field(ge=1)] = 100_000
    """A longer text is a bad row."""
    allow: list[Allowed] = Field(default_factory=list)
    """Rows that are used although a check of the whole data finds them bad."""
    steps: list[Annotated[StepSpec, BeforeValidator(_long_form, json_schema_input_type=str | StepSpec)]] = Field(
        default_factory=list
    )
    """Cleaning, in order: a name, or a name with parameters, or `module:function` of your own."""
    image: Image = Field(default_factory=Image)
    """How images are read. Images only."""
    features: Columns = Field(default_factory=dict)
    """Columns by kind, as `{age: numeric, country: {kind: categorical}}`. Tasks on tables learn from them
    (docs/features.md); for others they are checked row by row and described in the model's profile."""
    split: Split = Field(default_factory=Split)
    """How rows are held out."""
    max_length: Annotated[int, Field(ge=4, le=8192)] = 256
    """Longest input in tokens; what is longer is cut at the end (the model's own limit applies too)."""
    max_bad_fraction: Fraction = 0.01
    """Share of bad rows over which a run stops before training. Bad rows are listed, never just dropped."""
    mode: Literal["prepared", "streaming"] = "prepared"
    """`prepared`: training rows are written as shards first, their order is exact. `streaming`: Ray Data feeds the
    training from the files in each epoch; only held-out rows are written, and nothing is compared across training rows."""

    @field_validator("labels")
    @classmethod
    def _has_no_repeats(cls, labels: list[str] | None) -> list[str] | None:
        seen: set[str] = set()
        for label in labels or []:
            if label in seen:
                raise ValueError(f"labels names {label!r} twice; list each class once")
            seen.add(label)
        return labels

    @model_validator(mode="after")
    def _split_has_work(self) -> Data:
        given = [part for part in ("validation", "test") if getattr(self, part)]
        if given and self.split.test_from:
            raise ValueError(
                f"data.{given[0]} is given, so split.validation_from and test_from cannot hold; take one of them out"
            )
        if len(given) == 2 and self.split.by != "content":
            raise ValueError(
                f"validation and test are given, so there is nothing to split by {self.split.by}; take split out"
            )
        return self

    @model_validator(mode="after")
    def _can_be_streamed(self) -> Data:
        if self.mode == "prepared":
            return self
        for step in self.steps:
            by_row = step.sample and step.sample.fraction
            if (
                step.name == "deduplicate"
                or (step.sample and not by_row)
                or (step.balance and step.balance.how != "weight")
            ):
                raise ValueError(
                    f"mode: streaming cannot do the step {step.name} as given, which compares rows of the whole data; "
                    "use mode: prepared, balance: {how: weight} or sample: {fraction: ...}"
                )
        if self.split.by == "time" and not self.split.test_from:
            raise ValueError("mode: streaming with split.by: time needs validation_from and test_from, not shares")
        return self
