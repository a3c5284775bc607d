"""Texts that occur more than once: duplicates within a part, leaks between parts, the same text with several labels.

Texts are compared by three degrees, strictest first: `exact`; `case` (equal in lowercase and without punctuation); and
`near` (most five-character pieces in common, as in the step `deduplicate: {near: 0.8}`).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.data.parts import PARTS
from trainer.data.prepare import minhash
from trainer.report.data_facts import UsableRows

#: Two texts are near-duplicates if they have at least this share of their pieces in common.
NEAR_SIMILARITY = 0.8
#: Only this many distinct texts are compared for near-duplicates; the page says how many were not.
MAX_NEAR_TEXTS = 50_000
DEGREES = ("exact", "case", "near")
_MAX_EXAMPLES = 8
# An example of a leak shows the most similar text of the other part, among at most this many.
_MAX_COMPARED = 50


class _Folding(dict[int, "str | int"]):
    """Maps a character to its replacement without punctuation; filled on demand."""

    def __missing__(self, code: int) -> str | int:
        character = chr(code)
        if character in "'’`":
            self[code] = ""
        else:
            self[code] = " " if unicodedata.category(character)[0] in "PSZC" else code
        return self[code]


_FOLDING = _Folding()


def fold_text(text: str) -> str:
    """Return a text in lowercase, without punctuation, with single spaces; a text of punctuation only is unchanged."""
    folded = " ".join(unicodedata.normalize("NFKC", text).lower().translate(_FOLDING).split())
    return folded or text


@dataclass(frozen=True)
class DuplicateGroups:
    """The group of each row by degree: rows with the same number have the same text to that degree."""

    exact: np.ndarray
    case: np.ndarray
    near: np.ndarray
    not_compared: int
    """Number of distinct texts beyond the limit, which were not compared for near-duplicates."""

    def of_degree(self, degree: str) -> np.ndarray:
        """Return the group of each row by one of `DEGREES`."""
        return {"exact": self.exact, "case": self.case, "near": self.near}[degree]


def group_duplicates(texts: Sequence[str]) -> DuplicateGroups:
    """Return which of `texts` are the same. Memory and time grow with the total length of the texts."""
    exact = _number_groups(texts)
    folded = [fold_text(text) for text in texts]
    case = _number_groups(folded)
    _, first = np.unique(case, return_index=True)
    compared = np.sort(first)[:MAX_NEAR_TEXTS]
    words = [folded[row] for row in compared]
    bands = minhash.band_hashes(words, NEAR_SIMILARITY)
    candidates = (pair for band in bands for pair in minhash.candidate_pairs(band, np.arange(len(words))))
    near_group = np.arange(len(first))
    for later, earlier in minhash.group_near_duplicates(candidates, words.__getitem__, NEAR_SIMILARITY).items():
        near_group[case[compared[later]]] = case[compared[earlier]]
    return DuplicateGroups(exact, case, near_group[case], len(first) - len(compared))


def _number_groups(keys: Sequence[str]) -> np.ndarray:
    """Return for each key a number from 0, in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def count_duplicates(rows: UsableRows, groups: DuplicateGroups) -> list[dict[str, Any]]:
    """Return {part, exact, case, near}: how many rows of each part repeat one, counted once by the strictest degree."""
    entries = []
    for part in PARTS:
        members = rows.rows_of(part)
        exact, case, near = (len(members) - len(np.unique(groups.of_degree(degree)[members])) for degree in DEGREES)
        entries.append({"part": part, "exact": exact, "case": case - exact, "near": near - case})
    return entries


def find_repeated(rows: UsableRows, groups: DuplicateGroups) -> list[dict[str, Any]]:
    """Return {rows, texts, label} of the largest groups of near-duplicates in training, largest first."""
    train = rows.rows_of("train")
    values, counts = np.unique(groups.near[train], return_counts=True)
    entries = []
    for group in np.argsort(-counts, kind="stable")[:_MAX_EXAMPLES]:
        if counts[group] < 2:
            break
        members = train[groups.near[train] == values[group]]
        distinct = list(dict.fromkeys(rows.texts[row] for row in members))
        labels = sorted({rows.labels[row] for row in members})
        entries.append({"rows": int(counts[group]), "texts": distinct[:3], "label": ", ".join(labels[:3])})
    return entries


def find_contradictions(rows: UsableRows, groups: DuplicateGroups) -> list[dict[str, Any]]:
    """Return {text, labels: [(label, rows)]} of texts with several labels; case and punctuation do not matter."""
    order = np.argsort(groups.case, kind="stable")
    borders = np.flatnonzero(np.diff(groups.case[order])) + 1
    entries = []
    for members in np.split(order, borders):
        labels = [rows.labels[row] for row in members]
        if len(set(labels)) > 1:
            counts = {label: labels.count(label) for label in labels}
            counted = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
            entries.append({"text": rows.texts[members[0]], "labels": counted})
    return entries


def find_leaks(rows: UsableRows, groups: DuplicateGroups) -> list[dict[str, Any]]:
    """Count, for each pair of parts, the rows of the later part whose text is also in the earlier part.

    Each entry: {source, part, rows, exact, case, near, share, examples}. `source` is the earlier part, `part` the later
    one, and `share` the fraction of the rows of `part` that leak. Every row counts once, by its strictest degree.
    Examples have {degree, text, other, label, other_label}.
    """
    entries = []
    for source, part in (("train", "test"), ("train", "validation"), ("validation", "test")):
        source_rows, part_rows = rows.rows_of(source), rows.rows_of(part)
        degree = np.full(len(part_rows), -1)
        for index in (2, 1, 0):
            group = groups.of_degree(DEGREES[index])
            degree[np.isin(group[part_rows], group[source_rows])] = index
        counts = {name: int((degree == index).sum()) for index, name in enumerate(DEGREES)}
        n_rows = sum(counts.values())
        examples = [
            example
            for index, name in enumerate(DEGREES)
            for example in _leak_examples(rows, name, source_rows, part_rows[degree == index], groups)
        ]
        share = n_rows / max(1, len(part_rows))
        entries.append({"source": source, "part": part, "rows": n_rows, **counts, "share": share, "examples": examples})
    return entries


def _leak_examples(
    rows: UsableRows, degree: str, source_rows: np.ndarray, leaked: np.ndarray, groups: DuplicateGroups
) -> Iterator[dict[str, Any]]:
    """Yield the first `leaked` rows, each with the most similar row of the earlier part (`source_rows`)."""
    group = groups.of_degree(degree)
    for row in leaked[:_MAX_EXAMPLES]:
        candidates = source_rows[group[source_rows] == group[row]][:_MAX_COMPARED]
        similarities = [minhash.jaccard_similarity(rows.texts[candidate], rows.texts[row]) for candidate in candidates]
        other = candidates[int(np.argmax(similarities))]
        yield {
            "degree": degree,
            "text": rows.texts[row],
            "other": rows.texts[other],
            "label": rows.labels[row],
            "other_label": rows.labels[other],
        }
