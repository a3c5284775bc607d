"""The private names of torch and transformers that training uses, all in one file.

Each function says why no public name is enough and what would replace the private one.
`tests/unit/test_torch_internals.py` has a test for every name, so that an upgrade that drops a name fails in this test
and not in a training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def cpu_has_bf16_instructions() -> bool:
    """Return whether this CPU multiplies matrices in bf16 in hardware: by AVX512-BF16 or AMX.

    Private: `torch.cpu._is_avx512_bf16_supported`, `torch.cpu._is_amx_tile_supported`. torch has no public query for
    CPU features; a CPU without them would take seconds for the measurement in `trainer.optim.precision`, because it
    emulates bf16. A public `torch.cpu.is_bf16_supported`, or the flags in /proc/cpuinfo, would replace them.
    """
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def lerp_all(averages: list[torch.Tensor], values: list[torch.Tensor], weight: float) -> None:
    """Move each tensor of `averages` toward the tensor at the same index of `values` by the share `weight`, in place.

    Private: `torch._foreach_lerp_`. It updates all tensors in one call, and on a GPU in one kernel. A loop over the
    public `Tensor.lerp_` gives the same numbers and would replace it, at the cost of one kernel launch per parameter
    and step.
    """
    import torch

    torch._foreach_lerp_(averages, values, weight)


def is_running_norm(module: torch.nn.Module) -> bool:
    """Return whether `module` is a batch or instance norm, which keeps running statistics in its buffers.

    Private: `torch.nn.modules.batchnorm._NormBase`, the common base class of these norms. A tuple of the public classes
    (BatchNorm1d to 3d, SyncBatchNorm, InstanceNorm1d to 3d) would replace it; it would miss other subclasses.
    """
    import torch

    return isinstance(module, torch.nn.modules.batchnorm._NormBase)


def softmax_backward(gradient: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a softmax's input, from the `gradient` of its `output`. The softmax is over the last axis.

    Private: `torch.ops.aten._softmax_backward_data`. The hand-written BERT layer has no autograd graph, and torch has
    no public function for one backward step. `output * (gradient - (gradient * output).sum(-1, keepdim=True))` would
    replace it, at the cost of three more passes over memory, and with different rounding.
    """
    import torch

    result: torch.Tensor = torch.ops.aten._softmax_backward_data(gradient, output, -1, output.dtype)
    return result


def gelu_backward(gradient: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the gradient of GELU's input `values`, from the `gradient` of its output.

    Undocumented: `torch.ops.aten.gelu_backward`, for the same reason as `softmax_backward`. GELU's derivative, written
    out with `torch.erf`, would replace it.
    """
    import torch

    result: torch.Tensor = torch.ops.aten.gelu_backward(gradient, values)
    return result


def layer_norm_forward(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the layer norm of `values` over the last axis, and the mean and reciprocal standard deviation of each row.

    Undocumented: `torch.native_layer_norm`. The public `torch.nn.functional.layer_norm` does not return the statistics,
    which the backward step needs. Computing them a second time would replace it.
    """
    import torch

    return torch.native_layer_norm(values, weight.shape, weight, bias, eps)


def layer_norm_backward(
    gradient: torch.Tensor,
    values: torch.Tensor,
    mean: torch.Tensor,
    reciprocal_deviation: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of a layer norm's input, weight and bias, from the `gradient` of its output.

    Undocumented: `torch.ops.aten.native_layer_norm_backward`, for the same reason as `softmax_backward`. The textbook
    formula in public operations would replace it.
    """
    import torch

    of_values, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
        gradient, values, weight.shape, mean, reciprocal_deviation, weight, bias, [True, True, True]
    )
    return of_values, of_weight, of_bias


def attention_implementation(config: Any) -> str:
    """Return the attention implementation that a transformers config names, for example `sdpa`; "" if it names none.

    Private: `_attn_implementation` of transformers' `PreTrainedConfig`. transformers has a public method that sets the
    implementation and none that returns it; a public getter would replace this.
    """
    name: str = getattr(config, "_attn_implementation", "")
    return name
