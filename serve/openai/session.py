"""Run one request through an engine: submit its sequences, then answer whole or as a stream of events."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from cluster.errors import RequestError
from serve.asgi.error_forms import openai_error
from serve.asgi.exchange import Exchange, Reply, StreamReply, json_reply
from serve.generation.generation_model import GenerationModel
from serve.generation.streams import AnswerReader, AnswerStream, Deadlines, Delivery, Delta, LateToken, hand_over
from serve.openai.answer_parts import ReplyWriter, TokenCounts, event
from serve.openai.quotas import TokenQuotas
from trainer.generation.engine import GenerationRequest, SamplingParams

# The status in logs of a request whose client has hung up.
CLIENT_GONE = 499


class PromptJob(NamedTuple):
    """What a request asks of the engine."""

    prompts: Sequence[Sequence[int]]
    params: Sequence[SamplingParams]
    """The parameters of each prompt."""
    n: int
    """Answers to each prompt; the seeds of further ones count up."""


class Sessions:
    """The requests that are being answered."""

    def __init__(self, deadlines: Deadlines, quotas: TokenQuotas, timeout_s: float) -> None:
        """A request that is not streamed must be answered within `timeout_s`."""
        self._deadlines, self._quotas, self._timeout_s = deadlines, quotas, timeout_s
        self._readers: set[AnswerReader] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deliver: Callable[[list[Delivery]], None] = hand_over

    async def answer(
        self,
        exchange: Exchange,
        model: GenerationModel,
        job: PromptJob,
        writer: ReplyWriter,
        *,
        stream: bool,
        preparing_s: float = 0.0,
    ) -> Reply | StreamReply:
        """Answer a request. With `stream`, the reply begins when the first token is there, so errors before it have a
        status of their own.

        Raises `RequestError` 429 if too many answers wait or the key has used its quota up, 504 if tokens come too late,
        500 if the engine fails.
        """
        self._quotas.check(exchange.key)
        session = self._open(exchange, model, job)
        session.job.preparing_s = preparing_s
        handed_on = False
        try:
            if not stream:
                return await session.whole(writer, self._timeout_s)
            first = await session.read()
            handed_on = True
            return StreamReply(session.pieces(writer, first), session.close)
        finally:
            if not handed_on:
                session.close()

    def give_up(self, error: RequestError) -> None:
        """End all requests with `error`."""
        for reader in list(self._readers):
            reader.fail(error)

    def _open(self, exchange: Exchange, model: GenerationModel, job: PromptJob) -> Session:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._deliver = loop, functools.partial(_deliver, loop)
        reader = AnswerReader(loop, self._deadlines)
        for prompt, params in zip(job.prompts, job.params, strict=True):
            for number in range(job.n):
                seeded = dataclasses.replace(params, seed=params.seed + number) if number else params
                request = GenerationRequest(secrets.token_hex(12), prompt, seeded, model.adapter)
                AnswerStream(request, exchange.key, self._deliver, reader)
        model.submit(reader.streams)
        self._readers.add(reader)
        model.metrics.in_flight.inc()
        return Session(self, exchange, model, reader, sum(map(len, job.prompts)))

    def forget(self, session: Session) -> None:
        """Take a closed session off the list, and charge its key."""
        self._readers.discard(session.reader)
        session.model.metrics.in_flight.dec()
        counts = session.counts()
        self._quotas.charge(session.exchange.key, counts.prompt + counts.generated)


def _deliver(loop: asyncio.AbstractEventLoop, deliveries: list[Delivery]) -> None:
    """Wake the requests that a step added something to, in one call into their event loop. Runs in engines' threads."""
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
        loop.call_soon_threadsafe(hand_over, deliveries)


