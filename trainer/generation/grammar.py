"""Answers that follow a grammar: JSON schemas, regular expressions and Lark grammars, by llguidance.

A grammar is llguidance's JSON form, as text, so that it can travel in `SamplingParams.grammar`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from cluster.errors import ResourceError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def schema_grammar(schema: dict[str, Any] | bool) -> str:
    """Return the grammar of JSON that a JSON schema allows, on one line: a model could write spaces without end."""
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": {**_ONE_LINE, **schema.get("x-guidance", {})}}
    return json.dumps({"grammars": [{"json_schema": schema}]})


def object_grammar() -> str:
    """Return the grammar of any JSON object."""
    return schema_grammar({"type": "object"})


def regex_grammar(pattern: str) -> str:
    """Return the grammar of the texts that a regular expression matches as a whole."""
    return lark_grammar(f"start: /{pattern.replace('/', chr(92) + '/')}/")


def lark_grammar(text: str) -> str:
    """Return the grammar of llguidance's Lark dialect; the rule `start` is the whole answer."""
    return json.dumps({"grammars": [{"lark_grammar": text}]})


class Grammars:
    """Compiles grammars for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, eos_id: int, vocabulary: int) -> None:
        try:
            import llguidance.hf
        except ImportError as error:
            raise ResourceError("grammars need the package llguidance", "pip install llguidance") from error
        from transformers import PreTrainedTokenizerFast

        self._llguidance = llguidance
        self.vocabulary = vocabulary
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        self._tokenizer = llguidance.hf.from_tokenizer(wrapped, n_vocab=vocabulary, eos_token=eos_id)

    def start(self, grammar: str) -> GrammarState:
        """Return the state at the start of an answer. Raises `ValueError` for a grammar that does not compile."""
        matcher = self._llguidance.LLMatcher(self._tokenizer, grammar)
        if matcher.is_error():
            raise ValueError(f"the grammar does not compile: {matcher.get_error()}")
        return GrammarState(matcher, self.vocabulary)


class GrammarState:
    """How far an answer has come in its grammar."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        import llguidance.torch

        self._matcher, self._vocabulary = matcher, vocabulary
        self._fill = llguidance.torch.fill_next_token_bitmask
        self._bits = llguidance.torch.allocate_token_bitmask(1, vocabulary)

    def mask(self) -> torch.Tensor:
        """Return what is added to the logits, float32 (V,): 0 for tokens that may follow, else minus infinity."""
        self._fill(self._matcher, self._bits)
        shifts = torch.arange(32, dtype=torch.int32)
        allowed = ((self._bits[0][:, None] >> shifts) & 1).view(-1)[: self._vocabulary].bool()
        return torch.where(allowed, 0.0, float("-inf"))

    def accept(self, token_id: int) -> None:
        """Go on by one token."""
        self._matcher.consume_token(token_id)

    def forced(self) -> list[int]:
        """Return the tokens that must follow, as far as there is no choice."""
        return list(self._matcher.compute_ff_tokens())

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole and nothing may follow."""
        return bool(self._matcher.is_stopped())
