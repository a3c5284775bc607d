"""The order of the tests when several processes run all of them: what takes longest begins first."""

from __future__ import annotations

from typing import NamedTuple

import pytest


class Cost(NamedTuple):
    """What the tests whose node id starts with `prefix` take."""

    prefix: str
    seconds: float  # of each test, or of the whole group; rough, on two busy cores
    group: str = ""  # tests of one group run in one process, because they share a model, an endpoint or a Ray


#: Tests that are not named here are unit tests, which fill the gaps at the end. The first entry that fits counts.
COSTS = [
    Cost("tests/e2e/test_endpoint_life.py", 330, "endpoint_life"),
    Cost("tests/local_ray/test_tune.py", 240, "tune"),
    Cost("tests/e2e/test_tracking.py", 170, "tracking"),
    Cost("tests/e2e/test_resume.py", 160, "resume"),
    Cost("tests/e2e/test_elastic.py", 150),
    Cost("tests/e2e/test_cluster.py", 150, "cluster"),
    Cost("tests/local_ray/", 145, "local_ray"),
    Cost("tests/e2e/test_serving.py", 140, "serving"),
    Cost("tests/e2e/test_search.py::test_thirty_trials", 130),
    Cost("tests/e2e/test_search.py::test_finalists", 120),
    Cost("tests/e2e/test_search.py", 110),
    Cost("tests/e2e/test_hidden_packages.py", 100),
    Cost("tests/e2e/test_tabular_examples.py", 90, "tabular_examples"),
    Cost("tests/e2e/test_commands.py", 85, "commands"),
    Cost("tests/e2e/test_digits_example.py", 80, "digits_example"),
    Cost("tests/e2e/test_text_examples.py", 75, "text_examples"),
    Cost("tests/e2e/test_full_disk.py", 60),
    Cost("tests/e2e/test_interrupt.py", 50, "interrupt"),
    Cost("tests/e2e/test_wrong_input.py", 45, "wrong_input"),
    Cost("tests/e2e/test_contract_commands.py", 45, "contract_commands"),
    Cost("tests/e2e/test_own_task.py", 40, "own_task"),
    Cost("tests/e2e/test_http.py", 35, "endpoint"),
    Cost("tests/e2e/test_real_parts.py", 35, "endpoint"),
    Cost("tests/models/test_training.py", 40, "training"),
    Cost("tests/models/test_engines.py", 40, "engines"),
    Cost("tests/models/test_encoder_engines.py", 40, "engines"),
    Cost("tests/models/", 20),
    Cost("tests/e2e/test_s3.py", 15, "s3"),
    Cost("tests/e2e/", 30),
]
_UNIT_TEST = Cost("", 0)


def cost_of(nodeid: str) -> Cost:
    """Return the entry of `COSTS` for a test."""
    return next((cost for cost in COSTS if nodeid.startswith(cost.prefix)), _UNIT_TEST)


def order_for_many_processes(items: list[pytest.Item]) -> None:
    """Sort the tests, the longest first, and mark those that share a process as one group of pytest-xdist."""
    costs = {item: cost_of(item.nodeid) for item in items}
    items.sort(key=lambda item: -costs[item].seconds)  # stable: tests of one file stay in their order
    for item, cost in costs.items():
        if cost.group:
            item.add_marker(pytest.mark.xdist_group(cost.group))
