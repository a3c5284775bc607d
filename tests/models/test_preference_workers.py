"""Preference training and GRPO on two workers."""

import numpy as np
import pytest

from support.gloo_training import train_on_workers
from support.local_training import train_in_process
from support.tiny_causal import write_tiny_causal
from support.tiny_preference import preference_spec

pytestmark = pytest.mark.slow

GRPO = {
    "kind": "grpo",
    "rewards": [{"kind": "regex", "pattern": "o"}],
    "rollout": {"prompts": 7, "samples": 4, "max_tokens": 6},
}


def test_two_workers_take_the_same_steps_as_one(tmp_path):
    model = write_tiny_causal(tmp_path / "model")
    ones, twos = [], []
    for method in ("dpo", "kto", GRPO):
        folder = tmp_path / (method if isinstance(method, str) else "grpo")
        folder.mkdir()
        train = {"max_steps": 5, "micro_batch_tokens": 60}
        spec = preference_spec(folder, model, method, train=train)
        ones.append(train_in_process(spec, folder / "one"))
        twos.append({**spec, "cluster": {"workers": 2}})
    for one, two in zip(ones, train_on_workers(twos, tmp_path / "workers", 2), strict=True):
        # A sampled answer may differ where two tokens are nearly as probable; here none does.
        assert two.losses == pytest.approx(one.losses, abs=1e-5)
        names = [name for name in ("preference_loss", "reward") if name in one.epochs[-1]]
        for name in names:
            np.testing.assert_allclose(two.epochs[-1][name], one.epochs[-1][name], atol=1e-4)
        assert names
