"""The order of the tests when several processes run all of them: what takes longest begins first."""

from __future__ import annotations

from pathlib import PurePath
from typing import NamedTuple

import pytest
from xdist.scheduler import LoadScopeScheduling

#: A group of pytest-xdist: its tests run in one process. Tests of one file are a group, because they share fixtures.
BY_FILE = "by file"
#: Tests that share nothing expensive, so each may run in another process.
SPREAD = "spread"


class Cost(NamedTuple):
    """What the tests whose node id starts with `prefix` take."""

    prefix: str
    seconds: float  # of the group, or of each test that is spread; rough, on two busy cores
    group: str = BY_FILE  # or a name, if several files share a Ray, an endpoint or a model


#: What takes longest comes first; unit tests fill the gaps at the end. The first entry that fits a test counts.
COSTS = [
    # make test-cluster
    Cost("tests/cluster/test_training_faults.py", 480, "fault scene"),
    Cost("tests/cluster/test_search_faults.py", 140, "fault scene"),
    Cost("tests/cluster/test_prepare_faults.py", 45, "fault scene"),
    Cost("tests/cluster/test_serving_faults.py", 400),
    Cost("tests/e2e/test_endpoint_life.py", 330),
    Cost("tests/cluster/test_image.py", 300),
    Cost("tests/e2e/test_search.py", 220, SPREAD),
    Cost("tests/e2e/test_resume.py::test_two_workers", 210, "resume"),
    Cost("tests/e2e/test_resume.py::test_a_run_on_ray", 160, "resume"),
    Cost("tests/local_ray/test_tune.py::test_trials_with_several", 250, "tune on several workers"),
    Cost("tests/local_ray/test_tune.py::test_more_trials", 250, "tune on several workers"),
    Cost("tests/e2e/test_hidden_packages.py::test_a_ray_job", 150, SPREAD),
    Cost("tests/e2e/test_cluster.py", 150),
    Cost("tests/cluster/", 140),
    # make test
    Cost("tests/local_ray/test_tune.py", 240),
    Cost("tests/e2e/test_tracking.py", 170),
    Cost("tests/local_ray/", 145, "local_ray"),
    Cost("tests/e2e/test_serving.py", 140),
    Cost("tests/e2e/test_hidden_packages.py", 95, SPREAD),
    Cost("tests/e2e/test_local_endpoint.py", 90),
    Cost("tests/e2e/test_tabular_examples.py", 90),
    Cost("tests/e2e/test_resume.py", 80),
    Cost("tests/e2e/test_digits_example.py", 75),
    Cost("tests/e2e/test_text_examples.py", 65),
    Cost("tests/e2e/test_submit.py", 60),
    Cost("tests/e2e/test_full_disk.py", 60, SPREAD),
    Cost("tests/e2e/test_tutorial.py", 55, SPREAD),
    Cost("tests/e2e/test_machines.py", 45, SPREAD),
    Cost("tests/e2e/test_interrupt.py", 50),
    Cost("tests/e2e/test_commands.py", 45),
    Cost("tests/models/test_training.py", 40),
    Cost("tests/models/test_engines.py", 40, "engines"),
    Cost("tests/models/test_encoder_engines.py", 40, "engines"),
    Cost("tests/e2e/test_http.py", 35, "endpoint"),
    Cost("tests/e2e/test_real_parts.py", 35, "endpoint"),
    Cost("tests/e2e/", 30),
    Cost("tests/models/", 20),
    Cost("tests/unit/", 0, SPREAD),
]


def cost_of(nodeid: str) -> Cost:
    """Return the entry of `COSTS` for a test; a test in a new folder counts as a unit test."""
    return next((cost for cost in COSTS if nodeid.startswith(cost.prefix)), COSTS[-1])


def group_of(nodeid: str) -> str | None:
    """Return the group of pytest-xdist that a test belongs to, or None if it may run in any process."""
    group = cost_of(nodeid).group
    if group == BY_FILE:
        return PurePath(nodeid.partition("::")[0]).stem
    return None if group == SPREAD else group


def order_for_many_processes(items: list[pytest.Item]) -> None:
    """Sort the tests, the longest first."""
    items.sort(key=lambda item: -cost_of(item.nodeid).seconds)  # stable: tests of one file stay in their order


class GroupScheduling(LoadScopeScheduling):
    """Gives each group of tests to one process of pytest-xdist.

    Its own `loadgroup` does the same with marks, but ignores them with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid) or nodeid
