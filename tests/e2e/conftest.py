"""A registered model and its endpoint, shared by all end-to-end tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.ports import free_port
from support.commands import RunningCommand, run_raymill
from support.tiny_text import tiny_spec, write_spec


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage folder that all commands share."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="session")
def spec_file(tiny_base: Path, tiny_data: Path, storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec that cleans its texts and trains in seconds."""
    spec = tiny_spec(tiny_base, tiny_data, storage)
    spec["data"] = {**spec["data"], "steps": ["strip_html", "normalize"]}  # type: ignore[dict-item]
    return write_spec(tmp_path_factory.mktemp("spec") / "run.yaml", spec)


@pytest.fixture(scope="session")
def first_run(spec_file: Path) -> dict[str, Any]:
    """The outcome of `raymill run SPEC --json`, run once: version 1, the champion."""
    done = run_raymill("run", spec_file, "--json")
    assert done.code == 0, done
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


@pytest.fixture(scope="session")
def endpoint(first_run: dict[str, Any], storage: Path) -> Iterator[str]:
    """The URL of an endpoint that serves the champion with 2 replicas."""
    server = RunningCommand(
        "-m", "raymill", "serve", "tiny@champion", "--storage", storage, "--port", free_port(), "--replicas", 2
    )
    try:
        line = server.wait_for_line("listening on")
        yield line.split()[-1]
    finally:
        server.terminate()
