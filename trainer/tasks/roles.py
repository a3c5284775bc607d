"""TODO docstring."""

from __future__ import annotations

import pyarrow as pa

#: Roles beside the task's own, for `split.column`.
GROUP, TIME = "group", "time"


#: Begins the roles of `data.features`.
FEATURE = "feature."


def features_of(rows: pa.Table) -> pa.Table:
    """Return the columns of `data.features` alone, under the user's names."""
    own = {name.removeprefix(FEATURE): rows[name] for name in rows.column_names if name.startswith(FEATURE)}
    return pa.table(own)
