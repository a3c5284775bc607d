"""The cache of keys and values: one tensor for all layers, in which each running request has a slot of its own.

A slot is a row of `max_length` tokens, so the keys of neighboring slots are one strided tensor and attention over all of
them is one call without copying. On Linux CPUs only the pages of tokens that were written take memory: the tensor lies in an
anonymous mapping, and a slot gives its pages back when the cache needs room.

Letters in shapes: L layers, S slots, K heads of keys and values, N tokens of a slot, D width of a head.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass

import torch

#: Linux: address space beyond the memory of the machine is fine, since few of its pages are used.
_MAP_NORESERVE = 0x4000


@dataclass(frozen=True)
class CacheShape:
    """What the cache must hold for one model."""

    layers: int
    heads: int
    """Heads of keys and values."""
    width: int
    """Numbers a head."""
    dtype: torch.dtype = torch.float32

    @property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token in all layers."""
        return 2 * self.layers * self.heads * self.width * self.dtype.itemsize


class KeyValueCache:
    """Slots for keys and values, and how many tokens they may hold together."""

    def __init__(
        self, shape: CacheShape, slots: int, max_length: int, capacity: int, device: torch.device | str = "cpu"
    ) -> None:
        """`capacity` is the most tokens of all slots together that memory is used for."""
        self.shape, self.n_slots, self.max_length, self.capacity = shape, slots, max_length, capacity
        size = (shape.layers, 2, slots, shape.heads, max_length, shape.width)
        self._map: mmap.mmap | None = None
        if torch.device(device).type == "cpu" and hasattr(mmap, "MADV_DONTNEED"):
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
            self._map = mmap.mmap(-1, math.prod(size) * shape.dtype.itemsize, flags=flags)
            if hasattr(mmap, "MADV_NOHUGEPAGE"):  # a huge page would hold memory for tokens that are not there
                self._map.madvise(mmap.MADV_NOHUGEPAGE)
            self.tensor = torch.frombuffer(self._map, dtype=shape.dtype).view(size)
        else:
            self.tensor = torch.zeros(size, dtype=shape.dtype, device=device)
        #: By layer: (2, S, K, N, D), and the same as rows of one head: (2 * S * K * N, D).
        self.layers = list(self.tensor)
        self.rows = [layer.reshape(-1, shape.width) for layer in self.layers]
        self._free = list(range(slots))
        self._touched = [0] * slots  # tokens of each slot that have memory
        self._reserved = [0] * slots  # tokens that the slot's request may reach

    @property
    def has_free_slot(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    @property
    def reserved(self) -> int:
        """Tokens that the running requests may reach together."""
        return sum(self._reserved)

    def reserve(self, tokens: int, others: int = 0) -> int | None:
        """Return a free slot for a request of up to `tokens` tokens, or None if there is no room now.

        `others` is the number of tokens that something else holds within the same capacity.
        """
        if not self._free or self.reserved + others + tokens > self.capacity:
            return None
        slot = min(self._free)  # low slots first, so that those in use lie side by side
        self._free.remove(slot)
        self._reserved[slot] = tokens
        self.give_back(others)
        return slot

    def touch(self, slot: int, tokens: int) -> None:
        """Note that the first `tokens` tokens of a slot are written."""
        self._touched[slot] = max(self._touched[slot], tokens)

    def free(self, slot: int) -> None:
        """Give a slot back."""
        self._reserved[slot] = 0
        self._free.append(slot)

    def give_back(self, others: int) -> None:
        """Give back the memory of free slots, as far as that of all slots and `others` tokens exceed the capacity."""
        for slot in self._free:
            if self._memory() + others <= self.capacity:
                break
            self._give_back_slot(slot)

    def clear(self, slot: int) -> None:
        """Overwrite a slot's numbers with zeros: those that are not finite would spread to neighbors."""
        self.tensor[:, :, slot].zero_() if self._map is None else self._give_back_slot(slot)

    def _memory(self) -> int:
        return sum(max(pair) for pair in zip(self._touched, self._reserved, strict=True))

    def _give_back_slot(self, slot: int) -> None:
        tokens, self._touched[slot] = self._touched[slot], 0
        if self._map is None or not tokens:
            return
        row_bytes = self.shape.width * self.shape.dtype.itemsize
        for start in self._row_starts(slot):
            first, last = start * row_bytes, (start + tokens) * row_bytes
            first, last = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE, last // mmap.PAGESIZE * mmap.PAGESIZE
            if last > first:
                self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def _row_starts(self, slot: int) -> list[int]:
        """Return where the rows of each head of a slot begin in the tensor, in rows."""
        shape, per_slot = self.shape, self.shape.heads * self.max_length
        return [
            (half * self.n_slots + slot) * per_slot + head * self.max_length
            for half in range(2 * shape.layers)
            for head in range(shape.heads)
        ]
