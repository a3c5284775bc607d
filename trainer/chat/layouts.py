"""The layouts of rows: which columns they have, and how the cells of a row become sequences of pieces.

A cell is a text, or the JSON text of messages. `plan_row` and `row_identity` look the layout up in a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeAlias

import orjson

from trainer.chat.control_tokens import ControlTokens
from trainer.chat.long_texts import whole_part
from trainer.chat.messages import ASSISTANT, MessageError, read_messages, read_tools
from trainer.chat.rules import ChatRules, Layout, Learn
from trainer.chat.segments import NotPrefixPreserving, split_conversation, split_prompt
from trainer.chat.sequences import NOTHING_LEARNED, TextPiece
from trainer.chat.template import ChatTemplate, TemplateFailed

#: One row: role -> cell; None or absent for a missing cell.
Cells: TypeAlias = Mapping[str, "str | None"]

MESSAGES, TOOLS, PROMPT, COMPLETION, TEXT = "messages", "tools", "prompt", "completion", "text"
CHOSEN, REJECTED, DESIRABLE = "chosen", "rejected", "desirable"
#: The roles of each layout, in order; those in `OPTIONAL` only if `data.columns` names them.
ROLES: dict[Layout, tuple[str, ...]] = {
    "messages": (MESSAGES, TOOLS),
    "completion": (PROMPT, COMPLETION),
    "text": (TEXT,),
    "preference": (PROMPT, CHOSEN, REJECTED),
    "judged": (PROMPT, COMPLETION, DESIRABLE),
}
OPTIONAL = {TOOLS}
#: Layout -> roles that need not have a column even though the layout knows them.
_MAY_LACK: dict[Layout, set[str]] = {"messages": {TOOLS}, "preference": {PROMPT}}

NOT_PREFIX_PRESERVING = (
    "the chat template writes earlier messages differently once the conversation goes on, so what is learned would not be "
    "what is served; set data.chat.learn: last, or another data.chat.template"
)
NO_TEMPLATE = "messages need a chat template, and there is none; set data.chat.template"
NO_TOOLS = "the chat template leaves tools out"
ENDS_WITHOUT_ANSWER = "the last message is not by the assistant"


class UnusableRow(ValueError):
    """A row that cannot become tokens; the message is its reason."""


def layout_of(roles: Collection[str]) -> Layout | None:
    """Return the layout of rows whose columns have these `roles`; None if they belong to no layout or to several."""
    fitting = [
        layout
        for layout, known in ROLES.items()
        if set(roles) <= set(known) and set(known) - _MAY_LACK.get(layout, set()) <= set(roles)
    ]
    return fitting[0] if len(fitting) == 1 else None


class RowPlan(NamedTuple):
    """The sequences of a row, and the numbers that stand before them in its model input."""

    sequences: list[list[TextPiece]]
    head: tuple[int, ...] = ()
    is_prompt: bool = False
    """Whether the row has no answer, so that nothing of it is learned."""


class Planner:
    """Turns the cells of rows into plans. `template` is None if no row has messages."""

    def __init__(self, rules: ChatRules, template: ChatTemplate | None, special_tokens: Collection[str]) -> None:
        self.rules, self._template = rules, template
        self._control = ControlTokens(special_tokens)

    def plan_row(self, cells: Cells, *, needs_answer: bool) -> RowPlan:
        """Return the sequences of a row; without an answer, they are a prompt. Raises `UnusableRow`.

        With `needs_answer`, a row without an answer cannot be used.
        """
        try:
            return _PLANS[self.rules.layout](self, cells, needs_answer)
        except (MessageError, TemplateFailed) as error:
            raise UnusableRow(str(error)) from error
        except NotPrefixPreserving:
            raise UnusableRow(NOT_PREFIX_PRESERVING) from None

    def prompt(self, messages: list[dict[str, Any]], tools: list[Any] | None) -> list[TextPiece]:
        """Return the pieces of a conversation that the assistant is to continue."""
        template, messages, tools = self._prepare(messages, tools)
        return [
            TextPiece(segment.text, is_answer=segment.answer is not None)
            for segment in split_prompt(template, messages, tools)
        ]

    def conversation(
        self, messages: list[dict[str, Any]], tools: list[Any] | None, first_learned: int = 0
    ) -> list[TextPiece]:
        """Return the pieces of a conversation that ends with an answer; answers before `first_learned` are only read."""
        if messages[-1]["role"] != ASSISTANT:
            raise UnusableRow(ENDS_WITHOUT_ANSWER)
        learned = self._learned_answers(messages, first_learned)
        template, messages, tools = self._prepare(messages, tools)
        segments = split_conversation(template, messages, tools)
        if not learned <= {segment.answer for segment in segments}:
            raise NotPrefixPreserving
        return [
            TextPiece(segment.text, learned=segment.answer in learned, is_answer=segment.answer is not None)
            for segment in segments
        ]

    def text(self, text: str) -> list[TextPiece]:
        """Return the pieces of a text that goes on, without a template."""
        first = self.rules.first_id
        return [*([TextPiece("", (first,))] if first is not None else []), TextPiece(text)]

    def finished_text(self, prompt: str, answer: str, *, is_end: bool = True) -> list[TextPiece]:
        """Return the pieces of a text whose `answer` is learned, with the end that the model is to learn."""
        end = self.rules.eos_token_id if is_end else None
        pieces = [piece for piece in self.text(prompt) if piece.text or piece.ids]
        return [
            *pieces,
            TextPiece(answer, learned=True),
            *([TextPiece("", (end,), learned=True)] if end is not None else []),
        ]

    def _learned_answers(self, messages: list[dict[str, Any]], first: int) -> set[int]:
        """Return the indices of the messages that are learned."""
        answers = [index for index, message in enumerate(messages) if message["role"] == ASSISTANT and index]
        if self.rules.learn == "last":
            answers = answers[-1:]
        learned = {index for index in answers if index >= first and messages[index].get("weight") != 0}
        if not learned and self.rules.learn != "all":
            raise UnusableRow(NOTHING_LEARNED)
        return learned

    def _prepare(
        self, messages: list[dict[str, Any]], tools: list[Any] | None
    ) -> tuple[ChatTemplate, list[dict[str, Any]], list[Any] | None]:
        """Return the template, and messages and tools as it may see them."""
        if self._template is None:
            raise UnusableRow(NO_TEMPLATE)
        if tools and not self.rules.has_tools:
            raise UnusableRow(NO_TOOLS)
        if any("weight" in message for message in messages):
            messages = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
        if self._control.are_in(messages) or self._control.are_in(tools):
            messages, tools = self._control.mark(messages), self._control.mark(tools)
        return self._template, messages, tools


def row_identity(layout: Layout, learn: Learn, cells: Cells) -> tuple[bytes, bytes]:
    """Return what a row is asked, and all that it holds: the same bytes for the same content however it is written.

    Cells that cannot be read stand for themselves.
    """
    try:
        if layout == "messages":
            return _identity_of_messages(learn, cells)
        return _identity_of_text(cells) if layout == "text" else _identity_of_prompt(layout, cells)
    except (MessageError, UnusableRow):
        content = orjson.dumps(dict(cells))
        return content, content


def read_cell(cell: str | None) -> str | list[dict[str, Any]]:
    """Return the messages in a cell, or the cell's text. Raises `UnusableRow` for an empty cell, `MessageError`."""
    if cell is None:
        raise UnusableRow("missing value")
    return read_messages(orjson.loads(cell)) if is_messages(cell) else cell


