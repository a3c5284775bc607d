"""The memory of preparing rows: in one process for small data, with Ray Data for large data."""

from __future__ import annotations

from trainer.data.prepare.passes import WAITING_BYTES
from trainer.planning.term import Estimate, Term, times

#: A worker process of Ray with pyarrow, numpy and a tokenizer, and the blocks that it works on.
_PROCESS = 400_000_000


def preparing_memory(cpus: float, *, with_ray: bool) -> Estimate:
    """Return the memory on a node with `cpus` cores while rows are prepared."""
    process = "a process that reads or encodes blocks of 16,384 rows"
    if not with_ray:
        return Estimate((Term(process, "about 0.4 GB", "", _PROCESS, is_base=True, is_bound=True),))
    return Estimate(
        (
            times(
                process, "(cores + 1 that reads) x about 0.4 GB", int(cpus) + 1, _PROCESS, is_base=True, is_bound=True
            ),
            Term(
                "raw rows that wait in Ray's object store",
                "raymill's limit",
                "192 MiB",
                WAITING_BYTES,
                is_base=True,
                is_bound=True,
            ),
        )
    )
