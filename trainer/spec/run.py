"""The spec: every key that a run.yaml may hold, with its default and its meaning.

The other modules of this package define the sections `data:`, `model:`, `train:`, `tune:`, `evaluate:`, `promote:`,
`serve:`, `track:` and `deploy:`. All are frozen pydantic models; none imports torch or ray. `trainer.spec.spec_file` reads a
file, and `trainer.spec.overrides` applies `--set`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.spec.data import DataSpec
from trainer.spec.deploy import DeploySpec
from trainer.spec.evaluate import EvaluateSpec, PromoteSpec
from trainer.spec.model import ModelSpec
from trainer.spec.section import AUTO, NAME_PATTERN, IntRangeOrAuto, Positive, SpecSection, range_ends
from trainer.spec.serve import ServeSpec
from trainer.spec.track import TrackSpec
from trainer.spec.train import TrainSpec
from trainer.spec.tune import TuneSpec


class ClusterSpec(SpecSection):
    """Where the work runs, and with how many processes."""

    address: str | None = None
    """`null` uses this machine: it starts Ray and stops it at the end, unless the run is so small that it needs none.
    `local` always starts Ray on this machine. `auto`, `host:port` or `ray://host:port` joins a cluster."""
    cpus: Positive | None = None
    """CPU cores that a run on this machine uses. Default: all cores."""
    workers: IntRangeOrAuto = 1
    """Number of processes of one training. Each worker takes its part of every batch. `[1, 4]`: at least one and at
    most four: a training continues with fewer workers when a node leaves the cluster, and with more when one joins.
    `auto`: one for each GPU, or one for each node without `gpus_per_worker`, and at least 8 rows of a step for each."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """With several workers: `ddp` puts the whole model into each worker, `fsdp` a shard of every weight (FSDP2)."""
    cpus_per_worker: Positive | None = None
    """CPU cores of one worker. Default: its share of the machine's cores."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    """GPUs of one worker."""
    wait_for_machines_s: Annotated[float, Field(gt=0)] = 600
    """Seconds that a training or a search waits for machines after so many have left the cluster that it cannot go on.
    Then it stops with an error, and can be resumed."""

    @property
    def min_workers(self) -> int:
        """Minimum number of workers of one training; 1 while the number is `auto`."""
        return 1 if self.workers == AUTO else range_ends(self.workers)[0]

    @property
    def max_workers(self) -> int:
        """Maximum number of workers of one training; 1 while the number is `auto`."""
        return 1 if self.workers == AUTO else range_ends(self.workers)[1]


class RunSpec(SpecSection):
    """One run, from raw rows to an endpoint."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name of the model in the registry: lower-case letters, digits, `_` and `-`."""
    task: str = "text-classification"
    """What the model learns; `raymill tasks` lists the tasks. A custom task is `module:Class` (docs/how-to/write-a-task.md)."""
    data: DataSpec
    """Where the rows are and how they are read."""
    model: ModelSpec = Field(default_factory=ModelSpec)
    """What training starts from."""
    train: TrainSpec = Field(default_factory=TrainSpec)
    """How the model is trained."""
    tune: TuneSpec | None = None
    """A search over trainings. Without it, `raymill run` trains once."""
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec)
    """How models are compared."""
    promote: PromoteSpec = Field(default_factory=PromoteSpec)
    """When a new version becomes the champion."""
    serve: ServeSpec = Field(default_factory=ServeSpec)
    """The HTTP endpoint."""
    cluster: ClusterSpec = Field(default_factory=ClusterSpec)
    """Where the work runs."""
    track: TrackSpec = Field(default_factory=TrackSpec)
    """Where metrics are sent while a training runs."""
    deploy: DeploySpec | None = None
    """What `raymill manifest` writes into manifests; a run itself ignores it."""
    storage: str = "~/.raymill"
    """Folder of prepared rows, runs and the registry. On a cluster: a folder that every node can reach."""

    @property
    def gate_evaluation(self) -> EvaluateSpec:
        """The section `evaluate`, with the metric that the gate decides on."""
        metric = self.evaluate.metric if self.promote.metric == AUTO else self.promote.metric
        return self.evaluate.model_copy(update={"metric": metric})

    @model_validator(mode="after")
    def _check_search_is_prepared(self) -> RunSpec:
        if self.tune is not None and self.data.mode == "streaming":
            raise ValueError("data.mode: streaming does not work with tune: each trial would read all files again; "
                             "use `data.mode: prepared`, or `raymill train`")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _check_batch_reaches_every_worker(self) -> RunSpec:
        workers = self.cluster.max_workers
        # A size that raymill chooses is a multiple of the number of workers.
        size = workers if self.train.batch_size == AUTO else self.train.batch_size
        if size < workers:
            raise ValueError(
                f"train.batch_size={size} is under cluster.workers={workers}, so some workers would have no rows; "
                f"use at least {workers}"
            )
        if self.data.mode == "streaming" and workers != self.cluster.min_workers:
            raise ValueError(
                "data.mode: streaming cannot change its number of workers; set `cluster.workers` to one number"
            )
        if self.data.mode == "streaming" and size % workers:
            raise ValueError(
                f"data.mode: streaming needs a train.batch_size that is a multiple of cluster.workers={workers}, and "
                f"{size} is not; try {size // workers * workers}"
            )
        return self

    @model_validator(mode="after")
    def _check_optimizer_fits(self) -> RunSpec:
        if self.train.optimizer == "adamw_8bit" and not self.cluster.gpus_per_worker:
            raise ValueError("train.optimizer: adamw_8bit needs a GPU; set `cluster.gpus_per_worker`, or use adamw")
        if self.train.optimizer == "muon" and self.cluster.strategy == "fsdp":
            raise ValueError(
                "train.optimizer: muon needs whole matrices and cluster.strategy: fsdp shards them; use ddp, or adamw"
            )
        if self.train.optimizer == "muon" and self.train.precision == "fp16":
            raise ValueError("train.optimizer: muon does not scale losses as fp16 needs; use bf16 or fp32, or adamw")
        if self.train.matrix_learning_rate is not None and self.train.optimizer != "muon":
            raise ValueError(
                f"train.matrix_learning_rate is for train.optimizer: muon, not {self.train.optimizer}; remove it"
            )
        return self

    @model_validator(mode="after")
    def _check_search_has_fixed_size(self) -> RunSpec:
        if self.tune is not None and isinstance(self.cluster.workers, tuple):
            raise ValueError(
                f"cluster.workers={list(self.cluster.workers)}: a search needs a fixed number of workers per trial; "
                "set `cluster.workers` to one number"
            )
        return self