def is_messages(cell: str) -> bool:
    """Return whether a cell is the JSON text of messages: a list of objects with a role, or a speaker."""
    if cell.lstrip()[:1] != "[":
        return False
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError:
        return False
    return bool(value) and all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value)


def _messages_of(cells: Cells) -> tuple[list[dict[str, Any]], list[Any] | None]:
    cell = cells.get(MESSAGES)
    if cell is None:
        raise UnusableRow(f"missing {MESSAGES}")
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError:
        raise UnusableRow("messages: not JSON") from None
    return read_messages(value), read_tools(cells.get(TOOLS))


def _plan_messages(planner: Planner, cells: Cells, needs_answer: bool) -> RowPlan:
    messages, tools = _messages_of(cells)
    if messages[-1]["role"] != ASSISTANT and not needs_answer:
        return RowPlan([planner.prompt(messages, tools)], is_prompt=True)
    return RowPlan([planner.conversation(messages, tools)])


def _plan_completion(planner: Planner, cells: Cells, needs_answer: bool) -> RowPlan:
    if cells.get(COMPLETION) is None and not needs_answer:
        prompt = read_cell(cells.get(PROMPT))
        pieces = planner.text(prompt) if isinstance(prompt, str) else planner.prompt(prompt, None)
        return RowPlan([pieces], is_prompt=True)
    return RowPlan([_answered(planner, read_cell(cells.get(PROMPT)), read_cell(cells.get(COMPLETION)))])


