"""Write scikit-learn's 442 diabetes patients as csv, with names instead of s1 to s6, and hold out every fifth row.

python examples/diabetes/make_data.py [FOLDER]      (default: data/ beside this file)
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from sklearn.datasets import load_diabetes

HERE = Path(__file__).parent
NAMES = {
    "bp": "blood_pressure",
    "s1": "cholesterol",
    "s2": "ldl",
    "s3": "hdl",
    "s4": "cholesterol_per_hdl",
    "s5": "log_triglycerides",
    "s6": "glucose",
}


def main(folder: Path) -> None:
    """Write train.csv and test.csv into `folder`."""
    patients = load_diabetes(scaled=False)
    folder.mkdir(parents=True, exist_ok=True)
    names = [NAMES.get(name, name) for name in patients.feature_names]
    sex = names.index("sex")
    rows = []
    for values, progression in zip(patients.data, patients.target, strict=True):
        cells: list[float | str] = [round(float(value), 4) for value in values]
        cells[sex] = f"sex {int(values[sex])}"  # the data set does not say which is which
        rows.append([*cells, float(progression)])
    for part, is_in_part in {
        "train": [n % 5 != 4 for n in range(442)],
        "test": [n % 5 == 4 for n in range(442)],
    }.items():
        with (folder / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
            selected = [row for row, used in zip(rows, is_in_part, strict=True) if used]
            csv.writer(file).writerows([[*names, "progression"], *selected])
        print(f"{len(selected)} rows in {folder / f'{part}.csv'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "data")
