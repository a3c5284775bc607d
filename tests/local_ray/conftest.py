"""One local Ray for all tests in this folder."""

import pytest

from cluster.connect import connect_to_ray


@pytest.fixture(scope="session", autouse=True)
def one_ray():
    with connect_to_ray(None, cpus=2):
        yield
