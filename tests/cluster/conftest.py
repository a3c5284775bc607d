"""What the tests on several machines share."""

from __future__ import annotations

import pytest

from support.namespaces import why_no_machines


@pytest.fixture(scope="session")
def can_make_machines() -> None:
    """Skip the test, with the reason, where machines of namespaces cannot be made."""
    reason = why_no_machines()
    if reason:
        pytest.skip(reason)
