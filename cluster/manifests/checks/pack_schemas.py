"""Pack KubeRay's CRDs into schemas/kuberay.json.gz: the served versions' schemas, without descriptions.

    python -m cluster.manifests.checks.pack_schemas FOLDER

FOLDER is KubeRay's helm-chart/kuberay-operator/crds of the release to check against.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from cluster.files import write_bytes

#: The packed schemas: kind -> its JSON schema, of the API version ray.io/v1.
PACKED = Path(__file__).with_name("schemas") / "kuberay.json.gz"
_VERSION = "v1"


def pack(folder: Path) -> bytes:
    """Return the packed schemas of the CRDs in a folder. The same CRDs always give the same bytes."""
    schemas = {}
    for path in sorted(folder.glob("ray.io_*.yaml")):
        crd = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        schema = next(item["schema"] for item in crd["spec"]["versions"] if item["name"] == _VERSION)
        properties = schema["openAPIV3Schema"]["properties"]
        properties.pop("status", None)  # the operator writes it
        schemas[crd["spec"]["names"]["kind"]] = _without_descriptions(schema["openAPIV3Schema"])
    return gzip.compress(json.dumps(schemas, separators=(",", ":"), sort_keys=True).encode(), mtime=0)


def _without_descriptions(node: Any, *, names: bool = False) -> Any:
    """Return a schema without descriptions. In `properties` (`names`), `description` is the name of a field."""
    if isinstance(node, dict):
        return {
            key: _without_descriptions(value, names=key == "properties" and not names)
            for key, value in node.items()
            if names or key != "description"
        }
    return [_without_descriptions(item) for item in node] if isinstance(node, list) else node


if __name__ == "__main__":
    write_bytes(PACKED, pack(Path(sys.argv[1])))
