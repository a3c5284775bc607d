"""Choose engines while an endpoint already answers: in a process of its own, at the lowest priority.

The choice is stored beside the version. The replicas look for its file and take the engine over
(`serve.model.engine_watcher`).
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import first_line
from cluster.progress import WORK_THREAD
from cluster.python_child import Channel, PythonChild

if TYPE_CHECKING:
    from trainer.registry.registry import Version
    from trainer.spec.serve import ServeSpec

_NICENESS = 19
_STOP_WITHIN_S = 0.5


class EngineChoice:
    """Chooses the engine of each of some versions, one after the other, until `stop`."""

    def __init__(
        self,
        versions: Sequence[Version],
        spec: ServeSpec,
        say: Callable[[str], None],
        on_chosen: Callable[[str, str], None],
    ) -> None:
        """Start to choose.

        `say` is called in a thread with lines for the user, and `on_chosen` with a version's name and its engine once
        the choice is stored.
        """
        self._names = [version.name for version in versions]
        self._say, self._on_chosen = say, on_chosen
        self._is_stopping = False
        self._child = PythonChild(
            "raymill.engine_choice:choose_engines",
            {
                "versions": [[version.name, version.number, str(version.folder)] for version in versions],
                "spec": spec.model_dump(mode="json"),
            },
            title=f"raymill optimize {' '.join(version.ref for version in versions)}",
            threads=max(1, int(spec.cpus_per_replica)),
            niceness=_NICENESS,
        )
        threading.Thread(target=self._follow, daemon=True, name=f"{WORK_THREAD}-engine-choice").start()

    def stop(self) -> None:
        """End the process. A choice that is not finished is not stored."""
        self._is_stopping = True
        self._child.send({"stop": True})
        self._child.wait(_STOP_WITHIN_S)
        self._child.kill()

    def _follow(self) -> None:
        left = list(self._names)
        for message in self._child.messages():
            if "say" in message:
                self._say(message["say"])
                continue
            name = message["name"]
            left.remove(name)
            if "engine" in message:
                self._on_chosen(name, message["engine"])
            else:
                self._say(f"{name} stays with the model itself: its engine could not be chosen: {message['failed']}")
        code = self._child.wait()
        if left and not self._is_stopping:
            self._say(
                f"{', '.join(left)}: the process that chose the engine ended with exit code {code}; "
                "the model itself goes on"
            )


def choose_engines(argument: dict[str, Any], channel: Channel) -> None:
    """Choose and store the engine of each version in `argument`. Runs in the child of `EngineChoice`."""
    from raymill.held_out import load_held_out_rows
    from serve.engines.catalog import NATIVE
    from serve.engines.choose import select_engine
    from trainer.registry.registry import Version
    from trainer.spec.serve import ServeSpec

    # Raise SystemExit in the main thread, so that folders of unfinished engines are removed.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(1))
    channel.on_message = lambda message: os.kill(os.getpid(), signal.SIGTERM)
    spec = ServeSpec.model_validate(argument["spec"])
    for name, number, folder in argument["versions"]:
        version = Version(name, number, Path(folder))
        try:
            selected = select_engine(version, spec, functools.partial(load_held_out_rows, version), lambda line: None)
        except Exception as error:
            channel.send({"name": name, "failed": first_line(error)})
            continue
        for candidate in (selected.choice or {}).get("candidates", []):
            if candidate["conclusion"] and candidate["name"] != NATIVE:
                channel.send({"say": f"{name}: engine {candidate['name']}: {candidate['conclusion']}"})
        channel.send({"name": name, "engine": selected.name})
