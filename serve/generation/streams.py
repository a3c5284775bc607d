"""One answer being generated, between the engine's thread and the coroutine that sends it to a client.

The engine's thread hands over what a step added. The coroutine reads it as fast as its client does: what has come
meanwhile is joined, so a slow client neither holds the engine up nor costs more memory than the answer itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from trainer.generation.engine import FinishReason, GenerationEvent, GenerationRequest, TokenLogprob


class AnswerStream:
    """One sequence of a request: the engine's part and the times of its stages. Written by the engine's thread."""

    __slots__ = (
        "began", "cached_tokens", "cancelled", "cost", "deliver", "finished", "first_token", "index", "key", "last_token",
        "n_generated", "reader", "request", "submitted",
    )  # fmt: skip

    def __init__(
        self,
        request: GenerationRequest,
        key: str,
        deliver: Callable[[list[Delivery]], None],
        reader: AnswerReader | None = None,
    ) -> None:
        """`deliver` is called in the engine's thread once a step, with the events of all streams that share it."""
        self.request, self.key, self.deliver, self.reader = request, key, deliver, reader
        self.index = reader.add(self) if reader is not None else 0
        self.cost = 0
        self.cancelled = False
        self.submitted = time.perf_counter()
        self.began = self.first_token = self.last_token = self.finished = 0.0
        self.n_generated = self.cached_tokens = 0


#: What a step added to a stream.
Delivery = tuple[AnswerStream, GenerationEvent]


class Delta:
    """What a stream got since it was last read."""

    __slots__ = ("cached_tokens", "error", "finish_reason", "index", "logprobs", "prompt_logprobs", "text", "token_ids")

    def __init__(self, index: int) -> None:
        self.index = index
        self.text = ""
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: FinishReason | None = None
        self.error = ""
        self.prompt_logprobs: Sequence[TokenLogprob | None] | None = None
        self.cached_tokens = 0

    def add(self, event: GenerationEvent | Delta) -> None:
        """Append an event, or what came later."""
        self.text += event.text
        self.token_ids += event.token_ids
        self.logprobs += event.logprobs
        self.finish_reason, self.error = event.finish_reason or self.finish_reason, event.error or self.error
        if event.prompt_logprobs is not None:
            self.prompt_logprobs = event.prompt_logprobs
        self.cached_tokens = event.cached_tokens or self.cached_tokens


class Deadlines:
    """Seconds within which a stream must get its first token, and each further one."""

    __slots__ = ("between_s", "first_s")

    def __init__(self, first_s: float, between_s: float) -> None:
        self.first_s, self.between_s = first_s, between_s


class LateToken(Exception):
    """A token did not come in time. `is_first` says whether the stream had none yet."""

    def __init__(self, within_s: float, *, is_first: bool) -> None:
        super().__init__(within_s)
        self.within_s, self.is_first = within_s, is_first


class AnswerReader:
    """Reads the streams of one HTTP request. Belongs to one event loop; only `add` may be called elsewhere."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadlines: Deadlines) -> None:
        self._loop, self._deadlines = loop, deadlines
        self.streams: list[AnswerStream] = []
        self._pending: dict[int, Delta] = {}
        self._waiter: asyncio.Future[None] | None = None
        # Until when each open stream must get a token, and the same as seconds for messages.
        self._due: dict[int, float] = {}
        self._first: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None

    def add(self, stream: AnswerStream) -> int:
        """Add a stream and return its index."""
        self.streams.append(stream)
        index = len(self.streams) - 1
        self._due[index] = self._loop.time() + self._deadlines.first_s
        self._first.add(index)
        return index

    def push(self, index: int, event: GenerationEvent) -> None:
        """Take what a step added to a stream. Runs in the event loop."""
        if index not in self._due:
            return  # the reader has given up
        delta = self._pending.get(index)
        if delta is None:
            delta = self._pending[index] = Delta(index)
        delta.add(event)
        if event.finish_reason:
            del self._due[index]
        else:
            self._due[index] = self._loop.time() + self._deadlines.between_s
            self._first.discard(index)
        self._wake()

    async def read(self) -> list[Delta]:
        """Wait until a stream got something, and return it. Return an empty list once all streams have ended.

        Raises `LateToken`, or the error that `fail` was called with.
        """
        if self._error is None and not self._pending and self._due:
            self._waiter = self._loop.create_future()
            self._watch()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._error is not None:
            raise self._error
        pending, self._pending = self._pending, {}
        return list(pending.values())

    def fail(self, error: Exception) -> None:
        """End reading with an error. Later events are thrown away."""
        self._error = self._error or error
        self._due.clear()
        self._wake()

    def close(self) -> list[AnswerStream]:
        """End reading; return the streams that have not ended, which the caller cancels."""
        if self._timer is not None:
            self._timer.cancel()
        self._due.clear()
        self._pending.clear()
        return [stream for stream in self.streams if not stream.finished]

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch(self) -> None:
        """Set a timer for the first deadline, if none runs. It looks again when it ends: tokens set no timers."""
        if self._timer is None and self._due:
            self._timer = self._loop.call_at(min(self._due.values()), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = [index for index, due in self._due.items() if due <= now]
        if late:
            is_first = late[0] in self._first
            within_s = self._deadlines.first_s if is_first else self._deadlines.between_s
            self.fail(LateToken(within_s, is_first=is_first))
        else:
            self._watch()


def hand_over(deliveries: list[Delivery]) -> None:
    """Give each event to the reader of its stream. Runs in the event loop."""
    for stream, event in deliveries:
        if stream.reader is not None:
            stream.reader.push(stream.index, event)
