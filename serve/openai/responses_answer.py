"""The answer to POST /v1/responses: whole, or as the events of its items."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from serve.generation.streams import Delta
from serve.generation.token_texts import TokenTexts
from serve.generation.tool_format import ToolFormat
from serve.openai.answer_parts import AnswerHead, TokenCounts, chat_logprobs, event
from serve.openai.tool_parser import CallDelta, ToolParser


class ResponsesWriter:
    """An `ReplyWriter` of responses. The answer is a message, or function calls with a message before them."""

    def __init__(
        self, head: AnswerHead, texts: TokenTexts, echoed: dict[str, Any], *, form: ToolFormat | None, logprobs: bool
    ) -> None:
        """`echoed` has the parameters of the request that the answer repeats."""
        self._head, self._texts, self._echoed, self._logprobs = head, texts, echoed, logprobs
        self._parser = ToolParser(form) if form else None
        self._items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._number = 0
        self._finish_reason = ""

    def first(self) -> bytes:
        """Return the events of the beginning."""
        response = self._response("in_progress", None)
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def events(self, delta: Delta) -> bytes:
        """Return the events for what the stream got."""
        pieces = b""
        content: str = delta.text
        calls: list[CallDelta] = []
        if self._parser is not None:
            parsed = self._parser.add(delta.text)
            content, calls = parsed.content, list(parsed.calls)
            if delta.finish_reason:
                content += self._parser.finish().content
        if content or (delta.finish_reason and not self._items and not calls):
            pieces += self._add_text(content, delta)
        for call in calls:
            pieces += self._add_call(call)
        if delta.finish_reason:
            self._finish_reason = delta.finish_reason
            pieces += self._close_item()
        return pieces

    def last(self, counts: TokenCounts) -> bytes:
        """Return the event of the end, with the counts."""
        status = self._status()
        return self._event(f"response.{status}", response=self._response(status, counts))

    def whole(self, answers: Sequence[Delta], counts: TokenCounts) -> dict[str, Any]:
        """Return the whole answer."""
        self.events(answers[0])
        return self._response(self._status(), counts)

    def _status(self) -> str:
        return "incomplete" if self._finish_reason == "length" else "completed"

    # -- items

    def _add_text(self, text: str, delta: Delta) -> bytes:
        pieces = b""
        if self._open is None or self._open["type"] != "message":
            pieces += self._close_item()
            new_part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item: dict[str, Any] = {
                "id": f"msg_{secrets.token_hex(12)}",
                "type": "message",
                "role": "assistant",
                "content": [],
            }
            pieces += self._open_item(item)
            item["content"] = [new_part]
            pieces += self._part_event("response.content_part.added", part=dict(new_part))
        assert self._open is not None
        part = self._open["content"][0]
        part["text"] += text
        logprobs = chat_logprobs(delta.logprobs, self._texts) if self._logprobs else []
        part["logprobs"] += logprobs
        return pieces + self._part_event("response.output_text.delta", delta=text, logprobs=logprobs)

    def _add_call(self, call: CallDelta) -> bytes:
        pieces = b""
        if call.name:
            pieces += self._close_item()
            item = {"id": f"fc_{secrets.token_hex(12)}", "type": "function_call", "call_id": call.id, "name": call.name}
            pieces += self._open_item({**item, "arguments": ""})
        if call.arguments:
            assert self._open is not None
            self._open["arguments"] += call.arguments
            pieces += self._item_event("response.function_call_arguments.delta", delta=call.arguments)
        return pieces

    def _open_item(self, item: dict[str, Any]) -> bytes:
        item["status"] = "in_progress"
        self._items.append(item)
        self._open = item
        return self._event("response.output_item.added", output_index=len(self._items) - 1, item=dict(item))

    def _close_item(self) -> bytes:
        item, pieces = self._open, b""
        if item is None:
            return pieces
        if item["type"] == "message":
            part = item["content"][0]
            pieces += self._part_event("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
            pieces += self._part_event("response.content_part.done", part=part)
        else:
            pieces += self._item_event(
                "response.function_call_arguments.done", name=item["name"], arguments=item["arguments"]
            )
        item["status"] = "incomplete" if self._finish_reason == "length" else "completed"
        self._open = None
        return pieces + self._event("response.output_item.done", output_index=len(self._items) - 1, item=item)

    def _part_event(self, kind: str, **fields: Any) -> bytes:
        return self._item_event(kind, content_index=0, **fields)

    def _item_event(self, kind: str, **fields: Any) -> bytes:
        return self._event(kind, item_id=self._items[-1]["id"], output_index=len(self._items) - 1, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return event({"type": kind, "sequence_number": number, **fields}, kind)

    def _response(self, status: str, counts: TokenCounts | None) -> dict[str, Any]:
        head = self._head
        return {
            "id": head.id,
            "object": "response",
            "created_at": head.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": head.model,
            "output": list(self._items),
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            "metadata": {},
            **self._echoed,
            "usage": None if counts is None else _usage(counts),
        }


def _usage(counts: TokenCounts) -> dict[str, Any]:
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached},
        "output_tokens": counts.generated,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counts.prompt + counts.generated,
    }
