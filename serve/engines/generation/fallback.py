"""A fast engine that does not do everything, with the model's own engine for the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serve.engines.generation.parameters import unsupported
from trainer.generation.engine import Engine, EngineStats, GenerationEvent, GenerationRequest

if TYPE_CHECKING:
    from trainer.generation.torch_engine import TorchEngine


class FallbackEngine:
    """An `Engine` that gives each request to the fast engine, or to the model's own if the fast one cannot do it exactly.

    The model's own engine is loaded for the first such request, and stays.
    """

    def __init__(
        self, fast: Engine, exact: Collection[str], load_own: Callable[[], TorchEngine], *, max_length: int
    ) -> None:
        """`exact` has the parameters that the fast engine computes exactly; `max_length` is that of the model's own."""
        self._fast, self._exact, self._load_own = fast, exact, load_own
        self._own: TorchEngine | None = None
        self._owner: dict[str, Engine] = {}
        self.max_length = max(fast.max_length, max_length)

    @property
    def has_work(self) -> bool:
        """Whether a request runs or waits."""
        return any(engine.has_work for engine in self._engines)

    def add(self, request: GenerationRequest) -> None:
        """Queue a request. Raises `EngineFull`, `ValueError` for a prompt that is empty or too long."""
        engine = self._fast if self._is_fast(request) else self._own_engine()
        engine.add(request)
        self._owner[request.id] = engine

    def cancel(self, request_id: str) -> None:
        """Drop a request and free its memory. No event follows. Unknown ids are ignored."""
        engine = self._owner.pop(request_id, None)
        if engine is not None:
            engine.cancel(request_id)

    def step(self) -> list[GenerationEvent]:
        """Compute one step for all running requests, and return what it added."""
        events = [event for engine in self._engines if engine.has_work for event in engine.step()]
        for event in events:
            if event.finish_reason is not None:
                self._owner.pop(event.request_id, None)
        return events

    @property
    def adapters(self) -> list[str]:
        """The names of the adapters that requests may use."""
        return [] if self._own is None else list(self._own.adapters)

    def add_adapter(self, name: str, folder: Path) -> None:
        """Load a LoRA adapter. The model's own engine computes it, because others hold merged or quantized weights."""
        self._own_engine().add_adapter(name, folder)

    def remove_adapter(self, name: str) -> None:
        """Let no new request use an adapter. Raises `KeyError`."""
        self._own_engine().remove_adapter(name)

    def score(self, sequences: Sequence[Sequence[int]], adapter: str | None = None) -> list[np.ndarray]:
        """Return the log-probability of each token after the first, given those before it: float32, (T - 1,) each.

        The fast engine's; with an adapter, the model's own.
        """
        return self._fast.score(sequences) if adapter is None else self._own_engine().score(sequences, adapter)

    def stats(self) -> EngineStats:
        """Return the load and the counts of both engines together."""
        return EngineStats(*(sum(values) for values in zip(*(engine.stats() for engine in self._engines), strict=True)))

    def close(self) -> None:
        """Free both engines."""
        for engine in self._engines:
            engine.close()

    @property
    def _engines(self) -> list[Engine]:
        return [self._fast] if self._own is None else [self._fast, self._own]

    def _own_engine(self) -> TorchEngine:
        if self._own is None:
            self._own = self._load_own()
        return self._own

    def _is_fast(self, request: GenerationRequest) -> bool:
        is_short = len(request.prompt_ids) + request.params.max_tokens <= self._fast.max_length
        return is_short and not unsupported(request, self._exact)
