"""Batches of prompts in random order: prompts of one length in one step would be as hard as each other, step by step."""

from __future__ import annotations

import numpy as np

from trainer.optim import batch_plan
from trainer.training.batch_source import PreparedBatches


class PromptBatches(PreparedBatches):
    """Prepared rows in an order that does not depend on their lengths."""

    def _plan(self, epoch: int) -> list[np.ndarray]:
        return batch_plan.plan_batches(np.zeros(self.n_rows, np.int32), self._seed, epoch, self._batch_size)
