"""A model version that writes text, ready to answer requests: its contract, its part of an engine, its metrics."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence
from typing import Any

from cluster.errors import RequestError
from serve.generation.engine_thread import EngineClosed, EngineThread, ThreadLimits
from serve.generation.metrics import GenerationMetrics, GenerationModelMetrics
from serve.generation.prompt_format import PromptFormat
from serve.generation.streams import AnswerStream
from serve.generation.token_texts import TokenTexts
from serve.generation.tool_format import ToolFormat, find_tool_format
from trainer.generation.engine import Engine, GenerationEvent


class EngineHost:
    """An engine in its thread, shared by a base model and its adapters."""

    def __init__(self, engine: Engine, limits: ThreadLimits) -> None:
        self.engine = engine
        # Adapter -> model; None is the base.
        self._models: dict[str | None, GenerationModel] = {}
        self.thread = EngineThread(engine, limits, self._count)

    def add(self, model: GenerationModel) -> None:
        """Count the events of the model's adapter for this model from now on."""
        self._models[model.adapter] = model

    def remove(self, model: GenerationModel) -> None:
        """Count nothing more for a model that is removed."""
        if self._models.get(model.adapter) is model:
            del self._models[model.adapter]

    def close(self) -> None:
        """Finish what was accepted, and free the engine."""
        self.thread.close()

    def _count(self, stream: AnswerStream, event: GenerationEvent, now: float) -> None:
        model = self._models.get(stream.request.adapter)
        if model is not None:
            model.metrics.count_event(stream, event, now)


class GenerationModel:
    """A model or an adapter under its own name."""

    def __init__(
        self,
        identity: dict[str, Any],
        host: EngineHost,
        prompts: PromptFormat,
        metrics: GenerationMetrics,
        *,
        adapter: str | None = None,
        base_name: str | None = None,
        golden_rows: int = 0,
        max_body_bytes: int = 1 << 20,
    ) -> None:
        """`identity` has name, version, fingerprint, checkpoint and engine. `adapter` is the engine's name of an adapter,
        and `base_name` the model that it adapts."""
        self.identity, self.host, self.prompts, self.adapter = identity, host, prompts, adapter
        self.golden_rows, self.max_body_bytes = golden_rows, max_body_bytes
        self.base_name = base_name
        self.loaded_at = int(time.time())
        self.texts = TokenTexts(prompts.tokenizer)
        self.metrics = GenerationModelMetrics(metrics, identity)
        if adapter is None:
            self.metrics.show_load(host.thread)
        host.add(self)

    @functools.cached_property
    def tool_format(self) -> ToolFormat | None:
        """The format of tool calls in the model's chat template; None if it has none that can be read."""
        tokens = self.prompts.tokenizer.get_added_tokens_decoder().values()
        return find_tool_format(self.prompts.chat_text, [token.content for token in tokens if token.special])

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        return self.prompts.tokenizer.get_vocab_size()

    @property
    def max_length(self) -> int:
        """The most tokens of a prompt and its answer together."""
        return self.host.engine.max_length

    @property
    def is_alive(self) -> bool:
        """Whether the engine's thread still runs."""
        return self.host.thread.is_alive

    @property
    def waiting(self) -> int:
        """Answers that wait for a slot of the engine."""
        return self.host.thread.waiting

    @property
    def retry_after_s(self) -> int:
        """Estimated time until a slot is free, in whole seconds."""
        return self.host.thread.retry_after_s

    def submit(self, streams: Sequence[AnswerStream]) -> None:
        """Queue the sequences of a request. Raises `RequestError` 429 if too many wait, 503 if the engine has stopped."""
        try:
            self.host.thread.submit(streams)
        except EngineClosed:
            raise RequestError(503, "shutting_down", "the engine of this replica has stopped; try again") from None

    def cancel(self, streams: Iterable[AnswerStream]) -> None:
        """Drop sequences; their slots are free before the next step."""
        self.host.thread.cancel(streams)
