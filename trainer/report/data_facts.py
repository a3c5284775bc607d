"""What prepared rows look like, counted by plain functions: classes, lengths, typical words, rows that were left out.

Which texts stand more than once is in `trainer.report.twins`, which labels look wrong in `trainer.report.suspects`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.folder import QUARANTINE
from trainer.data.prepared import Prepared

PARTS = ("train", "validation", "test")
_EXAMPLES = 3
_WORDS_ROWS = 50_000


@dataclass(frozen=True)
class AllRows:
    """The usable rows of all parts, part after part; every list has one entry a row."""

    texts: list[str]
    """As the model gets them: after cleaning."""
    labels: list[str]
    parts: np.ndarray
    """int8: place in `PARTS`"""
    lengths: np.ndarray
    """in tokens"""

    def __len__(self) -> int:
        return len(self.texts)

    def of(self, part: str) -> np.ndarray:
        """Return the places of one part's rows."""
        return np.flatnonzero(self.parts == PARTS.index(part))


def collect(prepared: Prepared) -> AllRows:
    """Return all usable rows of prepared data, their texts cleaned by the contract's steps."""
    from trainer.steps.cleaner import Cleaner
    from trainer.tasks import catalog as task_catalog

    task = task_catalog.of(prepared.contract)
    labels = task.target.labels(prepared.contract.fitted)
    cleaner = Cleaner(prepared.contract)
    texts: list[str] = []
    names: list[str] = []
    parts: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    for place, part in enumerate(PARTS):
        rows = prepared.part(part).once()  # copies that `balance` made are not the user's
        columns = [rows.raw(role) for role in task.texts]
        cleaned = [cleaner(values)[0] if cleaner else values for values in columns]
        texts += map(" | ".join, zip(*cleaned, strict=True))
        names += [labels[at] for at in rows.targets]
        parts.append(np.full(len(rows), place, np.int8))
        lengths.append(np.asarray(rows.lengths))
    return AllRows(texts, names, np.concatenate(parts), np.concatenate(lengths))


def classes(rows: AllRows, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return {label, train, validation, test, rows, share} for each label, the largest class first."""
    counts = Counter(zip(rows.labels, rows.parts.tolist(), strict=True))
    found = []
    for label in labels:
        by_part = {part: counts[label, place] for place, part in enumerate(PARTS)}
        n_rows = sum(by_part.values())
        found.append({"label": label, **by_part, "rows": n_rows, "share": n_rows / max(1, len(rows))})
    return sorted(found, key=lambda entry: (-int(entry["rows"]), str(entry["label"])))


def lengths(rows: AllRows, max_length: int | None) -> list[dict[str, Any]]:
    """Return {part, rows, mean, median, p95, longest, at_limit} in tokens for each part that has rows.

    `at_limit` is the share of rows that reach `max_length`: nearly all of them were cut. None without a limit.
    """
    found = []
    for part in PARTS:
        here = rows.lengths[rows.of(part)]
        if len(here):
            middle, high = np.percentile(here, [50, 95])
            found.append(
                {
                    "part": part,
                    "rows": len(here),
                    "mean": float(here.mean()),
                    "median": float(middle),
                    "p95": float(high),
                    "longest": int(here.max()),
                    "at_limit": float((here >= max_length).mean()) if max_length else None,
                }
            )
    return found


def bad_rows(prepared: Path, left_out: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return {reason, rows, examples} of the rows that could not be used, the most frequent reason first.

    Rows that a step `left_out` are listed in the same file, and are not bad.

    An example has `path`, `row` (from 1) and `text`, the first of its raw values that is not empty.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = prepared / QUARANTINE
    if not path.is_file():
        return []
    table = pq.read_table(path)
    roles = [name for name in table.column_names if name not in ("path", "row", "reason")]
    found = []
    for reason, count in Counter(table["reason"].to_pylist()).most_common():
        if reason in left_out:
            continue
        first = table.filter(pc.equal(table["reason"], reason)).slice(0, _EXAMPLES).to_pylist()
        examples = [
            {"path": Path(str(row["path"])).name, "row": row["row"], "text": _first_value(row, roles)} for row in first
        ]
        found.append({"reason": reason, "rows": count, "examples": examples})
    return found


def _first_value(row: dict[str, Any], roles: list[str]) -> str:
    values = [row[role] for role in roles if isinstance(row[role], str) and row[role].strip()]
    return str(values[0]) if values else ""


def typical_words(rows: AllRows, count: int = 5) -> dict[str, list[str]]:
    """Return for each label the words that its training rows have far more often than the others, best first.

    Words are compared by (rows of the class with it) x log(share in the class / share in all rows).
    """
    from sklearn.feature_extraction.text import CountVectorizer

    train = rows.of("train")[:_WORDS_ROWS]
    if not len(train):
        return {}
    vectorizer = CountVectorizer(binary=True, token_pattern=r"(?u)\b[^\W\d_]{2,}\b", max_features=20_000)
    try:
        with_word = vectorizer.fit_transform([rows.texts[at] for at in train]).tocsr()
    except ValueError:  # there are no words at all
        return {}
    words = vectorizer.get_feature_names_out()
    names = np.array([rows.labels[at] for at in train])
    overall = np.asarray(with_word.mean(axis=0)).ravel()
    found = {}
    for label in sorted(set(names.tolist())):
        mine = with_word[np.flatnonzero(names == label)]
        rows_with = np.asarray(mine.sum(axis=0)).ravel()
        weight = rows_with * np.log(np.maximum(rows_with / mine.shape[0], 1e-9) / overall)
        best = np.argsort(-weight, kind="stable")[:count]
        found[label] = [str(words[at]) for at in best if weight[at] > 0]
    return found
