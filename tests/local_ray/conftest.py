"""One local Ray for all tests in this folder. It ends with the last of them, before a process goes on with others."""

import pytest

from cluster.connect import connect_to_ray


@pytest.fixture(scope="package", autouse=True)
def one_ray():
    with connect_to_ray(None, cpus=2):
        yield
