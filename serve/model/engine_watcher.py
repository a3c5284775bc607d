"""Take over an engine that is chosen while the replica already answers: look for the choice's file, then replace.

A replica that starts before an engine is chosen answers with the model itself. Each of its models knows the file that
the choice will be stored in (`ModelSettings.awaited_choice`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.errors import RaymillError, first_line
from cluster.files import read_json
from serve.engines.catalog import NATIVE
from serve.engines.engine_store import FORMAT
from serve.model.served_model import ServedModel
from serve.model.settings import ModelSettings

_log = logging.getLogger("raymill.serve")
_INTERVAL_S = 1.0

#: Function that is called with a model's name and what happened to its engine.
Report = Callable[[str, str], None]


def chosen_settings(settings: ModelSettings, checkpoint: str) -> ModelSettings | None:
    """Return `settings` with the engine of the awaited choice; None if the choice is not stored yet.

    `checkpoint` is the digest of the version. A choice for another checkpoint, format or tolerance does not count.
    Raises `ValueError` or `KeyError` if the file is damaged, and `OSError` if it cannot be read.
    """
    if settings.awaited_choice is None or not Path(settings.awaited_choice).is_file():
        return None
    choice: dict[str, Any] = read_json(Path(settings.awaited_choice))
    if choice["format"] != FORMAT or choice["checkpoint"] != checkpoint:
        return None
    if settings.awaited_tolerance not in (None, choice["tolerance"]):
        return None
    return settings.model_copy(
        update={"engine": choice["engine"], "choice": choice, "awaited_choice": None, "awaited_tolerance": None}
    )


class EngineWatcher:
    """A thread that replaces the engines of those `models` that await a choice. It ends when no model awaits one."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        report: Report = lambda name, text: None,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        """`report` is called in the thread when an engine is taken over, or cannot be."""
        self._waiting = [model for model in models if model.settings.awaited_choice]
        self._report, self._interval_s = report, interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="raymill-engine-watcher")
        if self._waiting:
            self._thread.start()

    def close(self) -> None:
        """End the thread soon. An engine that is being loaded is still taken over."""
        self._stop.set()

    def _run(self) -> None:
        while self._waiting and not self._stop.wait(self._interval_s):
            self._waiting = [model for model in self._waiting if not self._look(model)]

    def _look(self, model: ServedModel) -> bool:
        """Take over the engine of one model if it is chosen; return whether the model awaits no choice any more."""
        name = model.identity["name"]
        try:
            settings = chosen_settings(model.settings, model.identity["checkpoint"])
            if settings is None:
                return False
            if settings.engine != NATIVE:
                model.replace_engine(settings)
        except Exception as error:  # whatever is wrong with the new engine, the old one goes on
            reason = first_line(error)
            _log.warning("%s goes on with its engine: %s", name, reason, exc_info=not isinstance(error, RaymillError))
            self._report(name, f"{name} still answers with {model.identity['engine']}: {reason}")
            return True
        self._report(name, engine_report(name, settings.engine))
        return True


def engine_report(name: str, engine: str) -> str:
    """Return the line that says that a model's replicas use the chosen engine."""
    if engine == NATIVE:
        return f"{name} stays with the model itself (`{NATIVE}`): no other engine is faster and as good"
    return f"{name} now answers with the engine {engine}"
