"""Drafts of text generation: which columns are those of a layout, and the base model to start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from trainer.chat.layouts import (
    CHOSEN,
    COMPLETION,
    DESIRABLE,
    MESSAGES,
    PROMPT,
    REJECTED,
    TEXT,
    TOOLS,
    is_messages,
)
from trainer.chat.messages import MessageError, read_tools
from trainer.tasks.draft_options import ColumnSample, Doubt, DraftedSections, DraftFacts

_HUB_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: Names of columns that hold what is asked, and what is answered.
_PROMPTS = ("prompt", "instruction", "question", "query", "input")
_COMPLETIONS = ("completion", "response", "answer", "output")
_JUDGMENTS = ("desirable", "label", "is_good", "thumbs_up")
_TOOLS = ("tools", "functions")
# The method that learns from rows whose last column has this role, if it is not the default.
_METHODS = {REJECTED: "dpo", DESIRABLE: "kto"}
_ABOUT = {"dpo": "to prefer the chosen answer; or: ipo, orpo, simpo", "kto": "from answers that are good or not"}
_NO_TARGET = Doubt(
    "no column says what to predict, so a language model learns to continue the texts",
    "if the texts have labels, add a column for them",
)
# Share of the cells that must hold messages.
_MOST = 0.5


def recognize_columns(columns: Sequence[ColumnSample]) -> dict[str, str] | None:
    """Return role -> column if the columns are clearly those of a layout of text generation, else None."""
    by_name = {column.name.lower(): column for column in columns}
    if CHOSEN in by_name and REJECTED in by_name:
        return {**_named(PROMPT, by_name, _PROMPTS), CHOSEN: by_name[CHOSEN].name, REJECTED: by_name[REJECTED].name}
    chats = [column for column in columns if _share_of_messages(column.cells) >= _MOST]
    prompt, completion = _named(PROMPT, by_name, _PROMPTS), _named(COMPLETION, by_name, _COMPLETIONS)
    if prompt and completion and _can_be_answered(by_name, prompt, completion):
        return {**prompt, **completion, **_judgment(by_name)}
    if chats:
        tools = next((by_name[name] for name in _TOOLS if name in by_name and _holds_tools(by_name[name].cells)), None)
        return {MESSAGES: chats[0].name, **({TOOLS: tools.name} if tools else {})}
    present = [column for column in columns if column.kind != "empty"]
    if len(present) == 1 and present[0].kind == "text":
        return {TEXT: present[0].name}
    return None


def draft_generation_sections(facts: DraftFacts) -> DraftedSections:
    """Return `model` for training a language model further, and what the layout of the rows needs."""
    sections: dict[str, dict[str, Any]] = {"model": {"base": facts.base or _HUB_BASE}}
    comments = {"model.base": "from --base"}
    if TEXT in facts.roles:
        sections["data"] = {"chat": {"overlong": "split"}}
        comments["data.chat"] = "a long text becomes several rows"
    method = _METHODS.get(facts.roles[-1]) if facts.roles else None
    if method:
        sections["train"] = {"method": method}
        comments["train.method"] = _ABOUT[method]
    doubts = [_NO_TARGET] if TEXT in facts.roles else []
    if facts.base:
        return DraftedSections(sections, comments, doubts=tuple(doubts))
    comments["model.base"] = "a small English chat model on the hub: the first run downloads it"
    download = Doubt(
        f"the first run downloads the base model {_HUB_BASE} from the hub",
        "without a network, name a folder with --base",
    )
    english = "The texts are English, as the base model is. Name another model with --base."
    return DraftedSections(sections, comments, (english,), (*doubts, download))


def _named(role: str, by_name: Mapping[str, ColumnSample], names: Sequence[str]) -> dict[str, str]:
    return next(({role: by_name[name].name} for name in names if name in by_name), {})


def _can_be_answered(by_name: Mapping[str, ColumnSample], prompt: dict[str, str], completion: dict[str, str]) -> bool:
    """Whether the two columns hold free text or messages: an answer of few words may be a class."""
    columns = [by_name[prompt[PROMPT].lower()], by_name[completion[COMPLETION].lower()]]
    are_texts = all(column.kind == "text" or _share_of_messages(column.cells) >= _MOST for column in columns)
    exact = (columns[0].name.lower(), columns[1].name.lower()) == (PROMPT, COMPLETION)
    return exact or are_texts


def _judgment(by_name: Mapping[str, ColumnSample]) -> dict[str, str]:
    judgments = [by_name[name] for name in _JUDGMENTS if name in by_name and by_name[name].kind == "boolean"]
    return {DESIRABLE: judgments[0].name} if judgments else {}


def _share_of_messages(cells: Sequence[str]) -> float:
    return sum(map(is_messages, cells)) / max(1, len(cells))


def _holds_tools(cells: Sequence[str]) -> bool:
    for cell in cells:
        try:
            if read_tools(orjson.loads(cell)):
                return True
        except (MessageError, orjson.JSONDecodeError):
            return False
    return False
