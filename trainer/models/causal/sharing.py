"""Sharing rows of different lengths among workers or passes, so that all get about the same number of tokens."""

from __future__ import annotations

import heapq

import numpy as np


def share_by_size(sizes: np.ndarray, n_shares: int) -> list[np.ndarray]:
    """Return the indices (int64, rising) of each share: the longest row first, each to the share with the least so far.

    A pure function of its arguments. A share is empty if there are fewer rows than shares.
    """
    loads = [(0, number) for number in range(n_shares)]
    shares: list[list[int]] = [[] for _ in range(n_shares)]
    for row in np.argsort(-sizes, kind="stable").tolist():
        load, number = loads[0]
        shares[number].append(row)
        heapq.heapreplace(loads, (load + int(sizes[row]), number))
    return [np.array(sorted(share), np.int64) for share in shares]


def share_within(sizes: np.ndarray, limit: int | None) -> list[np.ndarray]:
    """Return the fewest equal shares of at most `limit`, as `share_by_size` finds them; one share without a limit.

    A row that is larger than the limit is a share of its own.
    """
    if limit is None or sizes.sum() <= limit:
        return [np.arange(len(sizes))]
    for n_shares in range(max(1, -(-int(sizes.sum()) // limit)), len(sizes)):
        shares = share_by_size(sizes, n_shares)
        if all(sizes[share].sum() <= limit or len(share) == 1 for share in shares):
            return shares
    return [np.array([row]) for row in range(len(sizes))]
