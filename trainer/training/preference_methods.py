"""Preference training: pairs of answers (DPO, IPO, ORPO, SimPO), and single answers with labels (KTO).

Letters in shapes: B rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.preference.losses import PAIR_LOSSES, PairLogProbs, dpo_margins, kto_loss
from trainer.preference.rows import split_label, split_pair, with_answer_of
from trainer.spec.method import REFERENCE_METHODS
from trainer.targets.generated import NLL, REJECTED_NLL, REJECTED_TOKENS, TOKENS
from trainer.targets.metrics.preference import preference_metrics
from trainer.training.batch_source import BatchStep
from trainer.training.method import TrainingMethod
from trainer.training.reference import answer_log_probs, reference_columns

if TYPE_CHECKING:
    import torch

    from trainer.data.prepared import PreparedRows

_PARTS = ("train", "validation")


class PairMethod(TrainingMethod):
    """Pairs of a chosen and a rejected answer."""

    def begin(self, model: Any) -> None:
        if self.context.spec.train.method.kind not in REFERENCE_METHODS:
            return
        rows_by_part = {part: self.context.prepared.part(part) for part in _PARTS}
        parts = {part: (len(rows), _pairs_of(rows)) for part, rows in rows_by_part.items()}
        columns = reference_columns(self.context, model, self.precision, parts)  # all ranks
        for part, rows in rows_by_part.items():
            rows.targets = columns[part]

    def metrics(self, model: torch.nn.Module, scores: np.ndarray) -> dict[str, float]:
        """Return the method's loss on the validation pairs.

        With a reference, also how the implicit rewards differ, and `reference_accuracy`: the `preference_accuracy` of the
        model that training started from.
        """
        import torch

        spec = self.context.spec.train.method
        counts = np.maximum(scores[:, [TOKENS, REJECTED_TOKENS]], 1)
        has_reference = spec.kind in REFERENCE_METHODS
        reference = self.context.prepared.part("validation").targets if has_reference else np.zeros((len(scores), 2))
        columns = [*-scores[:, [NLL, REJECTED_NLL]].T, *counts.T, *reference.T]
        pairs = PairLogProbs(*(torch.from_numpy(np.ascontiguousarray(column)) for column in columns))
        metrics = {"preference_loss": float(PAIR_LOSSES[spec.kind](pairs, spec).mean())}
        if has_reference:
            margins = dpo_margins(pairs, spec)
            metrics["reward_accuracy"] = float(((margins > 0).double() + 0.5 * (margins == 0)).mean())
            metrics["reward_margin"] = float(margins.mean())
            before = preference_metrics(-reference[:, 0], counts[:, 0], -reference[:, 1], counts[:, 1])
            metrics["reference_accuracy"] = before["preference_accuracy"]
        return metrics


class LabelMethod(TrainingMethod):
    """Single answers that are desirable or not (KTO).

    The KL divergence from the reference is estimated with answers to other prompts: each row's prompt with the answer of
    the next row. This pairing never changes, so that the reference's log-probabilities can be stored.
    """

    def begin(self, model: Any) -> None:
        rows_by_part = {part: self.context.prepared.part(part) for part in _PARTS}
        parts = {part: (len(rows), _answers_of(rows)) for part, rows in rows_by_part.items()}
        columns = reference_columns(self.context, model, self.precision, parts)  # all ranks
        self._mismatched_reference = {part: columns[part][:, 1] for part in _PARTS}
        for part, rows in rows_by_part.items():
            labels = [float(split_label(rows.inputs(row))[0]) for row in range(len(rows))]
            rows.targets = np.stack([np.array(labels), columns[part][:, 0], np.zeros(len(rows))], axis=1)

    def prepare(self, model: Any, step: BatchStep, epoch: int, number: int) -> BatchStep:
        """Set the KL divergence of the step: the mean over its rows on all workers."""
        all_rows = self.batches.rows_of(epoch, number)
        targets = step.targets.copy()
        targets[:, 2] = self._kl(model, "train", all_rows)  # all ranks
        return step._replace(targets=targets)

    def metrics(self, model: torch.nn.Module, scores: np.ndarray) -> dict[str, float]:
        """Return the method's loss on the validation rows, the KL divergence, and how the implicit rewards differ."""
        import torch

        spec, rows = self.context.spec.train.method, self.context.prepared.part("validation")
        kl = self._kl(model, "validation", np.arange(len(rows)))  # all ranks
        desirable_B, reference_B = rows.targets[:, 0] > 0, rows.targets[:, 1]
        ratios_B = -(scores[:, NLL] + scores[:, REJECTED_NLL]) - reference_B
        losses = kto_loss(torch.tensor(ratios_B), torch.tensor(desirable_B), torch.tensor(kl), spec)
        metrics = {"preference_loss": float(losses.mean()), "kl": kl}
        if desirable_B.any() and not desirable_B.all():
            margin = ratios_B[desirable_B].mean() - ratios_B[~desirable_B].mean()
            metrics["reward_margin"] = spec.strength * float(margin)
        return metrics

    def _kl(self, model: Any, part: str, rows: np.ndarray) -> float:
        """Return the estimate from these rows of a part, at least 0. All ranks call this."""
        sequences_of = _answers_of(self.context.prepared.part(part))
        log_probs = answer_log_probs(
            self.context, model, self.precision, len(rows), lambda index: sequences_of(int(rows[index]))[1:]
        )[:, 0]
        return max(0.0, float((log_probs - self._mismatched_reference[part][rows]).mean()))


def _pairs_of(rows: PreparedRows) -> Any:
    return lambda row: split_pair(rows.inputs(row))


def _answers_of(rows: PreparedRows) -> Any:
    """Return a function that gives the sequence of a row, and its prompt with the answer of the next row."""

    def sequences_of(row: int) -> list[np.ndarray]:
        sequence = split_label(rows.inputs(row))[1]
        other = split_label(rows.inputs((row + 1) % len(rows)))[1]
        return [sequence, with_answer_of(sequence, other)]

    return sequences_of
