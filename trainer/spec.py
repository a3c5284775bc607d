"""The spec: every key a run.yaml may hold, with its default and its meaning.

Frozen pydantic models, and nothing else: this module loads neither torch nor ray (a test holds it to that).
Reading a file, `--set` and the messages for mistakes are in `trainer.spec_load`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
#: A model's name in the registry: it becomes a folder and part of a URL.
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"

#: Metrics of which less is better; of all others more is.
LOWER_IS_BETTER = frozenset({"log_loss", "calibration_error"})

#: Metrics that evaluation computes and that a search, a best checkpoint or the gate may go by.
Metric = Literal[
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "macro_precision",
    "macro_recall",
    "roc_auc",
    "log_loss",
    "calibration_error",
]


class Section(BaseModel):
    """One part of the spec: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


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

#: A point in time as a spec or a cell may hold it: ISO 8601, as 2026-03-01 or 2026-03-01T12:00:00Z.
Moment = Annotated[str, Field(min_length=4, max_length=40)]


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
    stratify: bool = True
    """`by: content`: see that every class with 5 rows or more is in all parts. A class that the seed left out of a part
    lends it a row; only such a row may move when the class grows."""

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
        moments = [self.validation_from, self.test_from]
        if any(moments) and (self.by != "time" or None in moments):
            raise ValueError("validation_from and test_from belong together, and to by: time")
        if self.validation_from and self.test_from and not self.validation_from < self.test_from:
            raise ValueError(
                f"validation_from={self.validation_from} must be before test_from={self.test_from}: the newest rows are the test"
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
    """What must not be learned or stored is replaced by its name in brackets, as [EMAIL]."""

    kinds: list[Literal["email", "card", "phone", "ip", "url"]] = Field(default=["email", "card"])
    """Known patterns. A card number counts only if its check digit is right."""
    patterns: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], str] = Field(default_factory=dict)
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

    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """`module:function`; the module lies in the working directory or is installed."""


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


class Data(Section):
    """Where the rows are and how they are read."""

    train: Sources
    """Training rows: a file, a folder, a glob, a list of them, an s3://, gs:// or hdfs:// address, hf://name[:config], or a
    database query. Files may be compressed (.gz, .bz2, .xz, .zst, .lz4)."""
    validation: Sources | None = None
    """Rows to choose the best checkpoint by. Default: split off the training rows."""
    test: Sources | None = None
    """Held-out rows for the final figures and the gate. Default: split off the training rows."""
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "arrow", "text"] = "auto"
    """Format of all files; `auto` goes by the file's ending. `text`: a folder with a folder of text files for each class."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Names of your columns by their part in the task, as `{text: message, label: intent}`. Default: the same name."""
    labels: list[Annotated[str, Field(min_length=1)]] | None = None
    """The classes there may be: rows with another label are bad rows. Default: what the training rows hold."""
    max_chars: Annotated[int, Field(ge=1)] = 100_000
    """A longer text is a bad row."""
    allow: list[Literal["duplicate", "contradicting labels", "also in train", "also in validation"]] = Field(
        default_factory=list
    )
    """Rows that are used although a check of the whole data finds them bad."""
    steps: list[Annotated[StepSpec, BeforeValidator(_long_form, json_schema_input_type=str | StepSpec)]] = Field(
        default_factory=list
    )
    """Cleaning, in order: a name, or a name with parameters, or `module:function` of your own."""
    split: Split = Field(default_factory=Split)
    """How rows are held out."""
    max_length: Annotated[int, Field(ge=4, le=8192)] = 256
    """Longest input in tokens; what is longer is cut at the end (the model's own limit applies too)."""
    max_bad_fraction: Fraction = 0.01
    """Share of bad rows over which a run stops before training. Bad rows are listed, never just dropped."""
    mode: Literal["prepared", "streaming"] = "prepared"
    """`prepared`: training rows are written as shards first, their order is exact. `streaming`: Ray Data feeds the
    training from the files in each epoch; only held-out rows are written, and nothing is compared across training rows."""

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


class Model(Section):
    """The pre-trained model to start from."""

    base: Annotated[str, Field(min_length=1)]
    """A hub id, a local folder, or `package://some_package/folder` inside an installed Python package."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Dropout of the classification head. Default: as the base model has it."""


