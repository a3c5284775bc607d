"""Counts of prepared rows: classes, lengths, typical words, bad rows.

`trainer.report.duplicates` finds texts that occur more than once, `trainer.report.suspects` labels that look wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.folder import QUARANTINE
from trainer.data.parts import PARTS
from trainer.data.prepared import Prepared

_MAX_EXAMPLES = 3
_MAX_WORD_ROWS = 50_000


@dataclass(frozen=True)
class UsableRows:
    """The usable rows of all parts, part after part; every field has one entry per row."""

    texts: list[str]
    """As the model reads them: after cleaning."""
    labels: list[str]
    parts: np.ndarray
    """int8: index into `PARTS`"""
    lengths: np.ndarray
    """in tokens"""

    def __len__(self) -> int:
        return len(self.texts)

    def rows_of(self, part: str) -> np.ndarray:
        """Return the row numbers of one part."""
        return np.flatnonzero(self.parts == PARTS.index(part))


def collect_rows(prepared: Prepared) -> UsableRows:
    """Return all usable rows of prepared data, with texts cleaned by the contract's steps."""
    from trainer.steps.cleaner import Cleaner
    from trainer.tasks.catalog import task_of_contract

    task = task_of_contract(prepared.contract)
    labels = task.target.labels(prepared.contract.fitted)
    cleaner = Cleaner(prepared.contract)
    texts: list[str] = []
    names: list[str] = []
    parts: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    for index, part in enumerate(PARTS):
        rows = prepared.part(part).without_repeats()  # the copies that `balance` makes are not the user's rows
        columns = [rows.raw(role) for role in task.text_roles]
        cleaned = [cleaner(values)[0] if cleaner else values for values in columns]
        texts += map(" | ".join, zip(*cleaned, strict=True))
        names += [labels[target] for target in rows.targets]
        parts.append(np.full(len(rows), index, np.int8))
        lengths.append(np.asarray(rows.lengths))
    return UsableRows(texts, names, np.concatenate(parts), np.concatenate(lengths))


def count_classes(rows: UsableRows, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return {label, train, validation, test, rows, share} for each label, largest class first."""
    counts = Counter(zip(rows.labels, rows.parts.tolist(), strict=True))
    classes = []
    for label in labels:
        by_part = {part: counts[label, index] for index, part in enumerate(PARTS)}
        n_rows = sum(by_part.values())
        classes.append({"label": label, **by_part, "rows": n_rows, "share": n_rows / max(1, len(rows))})
    return sorted(classes, key=lambda entry: (-int(entry["rows"]), str(entry["label"])))


def describe_lengths(rows: UsableRows, max_length: int | None) -> list[dict[str, Any]]:
    """Return {part, rows, mean, median, p95, longest, at_limit} in tokens for each part that has rows.

    `at_limit` is the share of rows that reach `max_length`: nearly all of them were truncated. None without a limit.
    """
    entries = []
    for part in PARTS:
        lengths = rows.lengths[rows.rows_of(part)]
        if len(lengths):
            median, p95 = np.percentile(lengths, [50, 95])
            entries.append(
                {
                    "part": part,
                    "rows": len(lengths),
                    "mean": float(lengths.mean()),
                    "median": float(median),
                    "p95": float(p95),
                    "longest": int(lengths.max()),
                    "at_limit": float((lengths >= max_length).mean()) if max_length else None,
                }
            )
    return entries


def count_bad_rows(prepared: Path, left_out: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return {reason, rows, examples} of the rows that cannot be used, most frequent reason first.

    An example has `path`, `row` (from 1) and `text`, its first raw value that is not empty. The quarantine file also lists
    the rows that steps removed; `left_out` names these steps, and their rows are not counted as bad.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = prepared / QUARANTINE
    if not path.is_file():
        return []
    table = pq.read_table(path)
    roles = [name for name in table.column_names if name not in ("path", "row", "reason")]
    entries = []
    for reason, count in Counter(table["reason"].to_pylist()).most_common():
        if reason in left_out:
            continue
        first = table.filter(pc.equal(table["reason"], reason)).slice(0, _MAX_EXAMPLES).to_pylist()
        examples = [
            {"path": Path(str(row["path"])).name, "row": row["row"], "text": _first_value(row, roles)} for row in first
        ]
        entries.append({"reason": reason, "rows": count, "examples": examples})
    return entries


def _first_value(row: dict[str, Any], roles: list[str]) -> str:
    values = [row[role] for role in roles if isinstance(row[role], str) and row[role].strip()]
    return str(values[0]) if values else ""


def find_typical_words(rows: UsableRows, count: int = 5) -> dict[str, list[str]]:
    """Return for each label the words that are far more frequent in its training rows than in others, best first.

    The score of a word is (rows of the class that contain it) x log(share in the class / share in all rows).
    """
    from sklearn.feature_extraction.text import CountVectorizer

    train = rows.rows_of("train")[:_MAX_WORD_ROWS]
    if not len(train):
        return {}
    vectorizer = CountVectorizer(binary=True, token_pattern=r"(?u)\b[^\W\d_]{2,}\b", max_features=20_000)
    try:
        contains = vectorizer.fit_transform([rows.texts[row] for row in train]).tocsr()
    except ValueError:  # the texts contain no words
        return {}
    words = vectorizer.get_feature_names_out()
    labels = np.array([rows.labels[row] for row in train])
    overall = np.asarray(contains.mean(axis=0)).ravel()
    typical = {}
    for label in sorted(set(labels.tolist())):
        of_class = contains[np.flatnonzero(labels == label)]
        rows_with = np.asarray(of_class.sum(axis=0)).ravel()
        score = rows_with * np.log(np.maximum(rows_with / of_class.shape[0], 1e-9) / overall)
        best = np.argsort(-score, kind="stable")[:count]
        typical[label] = [str(words[word]) for word in best if score[word] > 0]
    return typical
