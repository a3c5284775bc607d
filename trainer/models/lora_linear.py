"""A linear layer with LoRA's small matrices as one operation: the same products as peft's, with fewer passes over memory.

peft adds the output of the small matrices to that of the layer, scaled, which takes four passes over the output in the forward
pass and as many in the backward pass. Here both products are accumulated where they are computed.

Letters in shapes: N rows of the input over all other axes, I inputs, O outputs, R rank.
"""

from __future__ import annotations

import types
from typing import Any

import torch


def install_lora_products(model: torch.nn.Module) -> int:
    """Let peft's linear layers in `model` compute this way where it is the same; return their number.

    Layers with DoRA, dropout, several adapters or weights that are not plain stay as they are.
    """
    from peft.tuners.lora.layer import Linear

    layers = [module for module in model.modules() if type(module) is Linear and _is_plain(module)]
    for layer in layers:
        layer.forward = types.MethodType(_forward, layer)  # type: ignore[method-assign]
    return len(layers)


def _is_plain(layer: Any) -> bool:
    """Whether a layer of peft has one adapter without extras beside a frozen `torch.nn.Linear`."""
    names = layer.active_adapters
    if len(names) != 1 or names[0] not in layer.lora_A or names[0] in layer.lora_variant:
        return False
    base, name = layer.get_base_layer(), names[0]
    is_frozen = type(base) is torch.nn.Linear and not any(value.requires_grad for value in base.parameters())
    biases = (layer.lora_A[name].bias, layer.lora_B[name].bias)
    return is_frozen and biases == (None, None) and type(layer.lora_dropout[name]) is torch.nn.Identity


def _forward(layer: Any, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    name = layer.active_adapters[0]
    base, small = layer.get_base_layer(), layer.lora_A[name].weight
    is_usual = not (layer.disable_adapters or layer.merged or arguments or options)
    is_cast = (
        not x.is_meta and torch.is_autocast_enabled(x.device.type)
    ) or not x.dtype == small.dtype == base.weight.dtype
    if is_cast or not is_usual:
        output: torch.Tensor = type(layer).forward(layer, x, *arguments, **options)
        return output
    product: torch.Tensor = _LoraProduct.apply(
        x, base.weight, base.bias, small, layer.lora_B[name].weight, layer.scaling[name]
    )
    return product


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        a_RI: torch.Tensor,
        b_OR: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        small_NR = (x_NI @ a_RI.T).mul_(scaling)
        output_NO = torch.nn.functional.linear(x_NI, weight_OI, bias_O)
        output_NO.addmm_(small_NR, b_OR.T)
        ctx.save_for_backward(x_NI, weight_OI, a_RI, b_OR, small_NR)
        ctx.scaling, ctx.shape = scaling, x.shape
        return output_NO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x_NI, weight_OI, a_RI, b_OR, small_NR = ctx.saved_tensors
        gradient_NO = gradients[0].reshape(-1, b_OR.shape[0])
        of_small_NR = (gradient_NO @ b_OR).mul_(ctx.scaling)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (gradient_NO @ weight_OI).addmm_(of_small_NR, a_RI).view(ctx.shape)
        return of_x, None, None, of_small_NR.T @ x_NI, gradient_NO.T @ small_NR, None
