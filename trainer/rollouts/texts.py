"""What rewards are computed from besides the answer: the prompt and the row's own answer, as texts."""

from __future__ import annotations

from typing import Any

from trainer.chat.layouts import CHOSEN, COMPLETION, MESSAGES, PROMPT, read_cell
from trainer.chat.rules import Layout
from trainer.data.prepared import PreparedRows

#: Layout -> the roles of the prompt and of the answer.
_ROLES: dict[Layout, tuple[str, str]] = {
    "messages": (MESSAGES, MESSAGES),
    "completion": (PROMPT, COMPLETION),
    "judged": (PROMPT, COMPLETION),
    "preference": (PROMPT, CHOSEN),
}


def prompts_and_references(rows: PreparedRows, layout: Layout) -> list[tuple[str, str]]:
    """Return the prompt and the reference of each row as texts.

    Of messages, the prompt is the last one before the answer, and the answer the last one.
    """
    prompt_role, answer_role = _ROLES[layout]
    cells = rows.raw(answer_role)
    if answer_role == prompt_role:
        conversations = [read_cell(cell) for cell in cells]
        return [(_last_text(messages[:-1]), _last_text(messages)) for messages in conversations]
    return [
        (_last_text(read_cell(prompt)), _last_text(read_cell(answer)))
        for prompt, answer in zip(rows.raw(prompt_role), cells, strict=True)
    ]


def _last_text(value: str | list[dict[str, Any]]) -> str:
    if isinstance(value, str):
        return value
    return str(value[-1].get("content") or "") if value else ""
