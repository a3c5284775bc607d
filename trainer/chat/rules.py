"""The rules by which rows of text become tokens: what the contract's step `chat` holds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

#: The name of the contract's step.
CHAT_STEP = "chat"
#: Files of a model's folder that the rules need, besides tokenizer.json.
TEMPLATE_FILE = "chat_template.jinja"

Layout = Literal["messages", "completion", "text", "preference", "judged"]
Learn = Literal["assistant", "last", "all"]
Overlong = Literal["refuse", "truncate_left", "truncate_right", "split"]


class ChatRules(BaseModel):
    """Everything besides the tokenizer and the template's text that decides the tokens of a row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Layout
    """`messages`, `completion` (prompt and completion), `text`, `preference` (chosen, rejected) or `judged` (KTO)."""
    template: str | None
    """SHA-256 of the chat template; None if there is none, and no row has messages."""
    variables: dict[str, str]
    """Special tokens that the template may use, by their name in transformers."""
    has_tools: bool
    """Whether the template writes `tools`. If not, a row with tools is refused."""
    learn: Learn
    overlong: Overlong
    max_length: int
    """The most tokens of a sequence."""
    first_id: int | None
    """Id put before a text without a template, as the tokenizer does by itself (BOS); templates write their own."""
    stop_ids: list[int]
    """Ids that end an answer: the end of a turn in the template, and the tokenizer's EOS."""
    vocab_size: int
    bos_token_id: int | None
    eos_token_id: int | None
    """Put after a text and after a completion without a template."""
    pad_token_id: int | None

    def params(self) -> dict[str, Any]:
        """Return the rules as plain JSON, the parameters of the contract's step."""
        return self.model_dump(mode="json")
