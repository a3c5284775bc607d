"""Renders templates to HTML files that open without a network: everything is inline, and every value is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.files import write_bytes


def render_page(path: Path, template: str, **values: Any) -> None:
    """Render `template`, a file in this folder, with `values` to `path`. Raises if the template uses a missing value."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("trainer.report", "."), autoescape=True, undefined=StrictUndefined)
    write_bytes(path, environment.get_template(template).render(**values).encode())
