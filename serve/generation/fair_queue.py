"""Requests that wait for a slot, taken in turn from all API keys by their tokens: deficit round robin.

Every key has a queue. In its turn, a key gets a number of tokens to spend, and its requests leave the queue while it can
pay for them. So a key with a thousand waiting requests, or with very long ones, does not keep others waiting. Used by one
thread.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
# Tokens that a key may spend in its turn. Smaller than most requests, so that turns stay short.
_QUANTUM = 256


class _Entry(NamedTuple, Generic[T]):
    item: T
    cost: int


class FairQueue(Generic[T]):
    """A queue for each key; `pop` takes from them in turn."""

    def __init__(self, quantum: int = _QUANTUM) -> None:
        """`quantum` is the number of tokens that a key may spend in its turn."""
        self._quantum = quantum
        self._queues: dict[str, deque[_Entry[T]]] = {}
        self._turns: deque[str] = deque()
        self._credit: dict[str, int] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, key: str, item: T, cost: int) -> None:
        """Add the last item of a key; `cost` is the number of tokens that it will take."""
        if key not in self._queues:
            self._queues[key] = deque()
            self._turns.append(key)
            self._credit[key] = 0
        self._queues[key].append(_Entry(item, cost))
        self._size += 1

    def push_back(self, key: str, item: T, cost: int) -> None:
        """Put an item that was taken, but that there is no room for yet, in front of its key's others."""
        self.push(key, item, cost)
        self._queues[key].rotate(1)
        self._turns.remove(key)
        self._turns.appendleft(key)
        self._credit[key] += cost

    def pop(self) -> T | None:
        """Take the next item. Return None if none waits."""
        while self._turns:
            key = self._turns[0]
            head = self._queues[key][0]
            if self._credit[key] < head.cost:
                self._turns.rotate(-1)
                self._credit[key] += self._quantum
                continue
            self._credit[key] -= head.cost
            self._queues[key].popleft()
            self._size -= 1
            if not self._queues[key]:
                self._forget(key)
            return head.item
        return None

    def settle(self, key: str, tokens: int) -> None:
        """Give a key that waits `tokens` back, because a request took fewer than its cost; take more, if negative."""
        if key in self._credit:
            self._credit[key] += tokens

    def remove(self, item: T) -> bool:
        """Remove an item; return whether it waited."""
        for key, queue in self._queues.items():
            for entry in queue:
                if entry.item is item:
                    queue.remove(entry)
                    self._size -= 1
                    if not queue:
                        self._forget(key)
                    return True
        return False

    def _forget(self, key: str) -> None:
        # A key without waiting requests saves nothing up, and owes nothing: others were not kept waiting.
        del self._queues[key], self._credit[key]
        self._turns.remove(key)
