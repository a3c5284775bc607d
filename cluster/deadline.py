"""Work in a thread of its own, for calls of libraries that have no time limit or that handle signals."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def start_in_thread(work: Callable[[], T], name: str) -> tuple[Thread, Future[T]]:
    """Start `work` in a thread that does not keep the process alive. The future has its result, or its error."""
    outcome: Future[T] = Future()

    def body() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = Thread(target=body, daemon=True, name=name)
    thread.start()
    return thread, outcome


def call_within(work: Callable[[], T], seconds: float) -> T:
    """Return the result of `work`, which runs in a thread. Raises its error, or `concurrent.futures.TimeoutError`.

    After the time limit the thread is left alone.
    """
    _, outcome = start_in_thread(work, "raymill-call")
    return outcome.result(timeout=seconds)
