"""Files of skops whose bytes depend on the estimator alone.

skops names arrays and objects by their addresses in memory, and its zip file has the time of writing. Here they are
numbered in the order in which they appear, and the time is fixed: two trainings with the same result then have the same
file, and so the same digest.
"""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path, PurePath
from typing import Any
from zipfile import ZipFile, ZipInfo

_SCHEMA = "schema.json"


def dump_estimator(estimator: Any, path: Path) -> None:
    """Write an estimator of scikit-learn as a file of skops."""
    import skops.io

    with ZipFile(io.BytesIO(skops.io.dumps(estimator))) as source, ZipFile(path, "w") as target:
        schema = json.loads(source.read(_SCHEMA))
        names = _number_objects(schema, set(source.namelist()))
        for old, new in names.items():
            target.writestr(ZipInfo(new), source.read(old))  # without a time of its own, it has 1980-01-01
        target.writestr(ZipInfo(_SCHEMA), json.dumps(schema, indent=2))


def _number_objects(schema: Any, files: set[str]) -> dict[str, str]:
    """Number the ids and the files of a schema in place, in the order of the schema. Return the new names of the files."""
    ids: dict[int, int] = {}
    names: dict[str, str] = {}
    counter = itertools.count(1)

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(address := node.get("__id__"), int):
                node["__id__"] = ids.setdefault(address, next(counter))
            if (name := node.get("file")) in files:
                node["file"] = names.setdefault(name, f"{next(counter)}{PurePath(name).suffix}")
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            visit(value)

    visit(schema)
    return names
