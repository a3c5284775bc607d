"""The private names of torch and transformers still exist and do what training needs; if not, the test says what to do."""

import pytest
import torch
from transformers import BertConfig

from trainer.optim import torch_internals

REPLACE = "{name} is gone from torch {version}. Change `{function}` in trainer/optim/torch_internals.py: {replacement}."


def check(has_name, name, function, replacement):
    message = REPLACE.format(name=name, version=torch.__version__, function=function, replacement=replacement)
    assert has_name, message


@pytest.mark.parametrize("name", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_torch_reports_the_bf16_instructions_of_a_cpu(name):
    replacement = "use a public query of torch.cpu, or read avx512_bf16 and amx_tile from the flags in /proc/cpuinfo"
    check(hasattr(torch.cpu, name), f"torch.cpu.{name}", "cpu_has_bf16_instructions", replacement)
    assert isinstance(torch_internals.cpu_has_bf16_instructions(), bool)


def test_torch_interpolates_lists_of_tensors():
    replacement = "call `average.lerp_(value, weight)` for each pair, which is slower on GPUs"
    check(hasattr(torch, "_foreach_lerp_"), "torch._foreach_lerp_", "lerp_all", replacement)
    averages = [torch.zeros(2), torch.ones(3)]
    torch_internals.lerp_all(averages, [torch.ones(2), torch.zeros(3)], 0.25)
    assert averages[0].tolist() == [0.25] * 2 and averages[1].tolist() == [0.75] * 3


def test_norms_with_running_statistics_share_a_base_class():
    replacement = "test for BatchNorm1d to 3d, SyncBatchNorm and InstanceNorm1d to 3d"
    name = "torch.nn.modules.batchnorm._NormBase"
    check(hasattr(torch.nn.modules.batchnorm, "_NormBase"), name, "is_running_norm", replacement)
    norms = [torch.nn.BatchNorm2d(2), torch.nn.SyncBatchNorm(2), torch.nn.InstanceNorm1d(2)]
    assert all(torch_internals.is_running_norm(norm) for norm in norms)
    assert not torch_internals.is_running_norm(torch.nn.LayerNorm(2))


def gradient_of(function, values, gradient):
    values = values.clone().requires_grad_()
    function(values).backward(gradient)
    return values.grad


VALUES, GRADIENT = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)).unbind()


def test_torch_has_the_backward_step_of_softmax():
    replacement = "return `output * (gradient - (gradient * output).sum(-1, keepdim=True))`"
    name = "_softmax_backward_data"
    check(hasattr(torch.ops.aten, name), f"torch.ops.aten.{name}", "softmax_backward", replacement)
    expected = gradient_of(lambda values: values.softmax(-1), VALUES, GRADIENT)
    assert torch.equal(torch_internals.softmax_backward(GRADIENT, VALUES.softmax(-1)), expected)


def test_torch_has_the_backward_step_of_gelu():
    replacement = "write the derivative of GELU with torch.erf and torch.exp"
    check(hasattr(torch.ops.aten, "gelu_backward"), "torch.ops.aten.gelu_backward", "gelu_backward", replacement)
    expected = gradient_of(torch.nn.functional.gelu, VALUES, GRADIENT)
    assert torch.equal(torch_internals.gelu_backward(GRADIENT, VALUES), expected)


def test_torch_has_a_layer_norm_that_returns_its_statistics():
    replacement = "compute the mean and the reciprocal deviation beside torch.nn.functional.layer_norm"
    check(hasattr(torch, "native_layer_norm"), "torch.native_layer_norm", "layer_norm_forward", replacement)
    weight, bias = torch.linspace(1, 2, 8), torch.linspace(-1, 1, 8)
    normalized, mean, _ = torch_internals.layer_norm_forward(VALUES, weight, bias, 1e-5)
    assert torch.equal(normalized, torch.nn.functional.layer_norm(VALUES, (8,), weight, bias, 1e-5))
    assert torch.allclose(mean, VALUES.mean(-1, keepdim=True))


def test_torch_has_the_backward_step_of_layer_norm():
    replacement = "write the gradients of layer norm in public operations"
    name = "native_layer_norm_backward"
    check(hasattr(torch.ops.aten, name), f"torch.ops.aten.{name}", "layer_norm_backward", replacement)
    weight, bias = torch.linspace(1, 2, 8).requires_grad_(), torch.linspace(-1, 1, 8).requires_grad_()
    expected = gradient_of(lambda v: torch.nn.functional.layer_norm(v, (8,), weight, bias, 1e-5), VALUES, GRADIENT)
    with torch.no_grad():
        _, *stats = torch_internals.layer_norm_forward(VALUES, weight, bias, 1e-5)
        gradients = torch_internals.layer_norm_backward(GRADIENT, VALUES, *stats, weight, bias)
    for gradient, reference in zip(gradients, (expected, weight.grad, bias.grad), strict=True):
        assert torch.equal(gradient, reference)


def test_transformers_names_the_attention_of_a_model():
    config = BertConfig()
    assert hasattr(config, "_attn_implementation"), (
        "_attn_implementation is gone from transformers. Change `attention_implementation` in "
        "trainer/optim/torch_internals.py: use a public getter of the attention's name."
    )
    config._attn_implementation = "sdpa"
    assert torch_internals.attention_implementation(config) == "sdpa"
    assert torch_internals.attention_implementation(None) == ""
