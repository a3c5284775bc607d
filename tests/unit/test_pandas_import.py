"""pyarrow without pandas: arrays of lists do not import it, and a user's own pandas works afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
import pyarrow as pa
from trainer.data.pandas_import import leave_out_pandas

leave_out_pandas()
leave_out_pandas()
lists = [pa.array(["a", None]), pa.array([1.5, float("nan")]), pa.table({"a": [1, 2]})["a"]]
assert "pandas" not in sys.modules, "after leave_out_pandas, pyarrow imports pandas for a list"
if sys.argv[1] == "series":
    import pandas as pd

    series = pd.Series([1.0, None])
    assert pa.array(series).null_count == 1  # pyarrow knows that it is a series
    assert pd.__spec__.loader is pd.__loader__ and hasattr(pd.__loader__, "path")
else:
    assert pa.table({"a": [1, 2]}).to_pandas()["a"].sum() == 3
    import pandas as pd

    assert pa.array(pd.Series([1.0, None])).null_count == 1
leave_out_pandas()
assert pa.array(pd.Series([1.0, None])).null_count == 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("first_use", ["series", "conversion"])
def test_pandas_is_imported_only_for_who_uses_it(first_use):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", CODE, first_use], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