class Session:
    """One request that is being answered."""

    def __init__(
        self, sessions: Sessions, exchange: Exchange, model: GenerationModel, reader: AnswerReader, n_prompt: int
    ) -> None:
        self._sessions, self.exchange, self.model, self.reader = sessions, exchange, model, reader
        self._n_prompt = n_prompt
        self._watcher = asyncio.ensure_future(self._watch_client())
        self.job = exchange.job = GenerationJob(model.identity, reader.streams)
        self._is_open = True

    def counts(self) -> TokenCounts:
        """Return the tokens so far."""
        streams = self.reader.streams
        cached = min(self._n_prompt, max(stream.cached_tokens for stream in streams))
        return TokenCounts(self._n_prompt, sum(stream.n_generated for stream in streams), cached)

    async def read(self) -> list[Delta]:
        """Return what has come. Raises `RequestError` for an engine's error and a late token."""
        try:
            deltas = await self.reader.read()
        except LateToken as late:
            what = "no token" if late.is_first else "no further token"
            code = "first_token_timeout" if late.is_first else "token_timeout"
            raise RequestError(504, code, f"{what} within {late.within_s:g} s; the endpoint is too busy") from None
        for delta in deltas:
            if delta.finish_reason == "error":
                raise RequestError(500, "engine_error", delta.error or "the engine failed")
        return deltas

    async def whole(self, writer: ReplyWriter, timeout_s: float) -> Reply:
        """Wait for all answers and return them. Raises `RequestError` 504 if that takes longer than `timeout_s`."""
        loop = asyncio.get_running_loop()
        late = RequestError(
            504,
            "timeout",
            f"the answer took over {timeout_s:g} s; stream it, or ask for fewer tokens with 'max_tokens'",
        )
        timer = loop.call_later(timeout_s, self.reader.fail, late)
        answers = {stream.index: Delta(stream.index) for stream in self.reader.streams}
        try:
            while deltas := await self.read():
                for delta in deltas:
                    answers[delta.index].add(delta)
        finally:
            timer.cancel()
        return json_reply(writer.whole(list(answers.values()), self.counts()))

    async def pieces(self, writer: ReplyWriter, first: list[Delta]) -> AsyncIterator[bytes]:
        """Yield the events of a stream. An error within it is its last event."""
        try:
            deltas, piece = first, writer.first()
            while deltas:
                yield piece + b"".join(writer.events(delta) for delta in deltas)
                deltas, piece = await self.read(), b""
            yield writer.last(self.counts())
        except RequestError as error:
            self.exchange.reason = error.code
            if error.status != CLIENT_GONE:
                yield event(openai_error(error))

    def close(self) -> None:
        """Free the slots of sequences that have not ended. May be called again."""
        if not self._is_open:
            return
        self._is_open = False
        self._watcher.cancel()
        unfinished = self.reader.close()
        if unfinished:
            self.model.cancel(unfinished)
        self._sessions.forget(self)

    async def _watch_client(self) -> None:
        """End the request as soon as its client hangs up: its slots are free before the next step."""
        while (await self.exchange.receive())["type"] != "http.disconnect":
            pass
        self.reader.fail(RequestError(CLIENT_GONE, "client_gone", "the client has hung up"))
        self.model.cancel(stream for stream in self.reader.streams if not stream.finished)


class GenerationJob:
    """A request's part in logs, traces and headers, in the form of a `serve.model.batcher.Job`."""

    def __init__(self, identity: dict[str, Any], streams: Sequence[AnswerStream]) -> None:
        self.identity, self.raw = identity, streams
        self.preparing_s = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers."""
        return sum(len(stream.request.prompt_ids) + stream.n_generated for stream in self.raw)

    @property
    def queue_s(self) -> float:
        """Seconds in which the sequences waited for slots, at most."""
        return max(max(0.0, (stream.began or stream.submitted) - stream.submitted) for stream in self.raw)

    @property
    def computing_s(self) -> float:
        """Seconds in which they were computed, at most."""
        return max(max(0.0, (stream.finished or stream.last_token) - stream.began) for stream in self.raw)
