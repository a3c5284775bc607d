"""Attention by blocks equals attention with a mask: outputs and gradients."""

import pytest
import torch

from trainer.models.causal.packed import window_mask
from trainer.models.causal.windowed import windowed_attention


@pytest.mark.parametrize(
    ("sequences", "heads", "kv_heads", "length", "window"), [(2, 4, 2, 50, 8), (1, 2, 2, 16, 8), (3, 2, 1, 7, 3)]
)
def test_blocks_equal_a_mask(sequences, heads, kv_heads, length, window):
    generator = torch.Generator().manual_seed(0)
    states = [
        torch.randn(sequences, n, length, 16, generator=generator, requires_grad=True)
        for n in (heads, kv_heads, kv_heads)
    ]
    made = windowed_attention(*states, window, 0.3)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *states, window_mask(length, window, "cpu"), scale=0.3, enable_gqa=heads != kv_heads
    )
    torch.testing.assert_close(made, expected)
    factors = torch.randn(made.shape, generator=generator)
    ours, theirs = (torch.autograd.grad(output, states, factors) for output in (made, expected))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)
