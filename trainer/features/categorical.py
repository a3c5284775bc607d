"""Categories and yes/no: reading them, counting them within a bound, and their fitted lists."""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from collections import Counter
from typing import Any, Literal, NamedTuple

import numpy as np

from cluster.errors import DataError, SpecError
from cluster.text import is_unicode
from trainer.features.cells import Bad, Cells, Read, missing_test, read_each, refuse_missing, shown
from trainer.spec.features import Categorical
from trainer.spec.section import Section

#: Distinct categories that are counted one by one; beyond, only groups of their hashes are.
MOST_COUNTED = 100_000
GROUPS = 64
_LONGEST = 256


class Counts(NamedTuple):
    """How often each category occurs, in no order that means something."""

    words: dict[str, int]
    """Category -> rows; once there were over `MOST_COUNTED` of them: group of hashes, as '17' -> rows."""
    grouped: bool


def bucket(word: str, n: int) -> int:
    """Return the bucket (0 to n-1) of a category: BLAKE2b of its UTF-8 with 8 bytes, big-endian, modulo `n`."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big") % n


def read(rules: Categorical, cells: Cells) -> Read:
    """Return int64 places in `words`, the distinct categories in their one spelling."""
    places: dict[str, int] = {}

    def parse(value: Any) -> int | Bad:
        word = canonical(rules, value)
        return word if isinstance(word, Bad) else places.setdefault(word, len(places))

    is_missing = missing_test(rules.missing_words, any_case=False)
    found = refuse_missing(read_each(cells, parse, np.int64, is_missing), rules.missing)
    return found._replace(words=list(places))


def canonical(rules: Categorical, value: Any) -> str | Bad:
    """Return a category's one spelling. 3, 3.0 and '3' are one; true is 'true'; text is in Unicode's NFC."""
    if isinstance(value, str):
        if not is_unicode(value):
            return Bad(f"{shown(value)} is not Unicode")
        word = unicodedata.normalize("NFC", value)
        word = " ".join(word.split()) if rules.whitespace == "trim" else word
        word = word.lower() if rules.lowercase else word
    elif isinstance(value, (bool, np.bool_)):
        word = "true" if value else "false"
    elif isinstance(value, (int, np.integer)):
        word = str(int(value))
    elif isinstance(value, (float, np.floating)) and np.isfinite(value):
        word = str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(float(value))
    else:
        return Bad(f"{shown(value)} is no category")
    return word if len(word) <= _LONGEST else Bad(f"{shown(value)} has {len(word)} characters, over {_LONGEST}")


def summarise(found: Read) -> Counts:
    """Return how often each word was read."""
    counts = np.bincount(found.present(), minlength=len(found.words))
    return _bounded({word: int(count) for word, count in zip(found.words, counts, strict=True) if count})


def merge(one: Counts, other: Counts) -> Counts:
    """Return the counts of the rows of both. Whether they are grouped depends on all words, not on the order."""
    if one.grouped or other.grouped:
        return Counts(dict(Counter(_grouped(one).words) + Counter(_grouped(other).words)), True)
    small, large = sorted((one.words, other.words), key=len)
    total = dict(large)
    for word, count in small.items():
        total[word] = total.get(word, 0) + count
    return _bounded(total)


def _bounded(words: dict[str, int]) -> Counts:
    counts = Counts(words, False)
    return _grouped(counts) if len(words) > MOST_COUNTED else counts


def _grouped(counts: Counts) -> Counts:
    if counts.grouped:
        return counts
    groups: Counter[str] = Counter()
    for word, count in counts.words.items():
        groups[str(bucket(word, GROUPS))] += count
    return Counts(dict(groups), True)


def by_count(counts: Counts) -> list[str]:
    """Return the words, the most frequent first; equally frequent ones by their text."""
    return sorted(counts.words, key=lambda word: (-counts.words[word], word))


class FittedCategorical(Section):
    """A column of categories after fitting. Places: the categories (or buckets), then other, then missing."""

    kind: Literal["categorical"] = "categorical"
    name: str
    rules: Categorical
    categories: list[str]
    """In the order of their places; empty for a hash."""
    fill: str | None
    """Category that stands in for a missing one; None where missing is a place of its own or refused."""

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.categories)}

    @functools.cached_property
    def labels(self) -> list[str]:
        """What each place means."""
        if self.rules.is_hash:
            found = [f"{self.name}#{number}" for number in range(self.rules.buckets)]
        else:
            found = [f"{self.name}={word}" for word in self.categories]
            found += [f"{self.name} is other"] if self.rules.unseen == "other" else []
        return [*found, f"{self.name} is missing"] if self.rules.missing == "category" else found

    @property
    def names(self) -> list[str]:
        """Names of the float outputs; none for ids."""
        if self.rules.as_ids:
            return []
        return [self.name] if self.rules.encode == "ordinal" else self.labels

    def places(self, cells: Cells) -> tuple[np.ndarray, dict[int, str]]:
        """Return int64 places, shape (n,), -1 for none, and the reasons of bad rows."""
        found = read(self.rules, cells)
        of_word = np.array([self._place(word) for word in found.words] or [-1], np.int64)
        places = of_word[found.values]
        bad = dict(found.bad)
        if self.rules.unseen == "refuse" and not self.rules.is_hash:
            unseen = np.flatnonzero((places < 0) & ~found.missing)
            bad = {
                int(row): f"unseen value {shown(found.words[found.values[row]])}" for row in unseen if row not in bad
            } | bad
        places[found.missing] = len(self.labels) - 1 if self.fill is None else self._place(self.fill)
        return places, bad

    def encode(self, cells: Cells, out: np.ndarray) -> dict[int, str]:
        """Fill `out`, float32 of shape (n, outputs), and return the reasons of bad rows."""
        places, bad = self.places(cells)
        if self.rules.encode == "ordinal":
            out[:, 0] = places
        else:
            rows = np.flatnonzero(places >= 0)
            out[:] = 0.0
            out[rows, places[rows]] = 1.0
        return bad

    def _place(self, word: str) -> int:
        if self.rules.is_hash:
            return bucket(word, self.rules.buckets)
        return self._places.get(word, len(self.categories) if self.rules.unseen == "other" else -1)


def fit(name: str, rules: Categorical, counts: Counts) -> FittedCategorical:
    """Return the fitted column; raises `DataError` where there are too many categories, or none."""
    if counts.grouped and (not rules.is_hash or rules.missing == "most_frequent"):
        raise DataError(
            f"column '{name}' has over {MOST_COUNTED:,} different values, more than are counted",
            "use encode: hash or hash_ids with missing: category, or leave the column out if it is an id of the row",
        )
    kept = [] if rules.is_hash else _kept(name, rules, counts)
    fill = None
    if rules.missing == "most_frequent":
        if not counts.words:
            raise DataError(
                f"column '{name}' has no value in any row, so none is most_frequent", "set missing: category"
            )
        fill = by_count(counts)[0]
    return FittedCategorical(name=name, rules=rules, categories=kept, fill=fill)


def _kept(name: str, rules: Categorical, counts: Counts) -> list[str]:
    if rules.categories is not None:
        given = [canonical(rules, word) for word in rules.categories]
        kept = [word for word in given if isinstance(word, str) and word]
        if len(set(kept)) < len(rules.categories):
            raise SpecError(
                f"categories of column '{name}' names one twice, an empty or an overlong one, after white space and case",
                "list each once, as it is after whitespace and lowercase",
            )
    else:
        frequent = [word for word in by_count(counts) if counts.words[word] >= rules.min_count]
        kept = sorted(frequent[: rules.max_categories])
    known = set(kept)
    left_out = [word for word in by_count(counts) if word not in known] if rules.unseen == "refuse" else []
    if left_out:
        raise DataError(
            f"column '{name}' has {len(left_out)} values that are not kept as categories, as {shown(left_out[0])}, "
            "and unseen: refuse would refuse their rows",
            "raise max_categories, lower min_count, add to categories, or set unseen: other",
        )
    return kept
