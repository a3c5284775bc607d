"""The answer to POST /v1/completions: whole, or as chunks; with `echo`, each answer begins with its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from serve.generation.streams import Delta
from serve.generation.token_texts import TokenTexts
from serve.openai.answer_parts import DONE, AnswerHead, TokenCounts, event
from trainer.generation.engine import TokenLogprob


class EchoedPrompt(NamedTuple):
    """A prompt that its answers begin with."""

    text: str
    ids: Sequence[int]


class CompletionWriter:
    """An `ReplyWriter` of text completions."""

    def __init__(
        self,
        head: AnswerHead,
        echoed: Sequence[EchoedPrompt | None],
        texts: TokenTexts,
        *,
        logprobs: bool,
        sends_usage: bool,
        only_prompt: bool = False,
    ) -> None:
        """`echoed` has the prompt of each answer, or None without echo. `only_prompt` leaves the answers themselves out."""
        self._head, self._echoed, self._texts = head, echoed, texts
        self._logprobs, self._sends_usage, self._only_prompt = logprobs, sends_usage, only_prompt
        self._begun: set[int] = set()
        self._offsets = [0] * len(echoed)

    def first(self) -> bytes:
        """Return nothing: the first chunk is the first text."""
        return b""

    def events(self, delta: Delta) -> bytes:
        """Return the chunk for what a stream got."""
        text, logprobs = self._parts(delta)
        if not text and not delta.finish_reason and not delta.logprobs:
            return b""
        chunk = {**self._top(), "choices": [self._choice(delta, text, logprobs)]}
        return event({**chunk, "usage": None} if self._sends_usage else chunk)

    def last(self, counts: TokenCounts) -> bytes:
        """Return the chunk with the counts, if asked for, and the end."""
        return (event({**self._top(), "choices": [], "usage": counts.usage()}) if self._sends_usage else b"") + DONE

    def whole(self, answers: Sequence[Delta], counts: TokenCounts) -> dict[str, Any]:
        """Return the whole answer."""
        choices = [self._choice(answer, *self._parts(answer)) for answer in answers]
        return {**self._top(), "choices": choices, "usage": counts.usage()}

    def _choice(self, delta: Delta, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        reason = "length" if self._only_prompt and delta.finish_reason else delta.finish_reason
        return {"index": delta.index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _parts(self, delta: Delta) -> tuple[str, dict[str, Any] | None]:
        """Return new text and its log-probabilities, with those of the prompt at the beginning."""
        echoed = self._echoed[delta.index] if delta.index not in self._begun else None
        self._begun.add(delta.index)
        text = "" if self._only_prompt else delta.text
        logprobs: list[tuple[int, TokenLogprob | None]] = []
        if echoed is not None:
            text = echoed.text + text
            known = delta.prompt_logprobs if delta.prompt_logprobs is not None else [None] * len(echoed.ids)
            logprobs += zip(echoed.ids, known, strict=True)
        if not self._only_prompt:
            logprobs += [(item.token_id, item) for item in delta.logprobs]
        return text, self._logprobs_of(delta.index, logprobs) if self._logprobs else None

    def _logprobs_of(self, index: int, items: Sequence[tuple[int, TokenLogprob | None]]) -> dict[str, Any]:
        names = [self._texts.name_of(token_id) for token_id, _ in items]
        offsets = []
        for token_id, _ in items:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(self._texts.bytes_of(token_id).decode("utf-8", errors="ignore"))
        return {
            "tokens": names,
            "token_logprobs": [None if item is None else item.logprob for _, item in items],
            "top_logprobs": [None if item is None else self._top_of(item) for _, item in items],
            "text_offset": offsets,
        }

    def _top_of(self, item: TokenLogprob) -> dict[str, float]:
        """Return the most probable tokens and the token itself, as OpenAI does."""
        top = {self._texts.name_of(token_id): logprob for token_id, logprob in item.top}
        return {**top, self._texts.name_of(item.token_id): item.logprob}

    def _top(self) -> dict[str, Any]:
        head = self._head
        return {
            "id": head.id,
            "object": "text_completion",
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.fingerprint,
        }
