"""Writing while training goes on: one thread, one piece of work after the other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Does work in order. What fails is told of, and the training goes on: what was kept before is still there."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="raymill-write")
        self._last: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is still being written."""
        return self._last is not None and not self._last.done()

    def submit(self, what: str, work: Callable[[], None]) -> None:
        """Do `work` after what was submitted before; `what` names it if it fails."""
        self._last = self._pool.submit(self._do, what, work)

    def wait(self) -> None:
        """Return when all is written, or told of."""
        if self._last is not None:
            self._last.result()

    def _do(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever library writes, it has exceptions of its own
            self._tell(f"{what} could not be written, and the run goes on: {getattr(error, 'problem', error)}")
