"""The spec: every key a run.yaml may hold, with its default and its meaning.

Frozen pydantic models, and nothing else: this module loads neither torch nor ray (a test holds it to that).
The sections `data:`, `model:`, `train:`, `tune:` and `track:` are in `trainer.spec.data` and its like. Reading a file, `--set` and the
messages for mistakes are in `trainer.spec.parse`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from trainer.spec.data import Data
from trainer.spec.model import Model
from trainer.spec.section import Positive, Section, rising
from trainer.spec.serve import Serve
from trainer.spec.track import Track
from trainer.spec.train import Train
from trainer.spec.tune import Tune

#: A model's name in the registry: it becomes a folder and part of a URL.
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"

#: Metrics of which less is better; of all others more is.
LOWER_IS_BETTER = frozenset({"log_loss", "calibration_error", "rmse", "mae", "mse"})

#: Metrics that evaluation computes and that a search, a best checkpoint or the gate may go by.
Metric = Literal[
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "micro_f1",
    "macro_precision",
    "macro_recall",
    "exact_match",
    "roc_auc",
    "pr_auc",
    "log_loss",
    "calibration_error",
    "rmse",
    "mae",
    "mse",
    "r2",
    "pearson",
    "spearman",
]


class Evaluate(Section):
    """What counts as better."""

    metric: Literal["auto", Metric] = "auto"
    """The figure that picks the best checkpoint, the best trial and the champion. `auto`: the task's own, macro_f1 for
    classes, rmse for numbers, micro_f1 for tags."""
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


class Cluster(Section):
    """Where the work runs."""

    address: str | None = None
    """`null` starts a Ray on this machine and stops it afterwards; `auto`, `host:port` or `ray://host:port` joins one."""
    cpus: Positive | None = None
    """CPU cores of the Ray that is started here. Default: all of this machine."""
    workers: Positive | tuple[Positive, Positive] = 1
    """Processes of one training; each takes its part of every batch. `[1, 4]`: at least one and at most four: a training
    goes on with fewer when a node leaves the cluster, and takes them back when one comes."""
    sharding: Literal["ddp", "fsdp"] = "ddp"
    """With several workers: `ddp` keeps the whole model in each, `fsdp` a part of every weight (FSDP2)."""
    cpus_per_worker: Positive | None = None
    """CPU cores of one training process. Default: its share of the machine's cores."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    """GPUs of one training process."""

    @field_validator("workers")
    @classmethod
    def _rises(cls, given: int | tuple[int, int]) -> int | tuple[int, int]:
        return rising(given)

    @property
    def most_workers(self) -> int:
        """The most processes of one training."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def fewest_workers(self) -> int:
        """The fewest processes of one training."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]


class RunSpec(Section):
    """One run, from raw rows to an endpoint."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name of the model in the registry: lower-case letters, digits, `_` and `-`."""
    task: str = "text-classification"
    """What is learned; `raymill tasks` lists them. One of your own is `module:Class` (docs/tasks.md)."""
    data: Data
    """Where the rows are."""
    model: Model = Field(default_factory=Model)
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
    track: Track = Field(default_factory=Track)
    """Where figures go while a training runs."""
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
        workers, size = self.cluster.most_workers, self.train.batch_size
        if size < workers:
            raise ValueError(
                f"train.batch_size={size} is under cluster.workers={workers}, so some workers would have no rows; use at "
                f"least {workers}"
            )
        if self.data.mode == "streaming" and workers != self.cluster.fewest_workers:
            raise ValueError(
                "data.mode: streaming cannot change its number of workers; give one number as cluster.workers"
            )
        if self.data.mode == "streaming" and size % workers:
            raise ValueError(
                f"data.mode: streaming needs a train.batch_size that divides by cluster.workers={workers}, not {size}; "
                f"try {size // workers * workers}"
            )
        return self

    @model_validator(mode="after")
    def _optimizer_is_there(self) -> RunSpec:
        if self.train.optimizer == "adamw_8bit" and not self.cluster.gpus_per_worker:
            raise ValueError("train.optimizer: adamw_8bit is for GPUs; set cluster.gpus_per_worker, or use adamw")
        return self

    @model_validator(mode="after")
    def _search_has_a_fixed_size(self) -> RunSpec:
        if self.tune is not None and not isinstance(self.cluster.workers, int):
            raise ValueError(
                "a search needs to know how many trials fit: give one number as cluster.workers, not "
                f"{list(self.cluster.workers)}"
            )
        return self
