"""The table of what tests take names tests that exist."""

from pathlib import Path

import pytest

from support.schedule import COSTS, cost_of, group_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("prefix", [cost.prefix for cost in COSTS])
def test_every_entry_fits_a_test(prefix):
    path, _, function = prefix.partition("::")
    assert list(ROOT.glob(f"{path}*")), f"tests/support/schedule.py names {path}, which is gone"
    if function:
        assert f"\ndef {function}" in (ROOT / path).read_text(encoding="utf-8"), (
            f"no test in {path} is called {function}..."
        )


def test_the_first_entry_that_fits_counts():
    assert cost_of("tests/e2e/test_resume.py::test_two_workers_may_die").prefix.endswith("two_workers")
    assert cost_of("tests/e2e/test_new.py::test_x").prefix == "tests/e2e/"
    assert cost_of("tests/unit/test_new.py::test_x").seconds == 0


def test_tests_of_a_file_share_a_process_unless_they_share_nothing():
    assert group_of("tests/e2e/test_new.py::test_x[a::b]") == "test_new"
    assert group_of("tests/e2e/test_http.py::test_x") == group_of("tests/e2e/test_real_parts.py::test_x") == "endpoint"
    assert group_of("tests/e2e/test_commands.py::test_x") == "test_commands"
    assert group_of("tests/e2e/test_search.py::test_x") is None and group_of("tests/unit/test_gate.py::test_x") is None
