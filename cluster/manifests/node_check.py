"""Rules for the environment of Ray's processes on a machine, whatever starts them there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_NEEDED = {"RAY_AUTH_MODE": "token", "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}


def node_problems(where: str, variables: Mapping[str, str]) -> Iterator[str]:
    """Yield what is missing in the environment of a machine: a node without it has no lock, or gets no requests."""
    for name, value in _NEEDED.items():
        if str(variables.get(name, "")) != value:
            yield f"{where}: {name}={variables.get(name, '')}: it must be {value} on every machine"
    if not variables.get("RAY_AUTH_TOKEN_PATH"):
        yield f"{where}: RAY_AUTH_TOKEN_PATH is not set, so the machine does not know the cluster's token"


def image_problems(where: str, image: object) -> Iterator[str]:
    """Yield a problem if an image is not named by its digest."""
    if not isinstance(image, str) or not _DIGEST.fullmatch(image):
        yield f"{where}: {image} names no image by digest (registry/name@sha256:...); a tag may name another one tomorrow"
