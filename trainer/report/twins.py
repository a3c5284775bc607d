"""Texts that stand more than once: duplicates in one part, leaks between parts, the same text under two labels.

Three degrees of sameness: `exact`; `case` (equal after lower-casing and without punctuation); `near` (most
five-character pieces in common, as the step `deduplicate: {near: 0.8}` finds them).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.data.prepare import minhash
from trainer.report.data_facts import PARTS, AllRows

#: Share of common pieces from which two texts are near-duplicates.
NEAR = 0.8
#: Different texts that are compared for being near; more than that are not looked at (the page says so).
NEAR_TEXTS = 50_000
DEGREES = ("exact", "case", "near")
_EXAMPLES = 8
# The most similar text is looked for among so many.
_COMPARED = 50


class _Folding(dict[int, "str | int"]):
    """Character -> what stands for it without case and punctuation; filled as characters come."""

    def __missing__(self, code: int) -> str | int:
        character = chr(code)
        if character in "'’`":
            self[code] = ""
        else:
            self[code] = " " if unicodedata.category(character)[0] in "PSZC" else code
        return self[code]


_FOLDING = _Folding()


def fold(text: str) -> str:
    """Return a text in lower case, without punctuation, with single spaces; a text of punctuation alone stays."""
    folded = " ".join(unicodedata.normalize("NFKC", text).lower().translate(_FOLDING).split())
    return folded or text


@dataclass(frozen=True)
class Twins:
    """For each row the group it is in, by degree: rows with the same number are the same text to that degree."""

    exact: np.ndarray
    case: np.ndarray
    near: np.ndarray
    left_out: int
    """Different texts that were too many to be compared for being near."""


def find(texts: Sequence[str]) -> Twins:
    """Return which of `texts` are the same. Memory and time grow with the texts' total length."""
    exact = _numbered(texts)
    folded = [fold(text) for text in texts]
    case = _numbered(folded)
    _, first = np.unique(case, return_index=True)
    compared = np.sort(first)[:NEAR_TEXTS]
    words = [folded[at] for at in compared]
    bands = minhash.bands(words, NEAR)
    candidates = (pair for band in bands for pair in minhash.pairs(band, np.arange(len(words))))
    group = np.arange(len(first))
    for later, earlier in minhash.groups(candidates, words.__getitem__, NEAR).items():
        group[case[compared[later]]] = case[compared[earlier]]
    return Twins(exact, case, group[case], len(first) - len(compared))


def _numbered(keys: Sequence[str]) -> np.ndarray:
    """Return for each key a number from 0, in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def duplicates(rows: AllRows, twins: Twins) -> list[dict[str, Any]]:
    """Return {part, exact, case, near}: rows of each part beyond the first of their group, each counted once."""
    found = []
    for part in PARTS:
        here = rows.of(part)
        beyond = [len(here) - len(np.unique(getattr(twins, degree)[here])) for degree in DEGREES]
        found.append({"part": part, "exact": beyond[0], "case": beyond[1] - beyond[0], "near": beyond[2] - beyond[1]})
    return found


def repeated(rows: AllRows, twins: Twins) -> list[dict[str, Any]]:
    """Return {rows, texts, label} of the largest groups of near texts in training, the largest first."""
    train = rows.of("train")
    values, counts = np.unique(twins.near[train], return_counts=True)
    found = []
    for at in np.argsort(-counts, kind="stable")[:_EXAMPLES]:
        if counts[at] < 2:
            break
        members = train[twins.near[train] == values[at]]
        different = list(dict.fromkeys(rows.texts[row] for row in members))
        names = sorted({rows.labels[row] for row in members})
        found.append({"rows": int(counts[at]), "texts": different[:3], "label": ", ".join(names[:3])})
    return found


def contradictions(rows: AllRows, twins: Twins) -> list[dict[str, Any]]:
    """Return {text, labels: [(label, rows)]} of texts that are the same but for case, and have several labels."""
    order = np.argsort(twins.case, kind="stable")
    borders = np.flatnonzero(np.diff(twins.case[order])) + 1
    found = []
    for members in np.split(order, borders):
        names = [rows.labels[row] for row in members]
        if len(set(names)) > 1:
            counted = sorted({name: names.count(name) for name in names}.items(), key=lambda pair: (-pair[1], pair[0]))
            found.append({"text": rows.texts[members[0]], "labels": counted})
    return found


def leaks(rows: AllRows, twins: Twins) -> list[dict[str, Any]]:
    """Return for each two parts the rows of the later one whose text stands in the earlier one.

    Each entry: {of, into, rows, exact, case, near, share, examples}; `into` is the held-out part, `share` is of its
    rows, and every row counts once, by its highest degree. Examples have {degree, text, other, label, other_label}.
    """
    found = []
    for earlier, later in (("train", "test"), ("train", "validation"), ("validation", "test")):
        first, second = rows.of(earlier), rows.of(later)
        degree = np.full(len(second), -1)
        for place in (2, 1, 0):
            group = getattr(twins, DEGREES[place])
            degree[np.isin(group[second], group[first])] = place
        counts = {name: int((degree == place).sum()) for place, name in enumerate(DEGREES)}
        n_rows = sum(counts.values())
        examples = [
            example
            for place in range(len(DEGREES))
            for example in _examples(rows, place, first, second[degree == place], twins)
        ]
        share = n_rows / max(1, len(second))
        found.append({"of": earlier, "into": later, "rows": n_rows, **counts, "share": share, "examples": examples})
    return found


def _examples(
    rows: AllRows, place: int, first: np.ndarray, leaked: np.ndarray, twins: Twins
) -> Iterator[dict[str, Any]]:
    """Yield some of the `leaked` rows, each with the most similar row of the earlier part (`first`)."""
    group = getattr(twins, DEGREES[place])
    for row in leaked[:_EXAMPLES]:
        others = first[group[first] == group[row]][:_COMPARED]
        other = max(others, key=lambda each: minhash.similarity(rows.texts[each], rows.texts[row]))
        yield {
            "degree": DEGREES[place],
            "text": rows.texts[row],
            "other": rows.texts[other],
            "label": rows.labels[row],
            "other_label": rows.labels[other],
        }
