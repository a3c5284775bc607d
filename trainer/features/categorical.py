"""Columns of categories: parsing, counting in bounded memory, fitting, encoding."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from typing import Literal, NamedTuple

import numpy as np

from cluster.errors import DataError, SpecError
from trainer.features.cells import (
    BadCell,
    CellOutcome,
    CellReader,
    Cells,
    ParsedColumn,
    format_cell,
    read_cells,
    reject_missing,
)
from trainer.spec.features import CategoricalSpec
from trainer.spec.section import SpecSection
from trainer.values.numbers import shorter_decimal
from trainer.values.words import canonical_text, canonical_word

#: Distinct categories that are counted individually; beyond that, categories are counted in groups by their hash.
MAX_COUNTED = 100_000
N_HASH_GROUPS = 64
_MAX_LENGTH = 256


class CategoryCounts(NamedTuple):
    """Number of rows of each category, in arbitrary order."""

    words: dict[str, int]
    """Number of rows by category; with over `MAX_COUNTED` categories, by hash group, for example '17'."""
    grouped: bool


def hash_bucket(word: str, n: int) -> int:
    """Return the bucket (0 to n-1) of a category: BLAKE2b of its UTF-8 with 8 bytes, big-endian, modulo `n`."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big") % n


def read_categories(rules: CategoricalSpec, cells: Cells) -> ParsedColumn:
    """Return int64 codes: indices into `words`, the distinct categories in their normal spelling."""
    codes: dict[str, int] = {}

    def parse(text: str) -> int | BadCell:
        word = normalize_category(rules, text)
        return word if isinstance(word, BadCell) else codes.setdefault(word, len(codes))

    reader = CellReader("a category", parse, np.int64, rules.missing_words, any_case=False)
    return reject_missing(read_cells(cells, reader), rules.missing)._replace(words=list(codes))


def normalize_category(rules: CategoricalSpec, text: str) -> str | BadCell:
    """Return the normal spelling of a category: 3 and 3.0 are the same, and so are true and True."""
    word = canonical_word(text) if rules.whitespace == "trim" or text == text.strip() else canonical_text(text)
    word = " ".join(word.split()) if rules.whitespace == "trim" else word
    word = word.lower() if rules.lowercase else word
    if len(word) > _MAX_LENGTH:
        return BadCell(f"{format_cell(text)} has {len(word)} characters, over {_MAX_LENGTH}")
    return word


def count_categories(parsed: ParsedColumn) -> CategoryCounts:
    """Return the number of rows of each category of a parsed column."""
    counts = np.bincount(parsed.present_values(), minlength=len(parsed.words))
    return _limit_counts({word: int(count) for word, count in zip(parsed.words, counts, strict=True) if count})


def merge_counts(first: CategoryCounts, second: CategoryCounts) -> CategoryCounts:
    """Return the counts of the combined rows. Whether they are grouped depends on all words, not on their order."""
    if first.grouped or second.grouped:
        return CategoryCounts(dict(Counter(_group_by_hash(first).words) + Counter(_group_by_hash(second).words)), True)
    small, large = sorted((first.words, second.words), key=len)
    total = dict(large)
    for word, count in small.items():
        total[word] = total.get(word, 0) + count
    return _limit_counts(total)


def _limit_counts(words: dict[str, int]) -> CategoryCounts:
    counts = CategoryCounts(words, False)
    return _group_by_hash(counts) if len(words) > MAX_COUNTED else counts


def _group_by_hash(counts: CategoryCounts) -> CategoryCounts:
    if counts.grouped:
        return counts
    groups: Counter[str] = Counter()
    for word, count in counts.words.items():
        groups[str(hash_bucket(word, N_HASH_GROUPS))] += count
    return CategoryCounts(dict(groups), True)


def words_by_count(counts: CategoryCounts) -> list[str]:
    """Return the words, most frequent first; ties are sorted by text."""
    return sorted(counts.words, key=lambda word: (-counts.words[word], word))


