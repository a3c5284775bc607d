"""Rewards of answers, and what tests of a model's code must not be able to do."""

import socket
import sys
import threading

import numpy as np
import pytest

from cluster.errors import ModelError, SpecError, UserError
from trainer.rewards.pinned import pin_rewards
from trainer.rewards.reward import reward_answers
from trainer.rewards.unit_tests import code_of, passes_tests
from trainer.spec.method import MethodSpec
from trainer.targets.answers.base import Answered

ADD = "def add(a, b):\n    return a + b\n"
TESTS = "assert add(2, 3) == 5\nassert add(-1, 1) == 0\n"


def rewards(*items):
    return MethodSpec(kind="grpo", rewards=list(items)).rewards


def test_rewards_are_weighted_and_added():
    rows = [Answered("2+2=", " 4\n", "4"), Answered("2+2=", "5", "4"), Answered("2+2=", "four", "4")]
    specs = rewards("exact_match", {"kind": "regex", "pattern": r"^\s*\d+\s*$", "weight": 0.1})
    np.testing.assert_allclose(reward_answers(specs, rows), [1.1, 0.1, 0.0])


def test_code_is_that_of_the_fenced_blocks():
    assert code_of(f"Here it is:\n```python\n{ADD}```\nDone.") == ADD
    assert code_of(ADD) == ADD


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (ADD, True),
        (f"Sure!\n```python\n{ADD}```", True),
        ("def add(a, b):\n    return a - b\n", False),
        ("def add(a, b:\n", False),
        ("import os\nos._exit(0)\n", False),
        ("raise SystemExit(0)\n", False),
        (f"{ADD}x = bytearray(600 << 20)\n", False),
        (f"{ADD}open('large', 'wb').write(bytes(2 << 20))\n", False),
        (f"{ADD}import os\nassert 'SECRET' not in os.environ\n", True),
    ],
)
def test_an_answer_passes_only_if_its_tests_run_to_their_end(answer, passes, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    assert passes_tests(answer, TESTS, timeout_s=20, memory_mb=256) is passes


@pytest.mark.slow
def test_an_answer_that_does_not_end_is_ended():
    assert not passes_tests(f"{ADD}while True:\n    pass\n", TESTS, timeout_s=0.5, memory_mb=256)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_an_answer_reaches_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        reached = threading.Event()
        server.settimeout(10)
        thread = threading.Thread(target=lambda: _accept(server, reached))
        thread.start()
        answer = f"{ADD}import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)\n"
        passes = passes_tests(answer, TESTS, timeout_s=10, memory_mb=256)
        if passes:
            pytest.skip("this machine allows no namespaces")
        assert not reached.is_set()
        socket.create_connection(server.getsockname()).close()
        thread.join()


def _accept(server, reached):
    connection, _ = server.accept()
    reached.set()
    connection.close()


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "reward_test_module.py"
    path.write_text("def shorter(prompt, answer, expected):\n    return len(expected) / max(1, len(answer))\n")
    yield path
    sys.modules.pop("reward_test_module", None)


def test_a_reward_of_the_users_own(module):
    specs = rewards({"kind": "reward_test_module:shorter", "weight": 2})
    np.testing.assert_allclose(reward_answers(specs, [Answered("p", "abcd", "ab")]), [1.0])


@pytest.mark.parametrize(("body", "error"), [("return 'good'", SpecError), ("return 1 / 0", UserError)])
def test_a_reward_that_returns_no_number_stops_the_run(module, body, error):
    module.write_text(f"def shorter(prompt, answer, expected):\n    {body}\n")
    with pytest.raises(error, match="reward_test_module:shorter"):
        reward_answers(rewards("reward_test_module:shorter"), [Answered("p", "abcd", "ab")])


def test_a_run_is_not_resumed_with_another_reward(module, tmp_path):
    specs = rewards("reward_test_module:shorter", "exact_match")
    folder = tmp_path / "run"
    folder.mkdir()
    pin_rewards(specs, folder)
    pin_rewards(specs, folder)
    module.write_text("def shorter(prompt, answer, expected):\n    return 0\n")
    with pytest.raises(ModelError, match="has changed since this run began"):
        pin_rewards(specs, folder)
