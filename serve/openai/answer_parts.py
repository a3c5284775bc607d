"""What the answers of all paths share: ids, counts of tokens, log-probabilities, reasons of the end, events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from serve.generation.streams import Delta
from serve.generation.token_texts import TokenTexts
from trainer.generation.engine import TokenLogprob

DONE = b"data: [DONE]\n\n"


class AnswerHead(NamedTuple):
    """What identifies an answer."""

    id: str
    created: int
    """Unix time in seconds."""
    model: str
    fingerprint: str
    """Changes when the same request may have another answer."""


def new_head(prefix: str, identity: dict[str, Any]) -> AnswerHead:
    """Return the head of a new answer of the model `identity`. Its id begins with `prefix`."""
    fingerprint = f"fp_{str(identity['checkpoint'])[:12]}_{identity['engine']}"
    return AnswerHead(f"{prefix}{secrets.token_hex(12)}", int(time.time()), str(identity["name"]), fingerprint)


class TokenCounts(NamedTuple):
    """The tokens of a request and its answers. A prompt counts once, however many answers it has."""

    prompt: int
    generated: int
    cached: int

    def usage(self) -> dict[str, Any]:
        """Return OpenAI's `usage` of completions."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


class ReplyWriter(Protocol):
    """Writes the answers of one request in the form of a path, streamed or whole."""

    def first(self) -> bytes:
        """Return the events before the first token."""

    def events(self, delta: Delta) -> bytes:
        """Return the events for what a stream got."""

    def last(self, counts: TokenCounts) -> bytes:
        """Return the events after the last token."""

    def whole(self, answers: Sequence[Delta], counts: TokenCounts) -> dict[str, Any]:
        """Return the whole answer; `answers` has all that each stream got."""


def event(value: dict[str, Any], name: str = "") -> bytes:
    """Return a server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + orjson.dumps(value) + b"\n\n"


def chat_logprobs(logprobs: Sequence[TokenLogprob], texts: TokenTexts) -> list[dict[str, Any]]:
    """Return log-probabilities as chat completions have them."""
    return [
        {
            **_token(item.token_id, item.logprob, texts),
            "top_logprobs": [_token(token_id, logprob, texts) for token_id, logprob in item.top],
        }
        for item in logprobs
    ]


def _token(token_id: int, logprob: float, texts: TokenTexts) -> dict[str, Any]:
    data = texts.bytes_of(token_id)
    # JSON has no minus infinity; OpenAI's own value for it.
    return {"token": data.decode("utf-8", errors="replace"), "logprob": max(logprob, -9999.0), "bytes": list(data)}
