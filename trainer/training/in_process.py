"""A training with one worker in this process. The result has the same bytes as that of a worker of Ray."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from trainer.training.worker import run_worker


def train_in_this_process(config: dict[str, Any]) -> None:
    """Train to the end on the CPU. `config` is the same as for a worker of Ray; see `run_worker` for the errors."""
    from threadpoolctl import threadpool_limits

    # A worker of Ray has as many threads as cores in all libraries.
    with _global_state_restored(), threadpool_limits(limits=config["threads"]):
        run_worker(config, 0, 1, "cpu", lambda metrics: None)


@contextlib.contextmanager
def _global_state_restored() -> Iterator[None]:
    """Restore what a training changes for the whole process: random number generators and settings of torch."""
    states = random.getstate(), np.random.get_state()
    torch_state = _torch_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        _restore_torch(torch_state)


def _torch_state() -> tuple[Any, int] | None:
    """Return the state of torch's generator and its number of threads; None if torch is not imported yet."""
    torch = sys.modules.get("torch")
    return (torch.get_rng_state(), torch.get_num_threads()) if torch else None


def _restore_torch(state: tuple[Any, int] | None) -> None:
    torch = sys.modules.get("torch")
    if torch is None:
        return
    torch.set_deterministic_debug_mode("default")
    if state is not None:
        torch.set_rng_state(state[0])
        torch.set_num_threads(state[1])
