"""One rule for all paths: slashes at the end, and several slashes in a row, do not count.

The pages of an endpoint link to each other relatively, so they also work below the prefix of a proxy that takes its
prefix off.
"""

from __future__ import annotations

import re

_SLASHES = re.compile(r"/{2,}")
# A proxy's request line may hold the complete address; RFC 9112 calls this the absolute form.
_ADDRESS = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


def normalize_path(path: str) -> str:
    """Return a path in the form that the table of paths has: `//predict/` is `/predict`."""
    if path[:4].lower() == "http":
        path = _ADDRESS.sub("", path, count=1)
    if "//" in path:
        path = _SLASHES.sub("/", path)
    return path.rstrip("/") or "/"


def path_to_root(path: str) -> str:
    """Return the relative address of `/`, as a page at `path` has to write it: `./` for /docs, `../` for /docs/."""
    return "../" * (path.count("/") - 1) or "./"
