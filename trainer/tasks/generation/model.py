"""The model of text generation: created, trained, judged, saved and loaded.

Letters in shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trainer.contract.contract import Contract
from trainer.models import lora
from trainer.models.base_model import locate_base_model
from trainer.models.model_facts import ModelFacts, base_model_facts
from trainer.models.pretrained import load_pretrained
from trainer.models.save import save_torch_model
from trainer.preference.objectives import LabelObjective, PairObjective, RolloutObjective
from trainer.preference.rows import join_statistics, row_kind, sequences_of
from trainer.spec.evaluate import Metric
from trainer.spec.method import PAIR_METHODS, MethodSpec
from trainer.spec.run import RunSpec
from trainer.tasks.objective import Objective
from trainer.tasks.spec_keys import LANGUAGE_MODEL_KEYS

if TYPE_CHECKING:
    import torch

AUTO_CLASS = "AutoModelForCausalLM"
#: The contract's step with the tokenizer's facts: `vocab_size`, `bos_token_id`, `eos_token_id`, `pad_token_id`.
CHAT_STEP = "chat"
# Tokens of one forward pass outside of training, whatever the number of rows.
_JUDGED_TOKENS = 8192


class LanguageModelTask:
    """The methods of a task that trains a causal language model."""

    token_input: str | None = "input_ids"
    step_unit: Literal["rows", "tokens"] = "tokens"
    used_keys = LANGUAGE_MODEL_KEYS
    models = "base: a causal language model of transformers; config: a new one"

    def collate(self, contract: Contract, inputs: list[np.ndarray]) -> dict[str, torch.Tensor]:
        from trainer.models.causal.batch import pack_rows

        return pack_rows(sequences_of(row_kind(contract.columns), inputs))

    def objective(self, spec: RunSpec, contract: Contract) -> Objective | None:
        method = spec.train.method
        return _OBJECTIVES[method.kind](method)

    def default_metric(self, spec: RunSpec) -> Metric:
        method = spec.train.method
        if method.samples_answers:
            return "reward"
        return "log_loss" if method.kind == "sft" else "preference_accuracy"

    def model_facts(self, spec: RunSpec) -> ModelFacts:
        if spec.model.config is None:
            return base_model_facts(spec)
        from trainer.models.causal.new_config import count_body_weights

        return ModelFacts(count_body_weights(spec.model.config), 1.0, is_pretrained=False)

    def model_on_meta(self, spec: RunSpec, outputs: int) -> Any | None:
        from trainer.models.causal.start import model_on_meta

        return model_on_meta(spec.model)

    def batch_on_meta(self, spec: RunSpec, rows: int, length: int) -> dict[str, Any]:
        from trainer.models.causal.batch import pack_rows

        # Without rows, all tokens may be learned.
        batch = pack_rows([np.zeros(length, np.int32)] * rows)
        return {name: value.to("meta") for name, value in batch.items()}

    def loss_on_meta(self, output: Any) -> torch.Tensor:
        loss: torch.Tensor = output.nll.sum()
        return loss

    def new_model(self, contract: Contract, spec: RunSpec) -> Any:
        from trainer.models.causal.start import start_model

        return start_model(spec.model, contract.step_params(CHAT_STEP))

    def step_arithmetic(self, model: Any) -> Callable[[Sequence[np.ndarray]], float] | None:
        from trainer.models.causal.flops import StepArithmetic

        return StepArithmetic(model)

    def save_model(self, model: Any, contract: Contract, folder: Path) -> None:
        save_torch_model(model, folder)

    def load_model(self, folder: Path) -> torch.nn.Module:
        from trainer.models.causal.packed_forward import use_packed_forward

        if lora.holds_adapter(folder):
            base = load_pretrained(AUTO_CLASS, locate_base_model(lora.base_of_adapter(folder))).module
            module = lora.load_adapter(base, folder)
        else:
            module = load_pretrained(AUTO_CLASS, folder).module
        use_packed_forward(module)
        return module

    def forward(
        self, model: Any, contract: Contract, inputs: list[np.ndarray], batch_size: int, device: str
    ) -> np.ndarray:
        """Return each row's statistics, float64, shape (B, 5); see `trainer.targets.generated`.

        All learned tokens of a row are judged; if it has none, as a request, all its tokens but the first.
        """
        from trainer.models.causal.judge import judge_rows

        kind = row_kind(contract.columns)
        sequences = sequences_of(kind, inputs)
        return join_statistics(kind, inputs, judge_rows(model, sequences, batch_size, _JUDGED_TOKENS, device))


class LearnedTokens:
    """The negative log-likelihood of the learned tokens, per learned token. Implements `Objective`."""

    def __init__(self, method: MethodSpec) -> None:
        """`method` has no settings for it."""

    def weight(self, inputs: np.ndarray) -> int:
        from trainer.models.causal.batch import count_learned

        return count_learned(inputs)

    def loss_sum(self, forward: Callable[..., Any], batch: Mapping[str, Any], targets: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = forward(**batch).nll.sum()
        return loss


_OBJECTIVES: dict[str, Callable[[MethodSpec], Objective]] = {
    "sft": LearnedTokens,
    **dict.fromkeys(sorted(PAIR_METHODS), PairObjective),
    "kto": LabelObjective,
    "grpo": RolloutObjective,
}
