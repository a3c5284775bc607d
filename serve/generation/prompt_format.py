"""What a model's contract says about text: the chat template and the tokenizer, as in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Message = Mapping[str, Any]


class PromptFormat(Protocol):
    """Turns messages and texts into prompts."""

    tokenizer: Tokenizer

    def chat_ids(self, messages: Sequence[Message], tools: Sequence[Message] | None) -> list[int]:
        """Return the token ids of a chat with the beginning of an answer at its end.

        Raises `ValueError` with the template's own message for messages that it does not take.
        """

    def chat_text(
        self, messages: Sequence[Message], tools: Sequence[Message] | None, add_generation_prompt: bool
    ) -> str:
        """Return the text of a chat. Raises as `chat_ids` does."""

    def text_ids(self, text: str) -> list[int]:
        """Return the token ids of a text without a template, with the token that texts begin with, if there is one."""