class Train(Section):
    """One fine-tuning."""

    epochs: Positive = 3
    """Passes over the training rows."""
    batch_size: Positive = 32
    """Rows of one optimiser step, over all workers together."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 5e-5
    """Peak learning rate, reached after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """AdamW's weight decay; biases and normalisation weights have none."""
    warmup_fraction: Fraction = 0.1
    """Share of all steps in which the learning rate rises from 0; after it the rate falls linearly to 0."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Gradients are scaled down to at most this norm."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` takes bf16 where the hardware multiplies in it, else fp32. Weights are kept in fp32 either way."""
    early_stopping_patience: Positive | None = None
    """Stop after this many epochs without a better validation metric. Default: never."""
    seed: Seed = 42
    """Seed of the order of rows, the new head's weights and dropout."""
    max_failures: Annotated[int, Field(ge=0)] = 0
    """How often a training is started again after a worker died."""


class Domain(Section):
    """The values a search may give one key: exactly one of the four."""

    choice: list[Any] | None = None
    """One of these values."""
    uniform: tuple[float, float] | None = None
    """A float between the two."""
    loguniform: tuple[float, float] | None = None
    """A float between the two, evenly over its logarithm."""
    randint: tuple[int, int] | None = None
    """A whole number from the first to the second, both included."""

    @model_validator(mode="after")
    def _is_one_domain(self) -> Domain:
        given = [(kind, value) for kind, value in self if value is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of choice, uniform, loguniform, randint")
        kind, value = given[0]
        if kind == "choice" and not value:
            raise ValueError("choice is empty; list at least one value")
        if kind != "choice" and not value[0] < value[1]:
            raise ValueError(f"{kind}: {list(value)} must rise; put the lower bound first")
        if kind == "loguniform" and value[0] <= 0:
            raise ValueError(f"loguniform: {list(value)} must be above 0")
        return self

    @property
    def edges(self) -> list[Any]:
        """The values by which the rest of the spec can tell whether this domain makes sense."""
        if self.choice is not None:
            return list(self.choice)
        for bounds in (self.uniform, self.loguniform):
            if bounds is not None:
                low, high = bounds
                return [low, low + (high - low) * 0.618, high]  # one between shows a key that takes whole numbers only
        assert self.randint is not None
        return list(self.randint)


class Tune(Section):
    """A search: many trainings, of which the best wins."""

    space: dict[str, Domain]
    """Keys of the spec to search over, as `train.learning_rate: {loguniform: [1e-5, 1e-3]}`."""
    algorithm: Literal["optuna", "random", "grid"] = "optuna"
    """`optuna` is its TPE sampler; `grid` tries every combination and needs `choice` throughout."""
    trials: Positive | None = None
    """How many trainings. Default: 10, and for a grid all its combinations."""
    scheduler: Literal["asha", "none"] = "asha"
    """`asha` stops trainings that are behind after the same number of epochs."""
    grace_epochs: Positive = 1
    """Epochs every trial gets before `asha` may stop it."""
    max_concurrent: Positive | None = None
    """Trials at a time. Default: as many as the cluster carries."""
    seed: Seed = 42
    """Seed of the sampler."""
    time_budget_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which no more is tried. Default: no limit."""

    @model_validator(mode="after")
    def _can_be_searched(self) -> Tune:
        if not self.space:
            raise ValueError(
                "space is empty; name at least one key, as train.learning_rate: {loguniform: [1e-5, 1e-3]}"
            )
        if self.algorithm == "grid":
            open_ended = [key for key, domain in self.space.items() if domain.choice is None]
            if open_ended:
                raise ValueError(f"algorithm: grid needs choice for {open_ended[0]}; list its values or use random")
        return self

    @property
    def n_trials(self) -> int:
        """How many trainings the search will start."""
        if self.algorithm != "grid":
            return self.trials or 10
        combinations = 1
        for domain in self.space.values():
            combinations *= len(domain.choice or [])
        return min(self.trials or combinations, combinations)


class Evaluate(Section):
    """What counts as better."""

    metric: Metric = "macro_f1"
    """The figure that picks the best checkpoint, the best trial and the champion."""
    batch_size: Positive = 64
    """Rows at a time when nothing is trained."""
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = 15
    """Bins of the expected calibration error."""
    mistakes: Annotated[int, Field(ge=0, le=1000)] = 30
    """How many of the most confident mistakes the report shows."""

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether less or more of `metric` is better."""
        return "min" if self.metric in LOWER_IS_BETTER else "max"


class Promote(Section):
    """The gate: when a new version takes over the alias."""

    enabled: bool = True
    """Without it a run registers its model and moves no alias."""
    alias: Annotated[str, Field(pattern=NAME_PATTERN)] = "champion"
    """The alias that moves."""
    min_improvement: Annotated[float, Field(ge=0.0)] = 0.0
    """By how much `evaluate.metric` must be better than the present champion's on the same held-out rows."""
    minimum: float | None = None
    """The worst value of `evaluate.metric` that may be promoted at all. Default: any."""


class Serve(Section):
    """The HTTP endpoint."""

    host: str = "127.0.0.1"
    """Address to listen on. Nothing authenticates requests yet: leave it on loopback or put a proxy in front."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    replicas: Positive = 1
    """How many copies of the model answer."""
    cpus_per_replica: Annotated[float, Field(ge=0)] = 1
    """CPU cores of one replica."""
    gpus_per_replica: Annotated[float, Field(ge=0)] = 0
    """GPUs of one replica."""
    max_batch_size: Positive = 32
    """Most inputs in one forward pass."""
    batch_wait_ms: Annotated[float, Field(ge=0, le=10_000)] = 2
    """How long a request waits for others to fill its batch."""
    max_inputs: Positive = 256
    """Most inputs in one request; more are refused with 413."""
    max_body_bytes: Positive = 1_048_576
    """Largest request body; a larger one is refused with 413."""
    timeout_s: Annotated[float, Field(gt=0)] = 30
    """Longest time a request may take before it gets a 504."""
    max_queued: Positive = 1000
    """Requests that may wait for a replica; more are refused with 503."""


class Cluster(Section):
    """Where the work runs."""

    address: str | None = None
    """`null` starts a Ray on this machine and stops it afterwards; `auto`, `host:port` or `ray://host:port` joins one."""
    cpus: Positive | None = None
    """CPU cores of the Ray that is started here. Default: all of this machine."""
    workers: Positive = 1
    """Processes of one training; each holds the model and takes its part of every batch."""
    cpus_per_worker: Positive | None = None
    """CPU cores of one training process. Default: its share of the machine's cores."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    """GPUs of one training process."""


class RunSpec(Section):
    """One run, from raw rows to an endpoint."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name of the model in the registry: lower-case letters, digits, `_` and `-`."""
    task: str = "text-classification"
    """What is learned; `raymill doctor` lists the tasks."""
    data: Data
    """Where the rows are."""
    model: Model
    """What training starts from."""
    train: Train = Field(default_factory=Train)
    """One fine-tuning."""
    tune: Tune | None = None
    """A search over trainings. Without it `run` trains once."""
    evaluate: Evaluate = Field(default_factory=Evaluate)
    """What counts as better."""
    promote: Promote = Field(default_factory=Promote)
    """When a new version becomes the champion."""
    serve: Serve = Field(default_factory=Serve)
    """The HTTP endpoint."""
    cluster: Cluster = Field(default_factory=Cluster)
    """Where the work runs."""
    storage: str = "~/.raymill"
    """Folder of prepared data, runs and the registry. On a cluster: one that every node sees."""

    @model_validator(mode="after")
    def _search_has_prepared_rows(self) -> RunSpec:
        if self.tune is not None and self.data.mode == "streaming":
            raise ValueError("data.mode: streaming cannot be searched over: each trial would read all files again; "
                             "use data.mode: prepared, or `raymill train`")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _batch_reaches_every_worker(self) -> RunSpec:
        if self.train.batch_size < self.cluster.workers:
            raise ValueError(
                f"train.batch_size={self.train.batch_size} is under cluster.workers={self.cluster.workers}, so some "
                f"workers would have no rows; use at least {self.cluster.workers}"
            )
        if self.data.mode == "streaming" and self.train.batch_size % self.cluster.workers:
            raise ValueError(
                f"data.mode: streaming needs a train.batch_size that divides by cluster.workers={self.cluster.workers}, "
                f"not {self.train.batch_size}; try {self.train.batch_size // self.cluster.workers * self.cluster.workers}"
            )
        return self