class FittedCategorical(SpecSection):
    """A fitted column of categories. Codes: the categories (or buckets), then other, then missing."""

    kind: Literal["categorical"] = "categorical"
    name: str
    rules: CategoricalSpec
    categories: list[str]
    """In the order of their codes; empty for a hash."""
    fill: str | None
    """Category that replaces a missing one; None if missing has a code of its own or is rejected."""
    saw_missing: bool = False
    """Whether a training row had no value."""
    saw_other: bool = False
    """Whether a training row had a value that is not among the categories."""

    @functools.cached_property
    def _codes(self) -> dict[str, int]:
        """The code of each category. A category such as 12.50 also has the code of 12.5 if no other one means that."""
        codes = {word: code for code, word in enumerate(self.categories)}
        shorter = {word: shorter_decimal(word) for word in self.categories}
        times_meant = Counter(shorter.values())
        return {short: codes[word] for word, short in shorter.items() if times_meant[short] == 1} | codes

    @functools.cached_property
    def labels(self) -> list[str]:
        """The meaning of each code."""
        if self.rules.is_hash:
            labels = [f"{self.name}#{number}" for number in range(self.rules.buckets)]
        else:
            labels = [f"{self.name}={word}" for word in self.categories]
            labels += [f"{self.name} is other"] if self.rules.unseen == "other" else []
        return [*labels, f"{self.name} is missing"] if self.rules.missing == "category" else labels

    @property
    def names(self) -> list[str]:
        """Names of the float outputs; empty for ids."""
        if self.rules.as_ids:
            return []
        return [self.name] if self.rules.encode == "ordinal" else self.labels

    def encode_codes(self, cells: Cells) -> tuple[np.ndarray, CellOutcome]:
        """Return int64 codes, shape (n,), -1 for no category, and what became of the cells."""
        parsed = read_categories(self.rules, cells)
        code_by_word = np.array([self._code_of(word) for word in parsed.words] or [-1], np.int64)
        codes = code_by_word[parsed.values]
        other = np.zeros(len(codes), bool)
        bad = dict(parsed.bad)
        if not self.rules.is_hash:
            other = ((codes < 0) | (codes == len(self.categories))) & ~parsed.missing
            other[list(bad)] = False
            if self.rules.unseen == "reject":
                words = {int(row): parsed.words[parsed.values[row]] for row in np.flatnonzero(other)}
                bad = {row: f"unseen value {format_cell(word)}" for row, word in words.items()} | bad
        codes[parsed.missing] = len(self.labels) - 1 if self.fill is None else self._code_of(self.fill)
        unseen = (parsed.missing & (not self.saw_missing)) | (other & (not self.saw_other))
        return codes, CellOutcome(bad, unseen)

    def encode(self, cells: Cells, out: np.ndarray) -> CellOutcome:
        """Fill `out`, float32 of shape (n, outputs)."""
        codes, outcome = self.encode_codes(cells)
        if self.rules.encode == "ordinal":
            out[:, 0] = codes
        else:
            rows = np.flatnonzero(codes >= 0)
            out[:] = 0.0
            out[rows, codes[rows]] = 1.0
        return outcome

    def _code_of(self, word: str) -> int:
        if self.rules.is_hash:
            return hash_bucket(word, self.rules.buckets)
        return self._codes.get(word, len(self.categories) if self.rules.unseen == "other" else -1)


def fit_categorical(name: str, rules: CategoricalSpec, counts: CategoryCounts, missing: int) -> FittedCategorical:
    """Return the fitted column; `missing` counts the training rows without a value.

    Raises `DataError` if there are too many categories, or none.
    """
    if counts.grouped and (not rules.is_hash or rules.missing == "most_frequent"):
        raise DataError(
            f"column '{name}' has over {MAX_COUNTED:,} different values, more than are counted",
            "use `encode: hash` or `hash_ids` with `missing: category`, or remove the column if it holds row ids",
        )
    categories = [] if rules.is_hash else _select_categories(name, rules, counts)
    fill = None
    if rules.missing == "most_frequent":
        if not counts.words:
            raise DataError(
                f"column '{name}' has no value in any row, so there is no most frequent one", "set `missing: category`"
            )
        fill = words_by_count(counts)[0]
    return FittedCategorical(
        name=name,
        rules=rules,
        categories=categories,
        fill=fill,
        saw_missing=missing > 0,
        saw_other=not rules.is_hash and not counts.words.keys() <= set(categories),
    )


def _select_categories(name: str, rules: CategoricalSpec, counts: CategoryCounts) -> list[str]:
    if rules.categories is not None:
        normalized = [normalize_category(rules, word) for word in rules.categories]
        categories = [word for word in normalized if isinstance(word, str) and word]
        if len(set(categories)) < len(rules.categories):
            raise SpecError(
                f"the categories of column '{name}' hold an empty, overlong or repeated category "
                "once `whitespace` and `lowercase` are applied",
                f"in `categories`, list each category once, with 1 to {_MAX_LENGTH} characters",
            )
    else:
        frequent = [word for word in words_by_count(counts) if counts.words[word] >= rules.min_count]
        categories = sorted(frequent[: rules.max_categories])
    if rules.unseen == "reject":
        _check_all_selected(name, counts, set(categories))
    return categories


def _check_all_selected(name: str, counts: CategoryCounts, categories: set[str]) -> None:
    """Raise `DataError` if `unseen: reject` would reject training rows."""
    left_out = [word for word in words_by_count(counts) if word not in categories]
    if left_out:
        raise DataError(
            f"`unseen: reject` would reject training rows of column '{name}': "
            f"{len(left_out)} of its values are not among its categories, for example {format_cell(left_out[0])}",
            "raise `max_categories`, lower `min_count`, add the values to `categories`, or set `unseen: other`",
        )
