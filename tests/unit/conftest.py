"""Settings of unit tests.

Hypothesis gives no example a deadline, because a busy machine exceeds any. Tests that should have the mark `slow` are named.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings

#: A test that takes longer is slow; on a busy machine, some that are not may take as long.
SLOW_S = 1.0

settings.register_profile("raymill", deadline=None)
settings.load_profile("raymill")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that take over a second without the mark `slow`."""
    seconds: Counter[str] = Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport) and "slow" not in report.keywords:
            seconds[report.nodeid] += report.duration
    for name, took in seconds.most_common():
        if took > SLOW_S:
            terminalreporter.write_line(f"{took:.1f} s without the mark `slow`: {name}")
