"""A folder that the tests of this directory share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the graph that torch exports of the tiny model, which takes seconds: one for all tests."""
    return tmp_path_factory.mktemp("scratch")
