"""Linear layers with int8 weights: a scale for each output, and a scale for each token's input, chosen as it comes.

Because each token has its own scale and sums of integers are exact, a token's output does not depend on the others of its
batch. Weights use 7 bits: AVX2 adds two products in 16 bits, which inputs of 8 bits and weights of 8 bits overflow.

The private names of torch that this needs are the fbgemm operations `quantized::linear_prepack` and
`quantized::linear_with_input_q_dq_qweight_dq_output_fp32`, and `quantize_per_channel`, which makes what the first one takes.
torch has no other int8 product that is fast without AVX-512; `tests/unit/test_generation_parts.py` says what to do if they go.

Letters in shapes: T tokens, I inputs, O outputs, V vocabulary.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

_WEIGHT_MAX = 63
_INPUT_SCALE, _INPUT_ZERO = 1 / 127, 128


def has_int8() -> bool:
    """Whether this torch has the operations, on this machine."""
    return (
        hasattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32")
        and hasattr(torch, "quantize_per_channel")
        and "fbgemm" in torch.backends.quantized.supported_engines
    )


class Int8Weight:
    """A weight in int8, (O, I), and the product with it."""

    def __init__(self, weight_OI: torch.Tensor) -> None:
        weight_OI = weight_OI.detach().float()
        scales_O = (weight_OI.abs().amax(1) / _WEIGHT_MAX).clamp_min(1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "quantized tensors are deprecated": see above
            quantized = torch.quantize_per_channel(
                weight_OI.contiguous(), scales_O.double(), torch.zeros(len(scales_O), dtype=torch.long), 0, torch.qint8
            )
            self._packed: Any = torch.ops.quantized.linear_prepack(quantized, None)
        self._product: Any = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        self.n_outputs = len(scales_O)

    def unscaled(self, values_TI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the product, (T, O), up to a factor for each token, and that factor, (T, 1)."""
        factors_T1 = values_TI.abs().amax(-1, keepdim=True).clamp_min_(1e-20)
        return self._product(values_TI / factors_T1, _INPUT_SCALE, _INPUT_ZERO, self._packed), factors_T1


class Int8Linear(torch.nn.Module):
    """A linear layer with an int8 weight, instead of `torch.nn.Linear` or GPT-2's `Conv1D`."""

    def __init__(self, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> None:
        super().__init__()
        self._weight, self._bias_O = Int8Weight(weight_OI), bias_O
        self.out_features, self.in_features = weight_OI.shape

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, (..., O), for values (..., I)."""
        flat = values.reshape(-1, values.shape[-1])
        output, factors = self._weight.unscaled(flat)
        output = output.mul_(factors) if self._bias_O is None else torch.addcmul(self._bias_O, output, factors)
        return output.view(*values.shape[:-1], -1)


class Int8Embedding(torch.nn.Module):
    """An embedding table in int8: a quarter of the memory of float32."""

    def __init__(self, weight_VI: torch.Tensor) -> None:
        super().__init__()
        weight_VI = weight_VI.detach().float()
        self._scales_V1 = (weight_VI.abs().amax(1, keepdim=True) / 127).clamp_min(1e-12)
        self._rows_VI = (weight_VI / self._scales_V1).round().to(torch.int8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of `ids`, float32, (..., I)."""
        return self._rows_VI[ids] * self._scales_V1[ids]


def quantize_model(model: torch.nn.Module) -> None:
    """Replace the linear layers and the input embedding of a causal model by int8 ones, in place."""
    from transformers.pytorch_utils import Conv1D

    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, torch.nn.Linear):
                setattr(parent, name, Int8Linear(layer.weight, layer.bias))
            elif isinstance(layer, Conv1D):
                setattr(parent, name, Int8Linear(layer.weight.T, layer.bias))
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    if type(embedding) is torch.nn.Embedding:
        model.set_input_embeddings(Int8Embedding(embedding.weight))  # type: ignore[operator]
