"""What the tests on several machines share. Every test of this folder is long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fault_scene import FaultScene, fault_scene
from support.namespaces import why_no_machines


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder as long: `make test` leaves it out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def can_make_machines() -> None:
    """Skip the test, with the reason, where machines of namespaces cannot be made."""
    reason = why_no_machines()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_scene(
    can_make_machines: None, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultScene]:
    """The machines of all tests of faults."""
    with fault_scene(tiny_base, tmp_path_factory.mktemp("machines")) as scene:
        yield scene


@pytest.fixture()
def scene(shared_scene: FaultScene) -> Iterator[FaultScene]:
    """The machines, all of them up, before and after the test."""
    yield shared_scene
    shared_scene.repair()
