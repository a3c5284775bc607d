"""The folder of one run: its spec, its log, its progress, its report."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import yaml

from cluster.errors import ResourceError
from cluster.files import write_bytes
from trainer.spec import RunSpec

SPEC = "spec.yaml"
RAY_LOG = "ray.log"
QUARANTINE = "quarantine.parquet"


def create(spec: RunSpec, kind: str) -> Path:
    """Make and return a new folder under the storage, holding the resolved spec.

    The name starts with the time in UTC, so that a listing is in order, and ends in a random part, because two runs
    of Ray Train under one name would take over each other's state.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = Path(spec.storage) / "runs" / f"{spec.name}-{kind}-{stamp}-{uuid.uuid4().hex[:6]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ResourceError(
            f"storage={spec.storage!r} cannot be written: {error.strerror}", "name a folder you may write to"
        ) from error
    save_spec(spec, folder / SPEC)
    return folder


def save_spec(spec: RunSpec, path: Path) -> None:
    """Write a spec as the YAML that `raymill run` takes."""
    raw = spec.model_dump(mode="json", exclude_unset=True)
    write_bytes(path, yaml.safe_dump(raw, sort_keys=False, allow_unicode=True).encode())
