"""The generated pages of docs/reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.generate import (
    commands_page,
    estimators_page,
    exit_codes_page,
    http_page,
    metrics_page,
    openai_page,
    python_page,
    spec_page,
    tasks_page,
)

FOLDER = Path(__file__).parents[1] / "reference"

#: Name of the file -> function that returns its text.
PAGES: dict[str, Callable[[], str]] = {
    "spec.md": spec_page.build_page,
    "commands.md": commands_page.build_page,
    "http-api.md": http_page.build_page,
    "openai-api.md": openai_page.build_page,
    "metrics.md": metrics_page.build_page,
    "exit-codes.md": exit_codes_page.build_page,
    "tasks.md": tasks_page.build_page,
    "estimators.md": estimators_page.build_page,
    "python.md": python_page.build_page,
}
