"""The attention of causal language models: one function for training, evaluation and generation.

transformers calls it in every layer instead of its own attention, for any architecture that supports its attention
interface. Which keys a query sees is decided by the `Segments` object that the caller passes to the model's `forward`
as `segments=...`: sequences side by side in training (`packed.py`), slots of a cache in generation.

Letters in shapes: T tokens of all sequences side by side, H heads, K heads of keys and values, D width of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cluster.errors import ModelError

if TYPE_CHECKING:
    import torch

#: The name under which transformers knows `attend`.
NAME = "raymill_segments"


class Segments(Protocol):
    """The sequences that one forward pass computes, side by side."""

    def attend(
        self,
        layer: int,
        query_HTD: torch.Tensor,
        key_KTD: torch.Tensor,
        value_KTD: torch.Tensor,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """Return the attention's output, shape (T, H, D). A token sees its own sequence up to itself.

        `window` is the number of tokens that a token sees, itself included; None if it sees all before it.
        """


def use_segments(model: Any) -> None:
    """Let `model`, a causal model of transformers, attend by the `segments` of each call.

    Call the model with `input_ids` (1, T), `position_ids` (1, T), `segments` and `use_cache=False`.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    segments: Segments | None = None,
    softcap: float | None = None,
    s_aux: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute the attention of one layer; the signature is the one of transformers' attention interface.

    `query` has shape (1, H, T, D), `key` and `value` (1, K, T, D); the output (1, T, H, D).
    """
    if segments is None:
        raise ValueError("call the model with `segments`")
    if softcap is not None or s_aux is not None:
        kind = "caps its scores" if softcap is not None else "adds a score to each softmax"
        raise ModelError(
            f"the attention of {type(module).__name__} {kind}, which raymill does not compute",
            "choose another model, such as one of Llama's, Qwen's or Mistral's kind",
        )
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    output_THD = segments.attend(module.layer_idx, query[0], key[0], value[0], scale, sliding_window)
    return output_THD[None], None
