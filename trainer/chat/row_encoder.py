"""Rows of text to model inputs, by the rules of a contract: the one encoder of training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from trainer.chat.layouts import NO_TEMPLATE, Cells, Planner, RowPlan, UnusableRow
from trainer.chat.long_texts import split_text
from trainer.chat.messages import MessageError, read_messages, read_tools
from trainer.chat.rules import TEMPLATE_FILE, ChatRules
from trainer.chat.sequences import NOTHING_LEARNED, EncodedSequences, TextPiece, encode_sequences
from trainer.chat.template import ChatTemplate, TemplateFailed
from trainer.chat.tokenizer import SegmentTokenizer
from trainer.chat.tokens import learned_mask, token_ids

#: A row's model input, or the reason why there is none.
RowInput: TypeAlias = "np.ndarray | str"


class RowEncoder:
    """Encodes rows. A row's input is its tokens (`trainer.chat.tokens`); for pairs, the number of the first sequence's
    tokens and both sequences; for judged answers, 1 or 0 and the sequence."""

    def __init__(self, rules: ChatRules, folder: Path) -> None:
        """`folder` holds tokenizer.json, and the template if there is one."""
        self.rules = rules
        self._segments = SegmentTokenizer(folder)
        self.tokenizer = self._segments.backend
        """The library's tokenizer."""
        template = None
        if rules.template is not None:
            template = ChatTemplate((folder / TEMPLATE_FILE).read_text(encoding="utf-8"), rules.variables)
        self._template = template
        self._planner = Planner(rules, template, self._segments.special_ids)

    def encode(self, columns: Mapping[str, Sequence[str | None]], *, needs_answer: bool) -> list[RowInput]:
        """Return the input of each row; `columns` has the cells by role.

        A row without an answer is a prompt, of which nothing is learned; with `needs_answer`, it cannot be used.
        """
        roles = list(columns)
        plans = [
            self._plan(dict(zip(roles, row, strict=True)), needs_answer) for row in zip(*columns.values(), strict=True)
        ]
        usable = [plan for plan in plans if not isinstance(plan, str)]
        learns_all = [self.rules.learn == "all" and not plan.is_prompt for plan in usable for _ in plan.sequences]
        encoded = encode_sequences(
            self._segments,
            [sequence for plan in usable for sequence in plan.sequences],
            self.rules.stop_ids,
            learns_all,
        )
        inputs: list[RowInput] = []
        done = 0
        for plan in plans:
            if isinstance(plan, str):
                inputs.append(plan)
                continue
            inputs.append(self._row_input(plan, encoded, done, needs_answer))
            done += len(plan.sequences)
        return inputs

    def chat_ids(self, messages: Any, tools: Any = None) -> list[int]:
        """Return the ids of a conversation that the assistant is to continue, in either form of messages.

        They are the first ids of every row that continues the conversation. Raises `UnusableRow`.
        """
        try:
            pieces = self._planner.prompt(read_messages(messages), read_tools(tools))
        except (MessageError, TemplateFailed) as error:
            raise UnusableRow(str(error)) from error
        return self._ids(pieces)

    def chat_text(self, messages: Any, tools: Any = None, add_generation_prompt: bool = True) -> str:
        """Return a conversation as the chat template writes it. Raises `UnusableRow`."""
        if self._template is None:
            raise UnusableRow(NO_TEMPLATE)
        try:
            return self._template.render(
                read_messages(messages), read_tools(tools), add_generation_prompt=add_generation_prompt
            )
        except (MessageError, TemplateFailed) as error:
            raise UnusableRow(str(error)) from error

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text that the model is to continue, without a template."""
        return self._ids(self._planner.text(text))

    def split_text(self, text: str) -> list[str]:
        """Return a text in parts that become rows of their own, as `trainer.chat.long_texts` marks them."""
        return split_text(self._segments, text, self.rules.max_length - 2)  # room for the first and the end token

    def _ids(self, pieces: list[TextPiece]) -> list[int]:
        ids: list[int] = token_ids(encode_sequences(self._segments, [pieces], (), [False]).tokens).tolist()
        return ids

    def _plan(self, cells: Cells, needs_answer: bool) -> RowPlan | str:
        try:
            return self._planner.plan_row(cells, needs_answer=needs_answer)
        except UnusableRow as error:
            return str(error)

    def _row_input(self, plan: RowPlan, encoded: EncodedSequences, first: int, needs_answer: bool) -> RowInput:
        """Return the input of one row, whose sequences are those from `first` on."""
        parts = []
        for number in range(first, first + len(plan.sequences)):
            reason = encoded.reasons[number]
            if reason and (needs_answer or reason != NOTHING_LEARNED):
                return reason
            tokens = self._fit(encoded.sequence(number))
            if isinstance(tokens, str):
                return tokens
            parts.append(tokens)
        head = (len(parts[0]),) if len(parts) > 1 else plan.head
        return np.concatenate([np.asarray(head, np.int32), *parts]) if head else parts[0]

    def _fit(self, tokens: np.ndarray) -> RowInput:
        """Return a sequence cut by the rule for over-long ones, or why it cannot be used."""
        limit = self.rules.max_length
        if len(tokens) <= limit:
            return tokens
        if self.rules.overlong == "truncate_left":
            starts = self.rules.first_id is not None and token_ids(tokens[:1])[0] == self.rules.first_id
            return np.concatenate([tokens[:1], tokens[1 - limit :]]) if starts and limit > 1 else tokens[-limit:]
        if self.rules.overlong == "truncate_right":
            cut = tokens[:limit]
            return cut if learned_mask(cut).any() else f"nothing to learn in its first {limit:,} tokens"
        return f"over {limit:,} tokens"
