"""The cross entropy of each token, from the states before the output layer, without all logits in memory.

The logits of a chunk of tokens are made, used and dropped: 4,096 tokens of a vocabulary of 49,152 would be 0.8 GB. The
gradient is computed in the same pass, because the gradient of a token's loss by its logits is softmax minus one-hot,
times whatever factor the loss gets later.

Letters in shapes: N tokens, D width of the model, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

# Numbers in the logits of one chunk: 32 MB in fp32, about the last cache of a CPU. A GPU has room for more, and its
# kernels need larger matrices.
_CHUNK_NUMBERS = {"cpu": 1 << 23, "cuda": 1 << 28}
_FEWEST_TOKENS = 64


class TokenLosses(NamedTuple):
    """What is known of each predicted token."""

    nll: torch.Tensor
    """The negative log-likelihood in nats, fp32, shape (N,). It has a gradient."""
    is_right: torch.Tensor
    """Whether the most probable token was the right one, bool, shape (N,)."""


class LogitForm(NamedTuple):
    """What a model does with the product of states and output weights."""

    factor: float = 1.0
    """The logits are multiplied by it."""
    cap: float | None = None
    """Then they are bent to at most this size: `cap * tanh(logits / cap)`."""


def token_losses(
    states_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    next_ids_N: torch.Tensor,
    form: LogitForm = LogitForm(),  # noqa: B008 (a constant)
) -> TokenLosses:
    """Return the loss of each token of `next_ids_N` (int64), given the model's last `states_ND`.

    Under autocast, products are computed in its precision; softmax and losses are always fp32.
    """
    device = states_ND.device.type
    if device == "meta":  # where there is no autocast; the plan counts memory there
        return TokenLosses(*_LinearCrossEntropy.apply(states_ND, weight_VD, bias_V, next_ids_N, form, weight_VD.dtype))
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
    with torch.autocast(device, enabled=False):
        nll, is_right = _LinearCrossEntropy.apply(states_ND, weight_VD, bias_V, next_ids_N, form, dtype)
    return TokenLosses(nll, is_right)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        next_ids: torch.Tensor,
        form: LogitForm,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        needs_states, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        factors = torch.ones(len(states), device=states.device)
        result = _pass_over_chunks(
            states, weight, bias, next_ids, form, dtype, factors, (needs_states, needs_weight, needs_bias)
        )
        ctx.form, ctx.dtype = form, dtype
        ctx.save_for_backward(states, weight, bias, next_ids, result.of_states, result.of_weight, result.of_bias)
        ctx.mark_non_differentiable(result.is_right)
        return result.nll, result.is_right

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        states, weight, bias, next_ids, of_states, of_weight, of_bias = ctx.saved_tensors
        factors = gradients[0]
        if of_weight is not None or of_bias is not None:
            if len(factors) == 0:
                pass  # the gradients are zero
            elif factors.stride() == (0,):  # one factor for all tokens: the loss is their sum
                of_weight = None if of_weight is None else of_weight * factors[0]
                of_bias = None if of_bias is None else of_bias * factors[0]
            else:
                required = (False, of_weight is not None, of_bias is not None)
                again = _pass_over_chunks(states, weight, bias, next_ids, ctx.form, ctx.dtype, factors, required)
                of_weight, of_bias = again.of_weight, again.of_bias
            of_weight = None if of_weight is None else of_weight.to(weight.dtype)
        if of_states is not None:
            of_states = of_states * factors[:, None].to(of_states.dtype)
        return of_states, of_weight, of_bias, None, None, None


class _Pass(NamedTuple):
    """Losses and gradients of all tokens."""

    nll: torch.Tensor
    is_right: torch.Tensor
    of_states: torch.Tensor | None
    of_weight: torch.Tensor | None
    of_bias: torch.Tensor | None


def _pass_over_chunks(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    next_ids: torch.Tensor,
    form: LogitForm,
    dtype: torch.dtype,
    factors: torch.Tensor,
    required: tuple[bool, bool, bool],
) -> _Pass:
    """Compute chunk by chunk the losses, and the gradients of states, weight and bias that are `required`.

    `factors` (N,) multiply the losses in the gradients of weight and bias; the gradient of the states is the one of each
    token's own loss.
    """
    wants_states, wants_weight, wants_bias = required
    n_tokens, n_ids = len(states), weight.shape[0]
    product_weight = weight.to(dtype)
    nll = torch.empty(n_tokens, device=states.device)
    is_right = torch.empty(n_tokens, dtype=torch.bool, device=states.device)
    of_states = torch.empty_like(states) if wants_states else None
    of_weight = torch.zeros(weight.shape, device=states.device) if wants_weight else None
    of_bias = torch.zeros(n_ids, device=states.device) if wants_bias else None
    size = max(_FEWEST_TOKENS, _CHUNK_NUMBERS.get(states.device.type, 1 << 26) // n_ids)
    for start in range(0, n_tokens, size):
        chunk = slice(start, start + size)
        states_CD, ids_C = states[chunk].to(dtype), next_ids[chunk]
        raw_CV = torch.nn.functional.linear(states_CD, product_weight, None if bias is None else bias.to(dtype))
        logits_CV, bent_CV = _form_logits(raw_CV.float(), form)
        highest_C, best_C = logits_CV.max(1)
        right_C = logits_CV.gather(1, ids_C[:, None])[:, 0]
        # The logits become probabilities in place: exp, and a division by the sum.
        logits_CV.sub_(highest_C[:, None]).exp_()
        total_C = logits_CV.sum(1)
        nll[chunk] = total_C.log() + highest_C - right_C
        is_right[chunk] = best_C == ids_C
        if not any(required):
            continue
        gradient_CV = logits_CV.div_(total_C[:, None])
        gradient_CV[torch.arange(len(ids_C), device=ids_C.device), ids_C] -= 1.0
        if bent_CV is not None:
            gradient_CV.mul_(1.0 - bent_CV.square())
        if form.factor != 1.0:
            gradient_CV.mul_(form.factor)
        if of_states is not None:
            of_states[chunk] = gradient_CV.to(dtype) @ product_weight
        if of_weight is not None or of_bias is not None:
            weighted_CV = gradient_CV.mul_(factors[chunk, None])
            if of_bias is not None:
                of_bias += weighted_CV.sum(0)
            if of_weight is not None:
                _add_product(of_weight, weighted_CV.to(dtype).T, states_CD)
    return _Pass(nll, is_right, of_states, of_weight, of_bias)


def _form_logits(raw: torch.Tensor, form: LogitForm) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the logits, and their tanh if they are capped. May overwrite `raw`."""
    logits = raw.mul_(form.factor) if form.factor != 1.0 else raw
    if form.cap is None:
        return logits, None
    bent = logits.div_(form.cap).tanh_()
    return bent * form.cap, bent


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add the matrix product of `left` and `right` to `total`, which is fp32."""
    if left.dtype is torch.float32:
        total.addmm_(left, right)
    else:
        total += left @ right
