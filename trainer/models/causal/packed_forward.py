"""The forward pass that gives the loss of each learned token: states, then the output layer on those tokens only.

Letters in shapes: T tokens of all sequences, N predicted tokens, D width, V vocabulary.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from cluster.errors import ModelError
from trainer.models.causal.attention import use_segments
from trainer.models.causal.packed import PackedSegments, position_ids
from trainer.models.causal.token_loss import LogitForm, TokenLosses, token_losses

# The numbers with which a model multiplies or divides its logits, by their names in transformers' configs.
_FACTORS, _DIVISORS = ("logit_scale",), ("logits_scaling",)
_CAP = "final_logit_softcapping"
_PLAIN_CHUNK = 256
_PROBE_TOKENS = 8


def use_packed_forward(model: Any) -> Any:
    """Let `model`, a causal model of transformers, take packed sequences and return `TokenLosses`. Returns `model`.

    A call with `predicted` (N,), the positions of the states whose next tokens are predicted, and `next_ids` (N,)
    returns `TokenLosses`. Calls without them return logits as before; both need `segments`. Raises `ModelError` if the
    losses are not those of the model's own logits: then the model does more with its logits than is known here.
    """
    use_segments(model)
    if "forward" not in vars(model):
        model.forward = types.MethodType(_forward, model)  # a method, so that a copy of the model calls its own weights
        if next(model.parameters()).device.type != "meta":
            _check_losses(model)
    return model


def _forward(model: Any, *, predicted: torch.Tensor | None = None, **inputs: Any) -> Any:
    if predicted is None:
        inputs.pop("next_ids", None)
        return type(model).forward(model, **inputs)
    next_ids = inputs.pop("next_ids")
    states_TD = _body(model)(**inputs, use_cache=False).last_hidden_state[0]
    return _losses(model, states_TD[predicted], next_ids)


def _losses(model: Any, states_ND: torch.Tensor, next_ids: torch.Tensor) -> TokenLosses:
    head, form = _output_layer(model), logit_form(model.config)
    if type(head) is torch.nn.Linear:
        return token_losses(states_ND, head.weight, head.bias, next_ids, form)
    # An output layer with adapters or quantized weights: chunks that are computed again in the backward pass.
    parts = [
        checkpoint(_chunk_losses, head, form, states, ids, use_reentrant=False)
        for states, ids in zip(states_ND.split(_PLAIN_CHUNK), next_ids.split(_PLAIN_CHUNK), strict=True)
    ]
    return TokenLosses(torch.cat([nll for nll, _ in parts]), torch.cat([is_right for _, is_right in parts]))


def _chunk_losses(
    head: torch.nn.Module, form: LogitForm, states: torch.Tensor, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(states).float() * form.factor
    if form.cap is not None:
        logits = form.cap * torch.tanh(logits / form.cap)
    return torch.nn.functional.cross_entropy(logits, ids, reduction="none"), logits.argmax(1) == ids


def _body(model: Any) -> torch.nn.Module:
    """Return the part of the model that computes the states."""
    body: torch.nn.Module = getattr(model, model.base_model_prefix)
    return body


def _output_layer(model: Any) -> torch.nn.Module:
    """Return the layer that makes logits; of an output layer that LoRA trains as a whole, the copy that learns."""
    head = model.get_output_embeddings()
    copies = getattr(head, "modules_to_save", None)
    return head if copies is None else copies[head.active_adapters[0]]


def logit_form(config: Any) -> LogitForm:
    """Return what a model with this config does with its logits."""
    factor = 1.0
    for name in _FACTORS:
        factor *= getattr(config, name, None) or 1.0
    for name in _DIVISORS:
        factor /= getattr(config, name, None) or 1.0
    return LogitForm(factor, getattr(config, _CAP, None))


def _check_losses(model: Any) -> None:
    """Raise `ModelError` if the losses of two packed sequences are not those of each one's own logits."""
    length = max(2, min(_PROBE_TOKENS, model.config.get_text_config().vocab_size))
    device = next(model.parameters()).device
    ids = torch.arange(length, device=device)
    before = torch.arange(length - 1, device=device)
    batch = _probe_inputs(torch.cat([ids, ids.flip(0)]), [length, length])
    was_training = model.training
    model.eval()
    with torch.no_grad():
        expected = torch.cat([_own_losses(model, sequence) for sequence in (ids, ids.flip(0))])
        next_ids = torch.cat([ids[1:], ids.flip(0)[1:]])
        losses = model(**batch, predicted=torch.cat([before, before + length]), next_ids=next_ids).nll
    model.train(was_training)
    if not torch.allclose(losses.float(), expected, rtol=2e-2, atol=2e-3, equal_nan=True):
        raise ModelError(
            f"the losses of {type(model).__name__} are not those of its own logits, one sequence at a time: it changes its "
            "logits, or carries a state from token to token, in a way that raymill does not know",
            "choose another model, such as one of Llama's, Qwen's or Mistral's kind",
        )


def _own_losses(model: Any, ids_T: torch.Tensor) -> torch.Tensor:
    logits = model(**_probe_inputs(ids_T, [len(ids_T)]), use_cache=False).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, ids_T[1:], reduction="none")


def _probe_inputs(ids_T: torch.Tensor, lengths: list[int]) -> dict[str, Any]:
    device = ids_T.device
    segments = PackedSegments(lengths, device)
    return {"input_ids": ids_T[None], "position_ids": position_ids(lengths).to(device), "segments": segments}
