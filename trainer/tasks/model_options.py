"""What a task may override about its model: training, prediction, devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trainer.models.model_facts import ModelFacts, base_model_facts

if TYPE_CHECKING:
    import torch

    from trainer.contract.contract import Contract
    from trainer.spec.answers import AnswersSpec
    from trainer.spec.evaluate import Metric
    from trainer.spec.run import RunSpec
    from trainer.targets.answers.base import Answered
    from trainer.targets.base import Target
    from trainer.tasks.objective import Objective


class ModelOptions:
    """Defaults for a torch model that raymill's training loop trains."""

    target: Target

    #: The accepted values of `model`, described for people; `raymill tasks` prints it.
    models = ""
    #: The tensor of `collate` that holds token ids. Training may then leave out embedding rows of unused tokens.
    token_input: str | None = None
    #: In what `train:` counts a step: `rows` (`batch_size`) or `tokens` (`tokens_per_step`).
    step_unit: Literal["rows", "tokens"] = "rows"
    #: A training loop that replaces raymill's. Its argument is a `trainer.training.context.TrainContext`.
    train: Callable[..., None] | None = None

    def model_facts(self, spec: RunSpec) -> ModelFacts:
        """Return the size and the origin of the model, on which the defaults of `train:` depend.

        The default reads the headers of `model.base`; a model without a base is new.
        """
        return base_model_facts(spec)

    def model_on_meta(self, spec: RunSpec, outputs: int) -> Any | None:
        """Return the model of `spec` on torch's device `meta`, from which the plan counts memory.

        The default is None: the model's memory is not known before it is built.
        """
        return None

    def batch_on_meta(self, spec: RunSpec, rows: int, length: int) -> dict[str, torch.Tensor]:
        """Return a batch for `model_on_meta` with inputs of `length`, as `collate` would."""
        return {}

    def loss_on_meta(self, output: Any) -> torch.Tensor:
        """Return the summed loss of what `model_on_meta` returned for `batch_on_meta`."""
        import torch

        logits = output.logits
        zeros = torch.zeros(len(logits), dtype=torch.long, device="meta")
        return torch.nn.functional.cross_entropy(logits, zeros, reduction="sum")

    def objective(self, spec: RunSpec, contract: Contract) -> Objective | None:
        """Return what a training minimizes. None: the target's loss of the model's `logits`, by row."""
        return None

    def write_answers(
        self,
        model: Any,
        contract: Contract,
        folder: Path,
        inputs: Sequence[np.ndarray],
        spec: AnswersSpec,
        on_progress: Callable[[int], None],
    ) -> list[list[Answered]]:
        """Return the answers of `model` to each row's prompt: `spec.samples` of them, none for a row without a prompt.

        `folder` is the model's; `on_progress` gets the number of answers so far. Only tasks that use the key
        `evaluate.answers` have to write answers.
        """
        raise NotImplementedError(f"{type(self).__name__} writes no answers")

    def default_metric(self, spec: RunSpec) -> Metric:
        """Return the default of `evaluate.metric`: the one of the target, unless the training has another aim."""
        return self.target.default_metric

    def step_arithmetic(self, model: Any) -> Callable[[Sequence[np.ndarray]], float] | None:
        """Return a function that counts the floating-point operations of a step from its rows' model inputs.

        The log then has the share of the machine's arithmetic that a training uses. None: they are not counted.
        """
        return None

    def completer(
        self, model: Any, contract: Contract, folder: Path, limits: AnswersSpec
    ) -> Callable[[Sequence[np.ndarray]], list[dict[str, Any]]] | None:
        """Return a function from encoded inputs to their answers, if `model` writes its answers.

        The default is None: the target makes answers of the scores. `limits` says how long answers may be.
        """
        return None

    def pad_id(self, contract: Contract) -> int:
        """Return the id with which `collate` pads `token_input`."""
        return 0

    def augment(
        self, spec: RunSpec, contract: Contract, batch: dict[str, torch.Tensor], targets: torch.Tensor, seed: int
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return a randomly changed training batch and its targets; the same `seed` gives the same result.

        The default changes nothing.
        """
        return batch, targets

    def to_device(self, model: Any, device: str, threads: int) -> Any:
        """Return the loaded model, ready to predict on `device`. `threads` is the number of threads on a CPU."""
        import torch

        torch.set_num_threads(threads)
        return model.to(device).eval()
