"""Columns as real files have them: ids, constants, dates, notes, and numbers with signs."""

from __future__ import annotations

import datetime as dt
import random

_NOTES = ["called twice, no answer", "please deliver to the back door", "asked about the new plan", "unhappy about it"]


def make_odd_rows(count: int, seed: int = 1) -> list[dict[str, str]]:
    """Return rows whose `churned` depends on `total` and `plan`."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        total, plan = rng.uniform(5, 3000), rng.choice(["basic", "plus", "pro"])
        day = dt.date(2022, 1, 1) + dt.timedelta(days=rng.randrange(900))
        rows.append(
            {
                "customer_id": f"C-{number:05d}",
                "region": "EU",
                "joined": day.strftime("%d.%m.%Y"),
                "remark": f"{rng.choice(_NOTES)} on day {number}, see the file",
                "total": f"${total:,.2f}",
                "weight": f"{rng.randint(1, 90)} kg",
                "visits": f"{rng.randrange(1000, 9000):,}" if rng.random() > 0.05 else "unknown",
                "plan": plan,
                "churned": "yes" if (total > 1200) + (plan == "basic") + (rng.random() < 0.1) >= 2 else "no",
            }
        )
    return rows