def _plan_text(planner: Planner, cells: Cells, needs_answer: bool) -> RowPlan:
    if cells.get(TEXT) is None and not needs_answer:
        return RowPlan([planner.text(cells.get(PROMPT) or "")], is_prompt=True)
    text = cells.get(TEXT)
    if text is None:
        raise UnusableRow(f"missing {TEXT}")
    text, is_end = whole_part(text)
    return RowPlan([planner.finished_text("", text, is_end=is_end)])


def _plan_preference(planner: Planner, cells: Cells, needs_answer: bool) -> RowPlan:
    if cells.get(CHOSEN) is None and cells.get(REJECTED) is None and not needs_answer:
        return _plan_completion(planner, cells, needs_answer)
    if cells.get(CHOSEN) == cells.get(REJECTED):
        raise UnusableRow("chosen and rejected are equal")
    prompt = read_cell(cells[PROMPT]) if cells.get(PROMPT) is not None else None
    sides = [_answered(planner, prompt, read_cell(cells.get(side))) for side in (CHOSEN, REJECTED)]
    return RowPlan(sides)


def _plan_judged(planner: Planner, cells: Cells, needs_answer: bool) -> RowPlan:
    if cells.get(COMPLETION) is None and not needs_answer:
        return _plan_completion(planner, cells, needs_answer)
    word = (cells.get(DESIRABLE) or "").strip().lower()
    if word not in _JUDGMENTS:
        raise UnusableRow("desirable is neither true nor false")
    answered = _answered(planner, read_cell(cells.get(PROMPT)), read_cell(cells.get(COMPLETION)))
    return RowPlan([answered], head=(_JUDGMENTS[word],))


_JUDGMENTS = {"true": 1, "1": 1, "yes": 1, "false": 0, "0": 0, "no": 0}


def _answered(planner: Planner, prompt: Any, answer: Any) -> list[TextPiece]:
    """Return the pieces of a prompt with its answer; each is a text or messages, and answers may repeat the prompt."""
    if isinstance(prompt, (str, type(None))) and isinstance(answer, str):
        return planner.finished_text(prompt or "", answer)
    messages = _as_messages(prompt, "user") if prompt is not None else []
    answers = _as_messages(answer, ASSISTANT)
    # Without a prompt of its own, all but the last message of a conversation is the prompt.
    first_learned = len(messages) if messages else len(answers) - 1
    whole = answers if answers[: len(messages)] == messages else [*messages, *answers]
    return planner.conversation(whole, None, first_learned)


def _as_messages(value: Any, role: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": value}] if isinstance(value, str) else value


_PLANS: dict[Layout, Callable[[Planner, Cells, bool], RowPlan]] = {
    "messages": _plan_messages,
    "completion": _plan_completion,
    "text": _plan_text,
    "preference": _plan_preference,
    "judged": _plan_judged,
}


def _identity_of_messages(learn: Learn, cells: Cells) -> tuple[bytes, bytes]:
    messages, tools = _messages_of(cells)
    answers = [index for index, message in enumerate(messages) if message["role"] == ASSISTANT and index]
    first = (answers[-1] if learn == "last" else answers[0]) if answers else len(messages)
    return orjson.dumps([messages[:first], tools]), orjson.dumps(messages)


def _identity_of_prompt(layout: Layout, cells: Cells) -> tuple[bytes, bytes]:
    values = {role: read_cell(cells[role]) for role in ROLES[layout] if cells.get(role) is not None}
    prompt = values.get(PROMPT)
    if prompt is None:  # both sides hold the whole conversation
        prompt = _common_start(values[CHOSEN], values[REJECTED])
    return orjson.dumps(prompt), orjson.dumps(list(values.values()))


def _identity_of_text(cells: Cells) -> tuple[bytes, bytes]:
    return (cells.get(TEXT) or "").encode(), b""


def _common_start(chosen: Any, rejected: Any) -> Any:
    if not (isinstance(chosen, list) and isinstance(rejected, list)):
        return [chosen, rejected]
    common = [ours for ours, theirs in zip(chosen, rejected, strict=False) if ours == theirs]
    return common or [chosen, rejected]
