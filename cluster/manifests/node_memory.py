"""Memory of a machine or a pod on which Ray runs processes."""

from __future__ import annotations

import math

_GIB = 1 << 30
# Ray's own processes of a node, and the part of a node's memory that Ray takes for its object store.
_RAY_BYTES, _STORE_SHARE = _GIB, 0.3


def needed_gib(memory_each: int, processes: int) -> int:
    """Return the GiB of memory of a node for processes that need `memory_each` bytes at their peak.

    Ray's own processes and its object store are counted. 0 if `memory_each` is 0, which means that it is not known.
    """
    if not memory_each:
        return 0
    return math.ceil((memory_each * processes + _RAY_BYTES) / (1 - _STORE_SHARE) / _GIB)
