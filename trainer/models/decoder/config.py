"""The config of raymill's own small decoder, `model_type: raymill_decoder`."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

#: The decoder's name in configs and specs.
MODEL_TYPE = "raymill_decoder"


class RaymillDecoderConfig(PreTrainedConfig):
    """A small decoder for training from scratch; `trainer.models.causal.decoder` has the architecture."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        vocab_size: int = 256,
        hidden_size: int = 128,
        intermediate_size: int | None = None,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 2,
        max_position_embeddings: int = 2048,
        sliding_window: int | None = None,
        rope_theta: float = 10000.0,
        ngram_sizes: list[int] | None = None,
        ngram_rows: int | list[int] = 16384,
        ngram_dropout: float = 0.0,
        tie_word_embeddings: bool = False,
        **others: Any,
    ) -> None:
        """`intermediate_size`: width inside the feed-forward layers; by default four times `hidden_size`.

        `sliding_window`: tokens that a token attends to, itself included; None for all before it. `ngram_sizes`: for each
        number n in it, the last n tokens are hashed to a row of a table, and the row is added to the token's embedding.
        `ngram_rows`: rows of each table, one number for all or one for each. `ngram_dropout`: the share of the rows that
        training leaves out.
        """
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.intermediate_size = intermediate_size or 4 * hidden_size
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.num_key_value_heads = num_attention_heads
        self.head_dim = hidden_size // num_attention_heads
        self.max_position_embeddings, self.sliding_window = max_position_embeddings, sliding_window
        self.rope_theta = rope_theta
        self.ngram_sizes = sorted(ngram_sizes or [])
        self.ngram_rows = [ngram_rows] * len(self.ngram_sizes) if isinstance(ngram_rows, int) else ngram_rows
        self.ngram_dropout = ngram_dropout
        self.tie_word_embeddings = tie_word_embeddings
        super().__init__(**others)
        self._check()

    @property
    def history_tokens(self) -> int:
        """How many tokens before a token the model must be given with it: one less than the longest n-gram."""
        return max(self.ngram_sizes, default=1) - 1

    def _check(self) -> None:
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be num_attention_heads ({self.num_attention_heads}) times an even "
                "number"
            )
        if len(self.ngram_rows) != len(self.ngram_sizes):
            raise ValueError(
                f"ngram_rows has {len(self.ngram_rows)} numbers and ngram_sizes {len(self.ngram_sizes)}; give one for each, "
                "or one number for all"
            )
        if self.ngram_sizes and self.ngram_sizes[0] < 2:
            raise ValueError(f"ngram_sizes: {self.ngram_sizes[0]} is less than 2")
