"""Background writes: one thread that writes while training continues."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """Runs writes in order on one thread. A failed write is reported, not raised; earlier saved files stay."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="raymill-write")
        self._last: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a write is pending or in progress."""
        return self._last is not None and not self._last.done()

    def submit(self, label: str, write: Callable[[], None]) -> None:
        """Run `write` after all earlier ones; `label` names the write in the notice if it fails."""
        self._last = self._pool.submit(self._run, label, write)

    def wait(self) -> None:
        """Wait until all writes have ended."""
        if self._last is not None:
            self._last.result()

    def _run(self, label: str, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:  # any library may write here, with its own exceptions
            self._notify(f"{label} could not be written, and the run continues: {getattr(error, 'problem', error)}")
