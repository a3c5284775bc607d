"""GRPO: the model answers the prompts of a step, the answers earn rewards, and the loss is computed from the answers.

Letters in shapes: G prompts of a step, S answers to each, B = G * S answers on all workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.chat.rules import CHAT_STEP, ChatRules
from trainer.chat.tokens import join_mask, token_ids
from trainer.models import lora
from trainer.models.causal.log_probs import token_log_probs
from trainer.models.causal.sharing import share_within
from trainer.optim.distributed.collectives import all_gather_object, broadcast_object
from trainer.optim.precision import Precision, autocast
from trainer.preference.grpo import group_advantages, token_weights
from trainer.preference.objectives import rollout_targets
from trainer.preference.rows import answer_start
from trainer.rewards.pinned import pin_rewards
from trainer.rewards.reward import reward_answers
from trainer.rollouts.sample import SampledAnswer, sample_answers
from trainer.rollouts.store import RolloutStore
from trainer.rollouts.texts import prompts_and_references
from trainer.targets.answers.base import Answered
from trainer.training.batch_source import BatchSource, BatchStep
from trainer.training.context import TrainContext
from trainer.training.method import TrainingMethod

if TYPE_CHECKING:
    import torch

_PASS_TOKENS = 8192
# The seed's second number: answers to training prompts, or to validation prompts.
_TRAIN, _VALIDATION = 0, 1


class RolloutMethod(TrainingMethod):
    """Samples answers before a step, and turns the step's prompts into them."""

    def __init__(self, context: TrainContext, batches: BatchSource, precision: Precision) -> None:
        super().__init__(context, batches, precision)
        self._spec = context.spec.train.method
        self._answers: list[SampledAnswer] = []
        self._last: dict[str, float] = {}

    def begin(self, model: Any) -> None:
        from tokenizers import Tokenizer

        prepared = self.context.prepared
        self._store = None
        if self.context.worker.rank == 0:
            pin_rewards(self._spec.rewards, self.context.folder)
            self._store = RolloutStore(self.context.folder)
        rules = ChatRules.model_validate(prepared.contract.step_params(CHAT_STEP))
        self._stop_ids, self._layout = rules.stop_ids, rules.layout
        self._tokenizer = Tokenizer.from_file(str(prepared.folder / "tokenizer.json"))

    def prepare(self, model: Any, step: BatchStep, epoch: int, number: int) -> BatchStep:
        """Return the answers to the step's prompts, with their advantages.

        Every `updates` steps, the prompts are the next ones and their answers are sampled; the steps between take the
        same answers again.
        """
        if number % self._spec.updates == 0 or not self._answers:  # a run may resume between two updates
            self._answers = self._sampled(model, step, epoch, number - number % self._spec.updates)  # all ranks
        own = set(step.positions.tolist()) if step.has_rows else set()
        answers = [answer for answer in self._answers if answer.position in own]
        prompts = {int(position): prompt_of(row) for position, row in zip(step.positions, step.inputs, strict=True)}
        inputs = [_sequence(prompts[answer.position], answer.ids) for answer in answers]
        targets = self._step_targets(model, answers, inputs)
        self._last = _statistics(self._answers)
        return self._batch(step, answers, inputs, targets)

    def step_metrics(self) -> dict[str, float]:
        """Return the mean reward of the step's answers, their mean length, and the share that ended by itself."""
        return self._last

    def metrics(self, model: torch.nn.Module, scores: np.ndarray) -> dict[str, float]:
        """Return the mean reward and the mean length of the most probable answers to the validation prompts."""
        worker, rows = self.context.worker, self.context.prepared.part("validation")
        own = np.arange(worker.rank, len(rows), worker.workers)
        prompts = [prompt_of(rows.inputs(int(row))) for row in own]
        answers = self._answers_to(model, prompts, own, (_VALIDATION, 0, 0), n_samples=1, temperature=0.0)
        rewarded = self._rewarded(answers, "validation", own, own)
        gathered = [answer for part in all_gather_object(rewarded, worker) for answer in part]  # all ranks
        statistics = _statistics(gathered)
        return {name: statistics[name] for name in ("reward", "answer_tokens")}

    def _sampled(self, model: Any, step: BatchStep, epoch: int, number: int) -> list[SampledAnswer]:
        """Return the answers to the prompts of the step on all workers, from the run's folder or newly sampled."""
        worker = self.context.worker
        stored = broadcast_object(self._store.take(epoch, number) if self._store else None, worker)  # all ranks
        if stored is not None:
            return stored
        own, rows = [], self.batches.rows_of(epoch, number)
        if step.has_rows:
            prompts = [prompt_of(row) for row in step.inputs]
            own = self._answers_to(model, prompts, step.positions, (_TRAIN, epoch, number), self._spec.rollout.samples)
            own = self._rewarded(own, "train", rows[step.positions], step.positions)
            if self._needs_log_probs:
                by_position = dict(zip(step.positions.tolist(), prompts, strict=True))
                inputs = [_sequence(by_position[answer.position], answer.ids) for answer in own]
                log_probs = self._log_probs(model, inputs)
                own = [
                    answer._replace(log_probs=tuple(values.tolist()))
                    for answer, values in zip(own, log_probs, strict=True)
                ]
        gathered = [answer for part in all_gather_object(own, worker) for answer in part]  # all ranks
        answers = sorted(gathered, key=lambda answer: (answer.position, answer.sample))
        if self._store:
            self._store.add(epoch, number, answers)
        return answers

    def _answers_to(
        self,
        model: Any,
        prompts: Sequence[np.ndarray],
        positions: Sequence[int] | np.ndarray,
        seeds: tuple[int, int, int],
        n_samples: int,
        temperature: float | None = None,
    ) -> list[SampledAnswer]:
        with autocast(self.precision, self.context.worker.device_type):
            return sample_answers(
                model, prompts, [int(position) for position in positions], self._spec.rollout, self._stop_ids,
                self._tokenizer, seeds=[self.context.spec.train.seed, *seeds], n_samples=n_samples,
                temperature=temperature,
            )  # fmt: skip

    def _rewarded(
        self, answers: list[SampledAnswer], part: str, part_rows: np.ndarray, positions: np.ndarray
    ) -> list[SampledAnswer]:
        """Return the answers with their rewards; `part_rows` are the rows of the prompts at `positions`."""
        if not answers:
            return []
        texts_of_rows = prompts_and_references(self.context.prepared.part(part).take(part_rows), self._layout)
        texts = dict(zip(positions.tolist(), texts_of_rows, strict=True))
        rows = [Answered(texts[answer.position][0], answer.text, texts[answer.position][1]) for answer in answers]
        rewards = reward_answers(self._spec.rewards, rows)
        return [answer._replace(reward=float(reward)) for answer, reward in zip(answers, rewards, strict=True)]

    def _step_targets(self, model: Any, answers: list[SampledAnswer], inputs: list[np.ndarray]) -> np.ndarray:
        """Return the targets of this worker's answers; see `rollout_targets`."""
        rewards = np.array([answer.reward for answer in self._answers]).reshape(-1, self._spec.rollout.samples)
        advantages = group_advantages(rewards, scale=self._spec.scale_advantages).ravel()
        weights = token_weights(np.array([len(answer.ids) for answer in self._answers]), self._spec)
        numbers = {(answer.position, answer.sample): index for index, answer in enumerate(self._answers)}
        own = [numbers[answer.position, answer.sample] for answer in answers]
        old = reference = None
        if self._needs_log_probs:
            old = [np.array(answer.log_probs) for answer in answers]
        if self._spec.strength:
            with lora.adapters_disabled(model):
                reference = self._log_probs(model, inputs)
        return rollout_targets(advantages[own], weights[own], old, reference)

    @property
    def _needs_log_probs(self) -> bool:
        """Whether the loss compares the model with the one that sampled the answers, or with the base."""
        return self._spec.updates > 1 or self._spec.strength > 0

    def _log_probs(self, model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
        was_training = model.training
        with autocast(self.precision, self.context.worker.device_type):
            log_probs = token_log_probs(model, inputs, _PASS_TOKENS, self.context.worker.device)
        model.train(was_training)
        return log_probs

    def _batch(
        self, step: BatchStep, answers: list[SampledAnswer], inputs: list[np.ndarray], targets: np.ndarray
    ) -> BatchStep:
        samples = self._spec.rollout.samples
        positions = np.array([answer.position * samples + answer.sample for answer in answers], np.int64)
        if not answers:  # the worker joins the all-reduce with a loss of zero
            inputs, targets, positions = (
                [_sequence(prompt_of(step.inputs[0]), [0])],
                np.zeros((1, 2)),
                np.zeros(1, np.int64),
            )
        limit = self.context.spec.train.micro_batch_tokens
        lengths = np.array([len(row) for row in inputs], np.int64)
        split = list(share_within(lengths, limit)) if limit else [np.arange(len(inputs))]
        n_passes = max(all_gather_object(len(split), self.context.worker))  # all ranks
        split += [np.arange(0)] * (n_passes - len(split))
        return step._replace(
            inputs=inputs, targets=targets, has_rows=bool(answers), positions=positions, divisor=1, split=split
        )


def prompt_of(row: np.ndarray) -> np.ndarray:
    """Return the token ids of a row up to its last answer."""
    return token_ids(row[: answer_start(row)])


def _sequence(prompt: np.ndarray, answer: list[int]) -> np.ndarray:
    """Return prompt and answer as tokens of which the answer is learned."""
    ids = np.concatenate([prompt, np.array(answer, np.int32)])
    return join_mask(ids, np.arange(len(ids)) >= len(prompt))


def _statistics(answers: list[SampledAnswer]) -> dict[str, float]:
    if not answers:
        return {"reward": 0.0, "answer_tokens": 0.0, "finished": 0.0}
    return {
        "reward": float(np.mean([answer.reward for answer in answers])),
        "answer_tokens": float(np.mean([len(answer.ids) for answer in answers])),
        "finished": float(np.mean([answer.is_finished for answer in answers])),
    }
