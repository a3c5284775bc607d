"""One Ray for all tests in this folder."""

import pytest

from cluster.connect import connect


@pytest.fixture(scope="session", autouse=True)
def one_ray():
    with connect(None, cpus=2):
        yield
