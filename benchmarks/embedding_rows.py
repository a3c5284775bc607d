"""What training without the unused rows of the word embedding saves (trainer/compact.py), both sides in turn.

    python benchmarks/embedding_rows.py SPEC [--steps 30] [--rounds 3] [--threads 2] [--set train.batch_size=8]

SPEC's rows must be prepared (`raymill prepare SPEC`). Prints steps/s of both sides, the ratio of each round, and the
largest difference of the losses.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import chain
from typing import Any

import numpy as np

from trainer import base_model, batch_plan, tasks
from trainer.compact import CompactVocabulary
from trainer.data import prepare as preparing
from trainer.data.prepared import Prepared
from trainer.spec import RunSpec
from trainer.spec_load import load


def steps(spec: RunSpec, prepared: Prepared, n_steps: int, compact: bool) -> tuple[float, list[float]]:
    """Return (seconds, losses) of `n_steps` optimiser steps."""
    import torch

    task, rows = tasks.get(spec.task), prepared.part("train")
    torch.manual_seed(spec.train.seed)
    model: Any = task.new_model(prepared.contract, base_model.locate(spec.model.base), spec).train()
    parts = [rows, prepared.part("validation")] if compact else []
    vocabulary = CompactVocabulary(model, parts, task.pad_id(prepared.contract) if compact else 1 << 30, 0.01)
    torch.manual_seed(spec.train.seed)  # both sides drop out the same units
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    plan = chain.from_iterable(batch_plan.plan(rows.lengths, 1, epoch, spec.train.batch_size) for epoch in range(99))
    losses, started = [], 0.0
    for number in range(-3, n_steps):  # three steps to warm up
        if number == 0:
            started = time.perf_counter()
        step = next(plan)
        inputs = task.collate(prepared.contract, [vocabulary.ids(rows.input_ids(row)) for row in step])
        logits = model(**inputs).logits
        loss = task.loss_sum(logits, torch.from_numpy(rows.target_ids[step].astype(np.int64))) / len(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return time.perf_counter() - started, losses


def main() -> None:
    """Run both sides in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    spec = load(given.spec, given.set)
    prepared = preparing.find(spec)
    if prepared is None:
        raise SystemExit(f"prepare the rows first: raymill prepare {given.spec}")
    import torch

    torch.set_num_threads(given.threads)
    ratios = []
    for number in range(given.rounds):
        whole_s, whole = steps(spec, prepared, given.steps, compact=False)
        used_s, used = steps(spec, prepared, given.steps, compact=True)
        ratios.append(whole_s / used_s)
        gap = float(np.abs(np.subtract(whole, used)).max())
        print(
            f"round {number + 1}: whole {given.steps / whole_s:.2f} steps/s, used rows only {given.steps / used_s:.2f}, "
            f"ratio {ratios[-1]:.2f}, largest difference of a loss {gap:.1e}"
        )
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
