"""The answer to POST /v1/chat/completions: whole, or as chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serve.generation.streams import Delta
from serve.generation.token_texts import TokenTexts
from serve.generation.tool_format import ToolFormat
from serve.openai.answer_parts import DONE, AnswerHead, TokenCounts, chat_logprobs, event
from serve.openai.tool_parser import CallDelta, Parsed, ToolParser


class ChatWriter:
    """An `ReplyWriter` of chat completions."""

    def __init__(
        self,
        head: AnswerHead,
        n: int,
        texts: TokenTexts,
        *,
        form: ToolFormat | None,
        logprobs: bool,
        sends_usage: bool,
    ) -> None:
        """`form` is the format of tool calls, if the answers may have some."""
        self._head, self._n, self._texts = head, n, texts
        self._logprobs, self._sends_usage = logprobs, sends_usage
        self._parsers = [ToolParser(form) for _ in range(n)] if form else None

    def first(self) -> bytes:
        """Return a chunk with the role for each answer."""
        delta = {"role": "assistant", "content": ""}
        return b"".join(self._chunk(index, delta, None) for index in range(self._n))

    def events(self, delta: Delta) -> bytes:
        """Return the chunks for what a stream got."""
        parsed = self._parse(delta)
        logprobs = self._logprobs_of(delta)
        chunks = b""
        if parsed.content or (logprobs is not None and delta.logprobs):
            chunks += self._chunk(delta.index, {"content": parsed.content}, None, logprobs)
        for call in parsed.calls:
            chunks += self._chunk(delta.index, {"tool_calls": [_call_delta(call)]}, None)
        if delta.finish_reason:
            chunks += self._chunk(delta.index, {}, self._finish_reason(delta))
        return chunks

    def last(self, counts: TokenCounts) -> bytes:
        """Return the chunk with the counts, if asked for, and the end."""
        usage = event({**self._top("chat.completion.chunk"), "choices": [], "usage": counts.usage()})
        return (usage if self._sends_usage else b"") + DONE

    def whole(self, answers: Sequence[Delta], counts: TokenCounts) -> dict[str, Any]:
        """Return the whole answer."""
        choices = [self._choice(answer) for answer in answers]
        return {**self._top("chat.completion"), "choices": choices, "usage": counts.usage()}

    def _choice(self, answer: Delta) -> dict[str, Any]:
        parsed = self._parse(answer)
        message: dict[str, Any] = {"role": "assistant", "content": parsed.content, "refusal": None}
        if parsed.calls:
            message["content"] = parsed.content or None
            message["tool_calls"] = _joined_calls(parsed.calls)
        return {
            "index": answer.index,
            "message": message,
            "logprobs": self._logprobs_of(answer),
            "finish_reason": self._finish_reason(answer),
        }

    def _parse(self, delta: Delta) -> Parsed:
        """Split new text into content and calls; the end of an answer releases what was held back."""
        if self._parsers is None:
            return Parsed(delta.text, [])
        parser = self._parsers[delta.index]
        parsed = parser.add(delta.text)
        if not delta.finish_reason:
            return parsed
        rest = parser.finish()
        return Parsed(parsed.content + rest.content, parsed.calls + rest.calls)

    def _finish_reason(self, delta: Delta) -> str:
        called = self._parsers is not None and self._parsers[delta.index].n_calls > 0
        return "tool_calls" if called and delta.finish_reason == "stop" else str(delta.finish_reason)

    def _logprobs_of(self, delta: Delta) -> dict[str, Any] | None:
        return {"content": chat_logprobs(delta.logprobs, self._texts), "refusal": None} if self._logprobs else None

    def _chunk(
        self, index: int, delta: dict[str, Any], finish_reason: str | None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._top("chat.completion.chunk"), "choices": [choice]}
        return event({**chunk, "usage": None} if self._sends_usage else chunk)

    def _top(self, kind: str) -> dict[str, Any]:
        head = self._head
        return {
            "id": head.id,
            "object": kind,
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.fingerprint,
        }


def _call_delta(call: CallDelta) -> dict[str, Any]:
    """Return a piece of a call: its first one has the id, the type and the name."""
    if call.name:
        function = {"name": call.name, "arguments": call.arguments}
        return {"index": call.number, "id": call.id, "type": "function", "function": function}
    return {"index": call.number, "function": {"arguments": call.arguments}}


def _joined_calls(pieces: Sequence[CallDelta]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for piece in pieces:
        if piece.name:
            calls.append({"id": piece.id, "type": "function", "function": {"name": piece.name, "arguments": ""}})
        calls[piece.number]["function"]["arguments"] += piece.arguments
    return calls
