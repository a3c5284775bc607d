"""The `data.chat:` and `model.tokenizer:` sections of a spec: how rows of text become the tokens of a language model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.section import SpecSection


class ChatSpec(SpecSection):
    """How rows of text generation become tokens, and which of them are learned."""

    template: Annotated[str, Field(min_length=1)] | None = None
    """The chat template: a file (`chat.jinja`), or the template itself. Default: the base model's. Only rows with messages
    need one."""
    learn: Literal["assistant", "last", "all"] = "assistant"
    """What is learned of a conversation: all answers of the `assistant`, its `last` answer, or `all` tokens."""
    overlong: Literal["refuse", "truncate_left", "truncate_right", "split"] = "refuse"
    """What becomes of a sequence with more tokens than `data.max_length`. `refuse`: it is a bad row; `truncate_left`: its
    last tokens are used, `truncate_right`: its first ones; `split`: a text becomes several rows (only for `text`)."""


class TokenizerSpec(SpecSection):
    """The tokenizer of a new model, made from the training rows."""

    kind: Literal["bpe", "characters"] = "bpe"
    """`bpe`: byte-level byte pair encoding, which can write any text; `characters`: one token for each character of the
    training rows."""
    size: Annotated[int, Field(ge=260, le=1_000_000)] = 8192
    """`bpe`: number of different tokens, special tokens included."""
