"""Files that are no YAML: rendered from templates beside this module, with values quoted for their language."""

from __future__ import annotations

import json
import shlex
from typing import Any


def render_template(template: str, **values: Any) -> str:
    """Return `template`, a file in templates/, with `values`. Raises if the template uses a missing value.

    Values are text of the user's: a template writes each one through a filter, `sh` for a shell, `py` for a text in Python, or
    `comment` for one line of a comment.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cluster.manifests", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"sh": shlex.quote, "py": json.dumps, "comment": lambda text: " ".join(str(text).split())}
    return environment.get_template(template).render(**values)
