"""Whether a spec's method fits its rows, its model and its workers."""

from __future__ import annotations

from collections.abc import Collection

from cluster.errors import SpecError
from trainer.contract.user_code import find_source
from trainer.preference.rows import RowKind, row_kind
from trainer.spec.method import PAIR_METHODS, SHIPPED_REWARDS, MethodSpec
from trainer.spec.run import RunSpec

_COLUMNS: dict[RowKind, str] = {
    "pair": "chosen and rejected, and prompt if it is a column of its own",
    "label": "prompt, completion and desirable",
    "sequence": "messages, or prompt and completion, or text",
}


def check_method(spec: RunSpec, roles: Collection[str]) -> None:
    """Raise `SpecError` if `train.method` cannot be used with this spec, whose columns have these roles."""
    method = spec.train.method
    check_row_kind(method, roles)
    if method.kind != "sft" and spec.train.sequence_tokens is not None:
        raise SpecError(f"train.sequence_tokens cuts rows, and {method.kind} needs them whole", "remove the key")
    if not method.samples_answers:
        return
    if "text" in roles:
        raise SpecError(
            f"train.method: {method.kind} answers prompts, and rows of plain text have none",
            "name the columns `prompt` and `completion`, or `messages`, in `data.columns`",
        )
    if spec.train.mixture:
        raise SpecError(f"train.mixture is not used by {method.kind}", "remove `train.mixture`")
    if method.strength and spec.model.lora is None:
        raise SpecError(
            f"train.method.beta={method.strength:g}: {method.kind} compares the model with the base of an adapter, so that "
            "no second model is in memory",
            "set `model.lora`, or remove `beta`",
        )
    if spec.cluster.strategy == "fsdp" and spec.cluster.max_workers > 1:
        raise SpecError(
            f"train.method: {method.kind} samples answers on each worker alone, and cluster.strategy: fsdp gives a worker "
            "only a part of the model",
            "use `strategy: ddp`",
        )
    for reward in method.rewards:
        if reward.kind not in SHIPPED_REWARDS:
            find_source(reward.kind, "train.method.rewards")


def check_row_kind(method: MethodSpec, roles: Collection[str]) -> None:
    """Raise `SpecError` if the method does not learn from rows whose columns have these roles."""
    expected: RowKind = "pair" if method.kind in PAIR_METHODS else "label" if method.kind == "kto" else "sequence"
    if row_kind(roles) != expected:
        raise SpecError(
            f"train.method: {method.kind} does not learn from rows with the columns {', '.join(roles)}",
            f"name the columns of its rows in `data.columns`: {_COLUMNS[expected]}",
        )
