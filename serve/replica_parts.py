"""The models of a replica by how their tasks are served: predictions for inputs, or text by the OpenAI API."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from serve.asgi.predictions import Predictions
from serve.asgi.service import Intake, Service
from serve.engines.engine_store import checkpoint_digest
from serve.model.engine_watcher import EngineWatcher, Report, chosen_settings
from serve.model.metrics import ReplicaMetrics
from serve.model.served_model import ServedModel
from serve.model.settings import ModelSettings, ReplicaSettings
from trainer.registry.registry import Version


class LiveModel(Protocol):
    """A model that answers."""

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version, fingerprint, checkpoint and engine."""

    @property
    def is_alive(self) -> bool:
        """Whether the thread that computes still runs."""


class ReplicaPart(Protocol):
    """The models of one service."""

    def models(self) -> Sequence[LiveModel]:
        """Return the models, as they are now."""

    def service(self, intake: Intake) -> Service:
        """Return their paths."""

    def close(self) -> None:
        """End threads that replace or watch something."""


class AnswersPart:
    """Models that answer inputs with predictions."""

    def __init__(
        self, models: Sequence[ModelSettings], settings: ReplicaSettings, metrics: ReplicaMetrics, report: Report
    ) -> None:
        """Loads the models. `report` is that of `EngineWatcher`. Raises `ModelError`."""
        self._models = [_load(model, metrics) for model in models]
        self._timeout_s = settings.timeout_s
        self._watcher = EngineWatcher(self._models, report)

    def models(self) -> Sequence[ServedModel]:
        """Return the models."""
        return self._models

    def service(self, intake: Intake) -> Service:
        """Return their paths."""
        return Predictions(self._models, intake, self._timeout_s)

    def close(self) -> None:
        """End the watch for engines."""
        self._watcher.close()


class GenerationPart:
    """Models that write text."""

    def __init__(
        self, models: Sequence[ModelSettings], settings: ReplicaSettings, metrics: ReplicaMetrics, report: Report
    ) -> None:
        """Loads the models and their engines. Raises `ModelError`."""
        from serve.generation.adapters import ModelSet
        from serve.generation.metrics import GenerationMetrics

        self._settings, self._like = settings, models[0]
        self._set = ModelSet(models, GenerationMetrics(metrics))

    def models(self) -> Sequence[LiveModel]:
        """Return the models."""
        return list(self._set.models.values())

    def service(self, intake: Intake) -> Service:
        """Return their paths."""
        from serve.generation.streams import Deadlines
        from serve.openai.admin import ModelAdmin
        from serve.openai.quotas import TokenQuotas
        from serve.openai.routes import OpenAiService
        from serve.openai.session import Sessions

        settings = self._settings
        deadlines = Deadlines(settings.first_token_s, settings.between_tokens_s)
        quotas = TokenQuotas(settings.keys, settings.replicas)
        admin = ModelAdmin(
            self._set,
            self._like,
            intake,
            admins={key["name"] for key in settings.keys if key.get("admin")},
            is_open=settings.is_open,
            replicas=settings.max_replicas,
        )
        return OpenAiService(self._set.models, intake, Sessions(deadlines, quotas, settings.timeout_s), admin)

    def close(self) -> None:
        """Do nothing: the process ends with its threads."""


#: Service of a task -> its part of a replica.
PARTS: Mapping[str, Callable[[Sequence[ModelSettings], ReplicaSettings, ReplicaMetrics, Report], ReplicaPart]] = {
    "answers": AnswersPart,
    "generation": GenerationPart,
}


def load_parts(settings: ReplicaSettings, metrics: ReplicaMetrics, report: Report) -> list[ReplicaPart]:
    """Return the parts of a replica in the order of their first models. Raises `ModelError`."""
    services = dict.fromkeys(model.service for model in settings.models)
    return [
        PARTS[name]([model for model in settings.models if model.service == name], settings, metrics, report)
        for name in services
    ]


def _load(settings: ModelSettings, metrics: ReplicaMetrics) -> ServedModel:
    """Load a model with its awaited engine if that is chosen by now, else as the settings say."""
    version = Version(settings.name, settings.version, Path(settings.folder))
    # If the chosen engine cannot be loaded, the watcher tries again and reports why.
    with contextlib.suppress(Exception):
        chosen = chosen_settings(settings, checkpoint_digest(version))
        if chosen is not None:
            return ServedModel(chosen, metrics)
    return ServedModel(settings, metrics)
