"""Training with only the rows of the word embedding that the data uses; exact, and a third of the optimiser's work.

A row that no token names has gradient zero in every step. AdamW moves it by its weight decay alone, so it can stay out
of the model and be given the product of all decays when the weights are saved. Of MiniLM's 30,522 rows a data set of
some thousand sentences uses about a tenth; the other nine would be half of all parameters that the optimiser touches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from trainer.data.prepared import Rows

if TYPE_CHECKING:
    import torch

# Special tokens come first in a vocabulary, and some models find padding by its id: these ids stay as they are.
_KEPT_AS_THEY_ARE = 256


class CompactVocabulary:
    """Swaps a model's word embedding for its used rows while it trains. Without gain it changes nothing."""

    def __init__(self, model: torch.nn.Module, parts: list[Rows] | None, pad_id: int, decay: float) -> None:
        """`parts` are all rows that the model will see; None where they are not known beforehand, or hold no tokens."""
        import torch

        self._model, self._decay = model, decay
        self._new_id: torch.Tensor | None = None
        self.kept = 1.0
        """What is left of the rows that stay out, after the weight decay of all steps."""
        if parts is None:
            return
        if not all(hasattr(model, name) for name in ("get_input_embeddings", "get_output_embeddings", "config")):
            return  # a model of the user's own
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        # An embedding that is the output layer too gets gradients in every row.
        tied = model.get_output_embeddings()  # type: ignore[operator]
        if type(embedding) is not torch.nn.Embedding or tied is not None or embedding.sparse or embedding.max_norm:
            return
        if not embedding.weight.requires_grad:
            return
        n_rows = embedding.num_embeddings
        used = np.zeros(n_rows, dtype=bool)
        used[:_KEPT_AS_THEY_ARE] = True
        for rows in parts:
            used[rows.tokens()] = True
        # Some models look for padding or the end of a text by its id in their config: such ids must not move.
        named = [v for k, v in vars(model.config).items() if k.endswith("_token_id") and isinstance(v, int)]
        highest = max([*named, embedding.padding_idx or 0, pad_id])
        if used.sum() > 0.7 * n_rows or highest >= _KEPT_AS_THEY_ARE:
            return
        self._used = torch.from_numpy(np.flatnonzero(used))
        self._new_id = torch.from_numpy(np.cumsum(used) - 1)
        self._whole = embedding
        self._unused = torch.from_numpy(np.flatnonzero(~used))
        small = torch.nn.Embedding(len(self._used), embedding.embedding_dim, padding_idx=embedding.padding_idx)
        small.weight.data = embedding.weight.data[self._used].clone()
        self._small = small
        model.set_input_embeddings(small)  # type: ignore[operator]

    @property
    def weight(self) -> torch.Tensor | None:
        """The embedding that learns in the place of the whole one; None where nothing was swapped."""
        return self._small.weight if self._new_id is not None else None

    def batch(self, batch: dict[str, torch.Tensor], token_input: str | None) -> dict[str, torch.Tensor]:
        """Return the batch with the ids that the model knows the tokens of `token_input` by now."""
        if self._new_id is None or token_input is None:
            return batch
        return {**batch, token_input: self._new_id[batch[token_input]]}

    def stepped(self, learning_rate: float) -> None:
        """Take note of one optimiser step: the rows that stay out decay too."""
        if self._new_id is not None:
            self.kept *= 1.0 - learning_rate * self._decay

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Give the model its whole embedding back while the block runs, as for saving."""
        if self._new_id is None:
            yield
            return
        import torch

        # The whole one stays on the CPU while the model learns elsewhere.
        small = self._small.weight.detach()
        complete = self._whole.weight.detach().to(small.device, copy=True)
        complete[self._unused.to(small.device)] *= self.kept
        complete[self._used.to(small.device)] = small
        whole = torch.nn.Embedding(
            complete.shape[0], complete.shape[1], padding_idx=self._whole.padding_idx, _weight=complete
        )
        self._model.set_input_embeddings(whole)  # type: ignore[operator]
        try:
            yield
        finally:
            self._model.set_input_embeddings(self._small)  # type: ignore[operator]
