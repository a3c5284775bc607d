"""A time limit for calls of libraries that have none."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def call_within(work: Callable[[], T], seconds: float) -> T:
    """Return the result of `work`, which runs in a thread. Raises its error, or `concurrent.futures.TimeoutError`.

    After the time limit the thread is left alone; it does not keep the process alive.
    """
    outcome: Future[T] = Future()

    def body() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=body, daemon=True, name="raymill-call").start()
    return outcome.result(timeout=seconds)
