"""One model version of a replica: its batcher, its metrics, and its engine, which can be replaced. No Ray, no HTTP."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from serve.model.batcher import Batcher, BatcherClosed, BatchLimits, DoneCallback, Job
from serve.model.body import check_input_count, parse_body
from serve.model.loaded_model import LoadedModel
from serve.model.metrics import ModelMetrics, ReplicaMetrics
from serve.model.settings import ModelSettings
from trainer.tasks.roles import FEATURE

_UNLIMITED = 1 << 62


class _Lane(NamedTuple):
    """A loaded model and the batcher that computes with it."""

    loaded: LoadedModel
    batcher: Batcher


class ServedModel:
    """A model that is ready to answer requests. The constructor raises `ModelError` as `LoadedModel` does."""

    def __init__(self, settings: ModelSettings, metrics: ReplicaMetrics) -> None:
        self.settings = settings
        loaded = LoadedModel(settings)
        self.task, self.contract, self.roles = loaded.task, loaded.contract, loaded.roles
        self.golden_rows = loaded.golden_rows
        self.max_body_bytes = settings.max_body_bytes or self.task.max_body_bytes
        # Batchers whose jobs are not all answered: the current one, and during a replacement the one before.
        self._batchers: list[Batcher] = []
        self.metrics = ModelMetrics(metrics, loaded.identity, lambda: self.waiting)
        columns = [name for role, name in self.contract.columns.items() if role.startswith(FEATURE)]
        self.metrics.count_unseen(dict.fromkeys(columns, 0))  # so that the first one is an increase
        self._lane = self._open_lane(loaded)

    def _open_lane(self, loaded: LoadedModel) -> _Lane:
        settings = self.settings
        max_tokens = settings.max_batch_tokens if self.task.token_input else _UNLIMITED
        limits = BatchLimits(settings.max_batch_size, max_tokens, settings.max_queued)
        loaded.on_unseen = self.metrics.count_unseen
        batcher = Batcher(loaded, limits, self.metrics.count_batch)
        self._batchers.append(batcher)
        return _Lane(loaded, batcher)

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version, fingerprint, checkpoint and engine of the model that computes new requests."""
        return self._lane.loaded.identity

    @property
    def loaded(self) -> LoadedModel:
        """The model and engine that compute new requests."""
        return self._lane.loaded

    @property
    def is_alive(self) -> bool:
        """Whether the thread that computes new requests still runs."""
        return self._lane.batcher.is_alive

    @property
    def waiting(self) -> int:
        """Inputs that are not answered yet."""
        return sum(batcher.waiting for batcher in list(self._batchers))

    @property
    def retry_after_s(self) -> int:
        """Estimated time until the inputs that wait now are done, in whole seconds."""
        return self._lane.batcher.retry_after_s

    def submit(self, rows: Sequence[Any], done: DoneCallback) -> Job:
        """Queue the rows of a request (see `parse_inputs`) and return its job, whose `identity` names the engine.

        Raises `RequestError` 429 at once if too many inputs wait. See `Batcher.submit` for `done`.
        """
        while True:
            lane = self._lane
            try:
                job = lane.batcher.submit(rows, done)
            except BatcherClosed:  # the engine was replaced after the line above read it
                if lane is self._lane:
                    raise
                continue
            job.identity = lane.loaded.identity
            return job

    def replace_engine(self, settings: ModelSettings) -> None:
        """Load the engine of `settings` beside the current one, then compute all new requests with it.

        Loads and checks a second copy of the model, so that the two engines share nothing. Returns when the requests
        that the engine before has accepted are answered. Raises `ModelError`, and changes nothing, if the engine cannot
        be loaded or fails its checks.
        """
        loaded = LoadedModel(settings)
        before = self._lane
        self._lane = self._open_lane(loaded)
        self.metrics.show_identity(loaded.identity)
        before.batcher.close()
        self._batchers.remove(before.batcher)

    def close(self) -> None:
        """Answer the requests that wait, and end the batcher's thread."""
        self._lane.batcher.close()

    def parse_body(self, body: bytes, content_type: str) -> list[Any]:
        """Return the inputs in a request's body. Raises `RequestError` if the body is not valid."""
        inputs = self.task.body_inputs(self.contract, body, content_type) if content_type else None
        if inputs is None:
            return parse_body(body, self.settings.max_inputs, content_type)
        return check_input_count(inputs, self.settings.max_inputs)

    def parse_inputs(self, inputs: Sequence[Any]) -> list[Any]:
        """Return each input's raw values in the order of `roles`. Raises `RequestError` for the first invalid input."""
        columns = self.task.parse(self.contract, inputs)
        return list(zip(*[columns[role] for role in self.roles], strict=True))

    def labels_to_count(self, answers: Sequence[dict[str, Any]]) -> list[list[str]]:
        """Return the labels under which each answer is counted."""
        return [self.task.target.labels_to_count(answer) for answer in answers]

    @functools.cached_property
    def example(self) -> dict[str, Any]:
        """An `input` and an `answer` for the documentation."""
        return {"input": self.task.example(self.contract), "answer": self.task.target.example(self.contract.fitted)}
