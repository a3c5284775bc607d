"""A small table with columns of every kind, and a spec for it."""

from __future__ import annotations

import csv
import datetime as dt
import random
from pathlib import Path
from typing import Any

#: One column or more of every kind; most have missing cells.
FEATURES: dict[str, Any] = {
    "age": "numeric",
    "income": {"kind": "numeric", "scale": "robust", "missing": "median", "indicator": True},
    "country": "categorical",
    "shop": {"kind": "categorical", "encode": "ids"},
    "joined": {"kind": "date", "parts": ["elapsed", "month"]},
    "member": "boolean",
}
COUNTRIES = ["AT", "DE", "FR", "JP"]


def make_table_rows(count: int, seed: int) -> list[dict[str, str]]:
    """Return rows whose `label` and `spent` depend on the other columns, with some noise."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        age, country, member = rng.randint(18, 80), rng.choice(COUNTRIES), rng.random() < 0.4
        income = round(rng.lognormvariate(10, 0.4), 2)
        shop = rng.randrange(6)
        day = dt.date(2020, 1, 1) + dt.timedelta(days=rng.randrange(2000))
        spent = 2.0 * age + 40 * (country == "DE") + 60 * member + 10 * shop + rng.gauss(0, 5)
        rows.append(
            {
                "age": str(age) if rng.random() < 0.95 else "",
                "income": str(income) if rng.random() < 0.9 else "NA",
                "country": country if rng.random() < 0.95 else "",
                "shop": f"shop {shop}",
                "joined": day.isoformat() if rng.random() < 0.95 else "",
                "member": rng.choice(["yes", "true", "1"]) if member else "no",
                "label": "high" if spent > 170 else "low",
                "spent": f"{spent:.2f}",
            }
        )
    return rows


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as csv and return the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def table_spec(folder: Path, task: str = "tabular-classification", **sections: Any) -> dict[str, Any]:
    """Return a spec for `folder`/train.csv and test.csv; `sections` override its sections key by key."""
    target = {} if task == "tabular-classification" else {"columns": {"value": "spent"}}
    base: dict[str, Any] = {
        "name": "tiny-table",
        "task": task,
        "data": {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "features": FEATURES, **target},
        "storage": str(folder / "storage"),
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section} if isinstance(section, dict) else section
    return base
