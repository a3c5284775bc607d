"""A conversation as segments of text: what the model reads, and what it says.

A segment ends where the assistant begins and where it ends. These borders come from rendering prefixes of the
conversation: `render(messages[:i], add_generation_prompt)` ends where answer i begins, `render(messages[:i + 1])` where it
ends. Each segment is tokenized by itself, in training and in serving, so the tokens of a prompt are the first tokens of
every row that continues it, whatever the tokenizer would merge across a border.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from trainer.chat.messages import ASSISTANT
from trainer.chat.template import ChatTemplate


class Segment(NamedTuple):
    """A piece of a rendered conversation."""

    text: str
    answer: int | None
    """The index of the message that the assistant says; None for what it reads."""


class NotPrefixPreserving(ValueError):
    """The template writes the start of a conversation differently once the conversation goes on."""


def split_conversation(
    template: ChatTemplate, messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None
) -> list[Segment]:
    """Return a whole conversation, whose last message is usually the assistant's, in segments.

    An earlier answer whose borders the template moves later on is not cut out: it belongs to what is read. Raises
    `NotPrefixPreserving` if that happens to the last answer, and `TemplateFailed` if the template refuses.
    """
    whole = template.render(messages, tools, add_generation_prompt=False)
    return _cut(template, messages, tools, whole, is_finished=True)


def split_prompt(
    template: ChatTemplate, messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None
) -> list[Segment]:
    """Return a conversation that the assistant is to continue, in segments; the last one ends with the generation prompt.

    These are the first segments that `split_conversation` gives for the same messages with an answer.
    """
    whole = template.render(messages, tools, add_generation_prompt=True)
    return _cut(template, messages, tools, whole, is_finished=False)


def _cut(
    template: ChatTemplate,
    messages: Sequence[dict[str, Any]],
    tools: Sequence[Any] | None,
    whole: str,
    *,
    is_finished: bool,
) -> list[Segment]:
    """Cut `whole` at the borders of the answers. If it `is_finished`, its end is that of the last message."""
    last = len(messages) - 1
    segments: list[Segment] = []
    done = 0
    for index, message in enumerate(messages):
        if message["role"] != ASSISTANT or index == 0:  # a greeting answers nothing
            continue
        before = template.render(messages[:index], tools, add_generation_prompt=True)
        is_last = is_finished and index == last
        after = whole if is_last else template.render(messages[: index + 1], tools, add_generation_prompt=False)
        if done <= len(before) < len(after) and whole.startswith(after) and after.startswith(before):
            segments += [Segment(before[done:], None), Segment(after[len(before) :], index)]
            done = len(after)
        elif is_last:
            raise NotPrefixPreserving
    segments.append(Segment(whole[done:], None))
    return [segment for segment in segments if segment.text]
