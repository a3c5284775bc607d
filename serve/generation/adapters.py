"""Adapters of one base in one engine: the base's weights are there once, and a request's `model` chooses the adapter.

Each adapter is a version of its own, with its contract and its golden rows, which it has to reproduce in the shared engine.
An adapter that the engine cannot compute, for example one with whole layers, gets an engine of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cluster.errors import ModelError, first_line
from cluster.files import file_sha256
from serve.generation.engine_thread import ThreadLimits
from serve.generation.generation_model import EngineHost, GenerationModel
from serve.generation.load import VerifiedModel, check_engine, make_model, make_own_engine, verify_model
from serve.generation.metrics import GenerationMetrics
from serve.model.settings import ModelSettings
from trainer.inference.adapter_base import adapter_base

_log = logging.getLogger("raymill.serve")
_WEIGHTS = "*.safetensors"
T = TypeVar("T")


class ModelSet:
    """The models of a replica that write text; adapters come and go while it answers."""

    def __init__(self, settings: Sequence[ModelSettings], metrics: GenerationMetrics) -> None:
        """Loads the models, bases before their adapters. Raises `ModelError`."""
        self._metrics = metrics
        self.models: dict[str, GenerationModel] = {each.name: None for each in settings}  # type: ignore[misc]
        # Folder of a base's weights -> its engine and its name.
        self._bases: dict[Path, tuple[EngineHost, str]] = {}
        for each in sorted(settings, key=lambda each: adapter_base(Path(each.folder)) is not None):
            self.add(each)

    def add(self, settings: ModelSettings) -> GenerationModel:
        """Load a model, as an adapter of a served base if it is one, and serve it under its name.

        Another version of the same name finishes its answers. Raises `ModelError`.
        """
        verified = verify_model(settings)
        model = self._as_adapter(verified) or self._alone(verified)
        self.models[settings.name] = model
        return model

    def add_adapter(self, settings: ModelSettings) -> GenerationModel:
        """Load an adapter of a served base, and serve it under its name. Raises `ModelError`, also for a whole model."""
        if self._base_of(Path(settings.folder)) is None:
            raise ModelError(
                f"{settings.name}@{settings.version} is no adapter of a base that is served here",
                "train it with `model.lora: {save: adapter}` on that base, or serve it with another endpoint",
            )
        return self.add(settings)

    def remove(self, name: str) -> None:
        """Serve an adapter no longer; its answers are finished. Raises `ModelError` for a base, and an unknown name."""
        model = self.models.get(name)
        if model is None or model.adapter is None:
            problem = f"{name} is a base model" if model is not None else f"{name} is not served"
            raise ModelError(f"{problem}, and only adapters can be removed", "stop the endpoint to remove a base model")
        del self.models[name]
        adapter = model.adapter
        _in_engine(model.host, lambda engine: engine.remove_adapter(adapter))

    def _alone(self, verified: VerifiedModel) -> GenerationModel:
        settings = verified.settings
        host = EngineHost(make_own_engine(verified), ThreadLimits(settings.slots, settings.max_queued))
        self._bases[verified.version.folder.resolve()] = (host, settings.name)
        return make_model(verified, host, self._metrics)

    def _as_adapter(self, verified: VerifiedModel) -> GenerationModel | None:
        """Return the model of an adapter in the engine of its base; None if it needs an engine of its own."""
        folder = verified.version.folder
        base = self._base_of(folder)
        if base is None:
            return None
        host, base_name = base
        name = f"{verified.version.ref}"
        try:
            _in_engine(host, lambda engine: engine.add_adapter(name, folder))
        except (ModelError, AttributeError) as error:
            _log.warning("%s gets an engine of its own: %s", name, first_line(error))
            return None
        try:
            _in_engine(host, lambda engine: check_engine(verified, engine, name))
        except ModelError:
            _in_engine(host, lambda engine: engine.remove_adapter(name))
            raise
        verified.predictor.model = None  # the merged copy was for the check only
        return make_model(verified, host, self._metrics, adapter=name, base_name=base_name)

    def _base_of(self, folder: Path) -> tuple[EngineHost, str] | None:
        """Return the engine of the base that the adapter in `folder` was trained on, by the content of its weights.

        None if no such base is served, or `folder` holds a whole model.
        """
        base = adapter_base(folder)
        if base is None or base in self._bases:
            return self._bases[base] if base is not None else None
        digests = _weights(base)
        return next((entry for known, entry in self._bases.items() if _weights(known) == digests), None)


def _weights(folder: Path) -> list[str]:
    return sorted(file_sha256(path) for path in folder.glob(_WEIGHTS))


def _in_engine(host: EngineHost, function: Callable[[Any], T]) -> T:
    """Run a function in the engine's thread, between two steps, and return its result."""
    result: T = host.thread.call(function).result()
    return result
