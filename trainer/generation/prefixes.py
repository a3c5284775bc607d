"""The prefix cache: keys and values of prompts that were computed, by blocks of tokens, for prompts that begin alike.

A block is found by its tokens and the block before it, exactly: a dictionary compares them, not only their hashes. Blocks are
copied into a request's slot, so they can be dropped at any time. The one that was not used for longest goes first, and
a block never before those that follow it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from trainer.generation.cache import KeyValueCache

#: Tokens a block.
BLOCK = 32

_Key = tuple[int, tuple[int, ...]]


class PrefixCache:
    """Blocks of keys and values beside the slots of a cache, within the same capacity."""

    def __init__(self, cache: KeyValueCache) -> None:
        self._cache = cache
        #: By (number of the block before, tokens): number of the block, keys and values (L, 2, K, BLOCK, D).
        self._blocks: OrderedDict[_Key, tuple[int, torch.Tensor]] = OrderedDict()
        self._next_number = 0

    @property
    def tokens(self) -> int:
        """Tokens that the blocks hold."""
        return len(self._blocks) * BLOCK

    def known(self, tokens: Sequence[int], root: int) -> int:
        """Return how many tokens `load` would copy."""
        return min(len(self._path(tokens, root)), (len(tokens) - 1) // BLOCK) * BLOCK

    def load(self, tokens: Sequence[int], root: int, slot: int) -> int:
        """Copy the longest known beginning of `tokens` into a slot, and return its length.

        The last token is always left to compute. `root` tells apart what computed the tokens: the base or an adapter.
        """
        path = self._path(tokens, root)[: (len(tokens) - 1) // BLOCK]
        for index, key in enumerate(path):
            target = self._cache.tensor[:, :, slot, :, index * BLOCK : (index + 1) * BLOCK]
            target.copy_(self._blocks[key][1])
        self._touch(path)
        return len(path) * BLOCK

    def store(self, tokens: Sequence[int], root: int, slot: int) -> None:
        """Copy the whole blocks of `tokens`, which the slot holds, unless they are known or there is no room."""
        path = self._path(tokens, root)
        parent = self._blocks[path[-1]][0] if path else ~root
        for start in range(len(path) * BLOCK, len(tokens) - BLOCK + 1, BLOCK):
            if not self._make_room(path):
                break
            key = (parent, tuple(tokens[start : start + BLOCK]))
            parent = self._next_number
            self._next_number += 1
            states = self._cache.tensor[:, :, slot, :, start : start + BLOCK].clone()
            self._blocks[key] = (parent, states)
            path.append(key)
        self._touch(path)

    def drop(self, tokens: int) -> int:
        """Drop blocks of at least `tokens` tokens, or all. Return the tokens that are left."""
        for _ in range(min(-(-tokens // BLOCK), len(self._blocks))):
            self._blocks.popitem(last=False)
        return self.tokens

    def _make_room(self, path: list[_Key]) -> bool:
        """Return whether one more block fits; blocks that do not lead to it may be dropped for it."""
        self._touch(path)
        while self._cache.reserved + self.tokens + BLOCK > self._cache.capacity:
            if len(self._blocks) <= len(path):
                return False
            self._blocks.popitem(last=False)
        self._cache.give_back(self.tokens + BLOCK)
        return True

    def _path(self, tokens: Sequence[int], root: int) -> list[_Key]:
        """Return the keys of the blocks that `tokens` begin with, in order."""
        path: list[_Key] = []
        parent = ~root
        for start in range(0, len(tokens) - BLOCK + 1, BLOCK):
            key = (parent, tuple(tokens[start : start + BLOCK]))
            block = self._blocks.get(key)
            if block is None:
                break
            parent = block[0]
            path.append(key)
        return path

    def _touch(self, path: Sequence[_Key]) -> None:
        """Note a use: the first block becomes the last to be dropped."""
        for key in reversed(path):
            self._blocks.move_to_end(key)
