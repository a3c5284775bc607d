"""Write scikit-learn's 569 breast tumors as csv and hold out every fifth row.

python examples/breast_cancer/make_data.py [FOLDER]      (default: data/ beside this file)
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from sklearn.datasets import load_breast_cancer

HERE = Path(__file__).parent


def main(folder: Path) -> None:
    """Write train.csv and test.csv into `folder`."""
    tumors = load_breast_cancer()
    folder.mkdir(parents=True, exist_ok=True)
    names = [name.replace(" ", "_") for name in tumors.feature_names]
    rows = [
        [*map(float, values), tumors.target_names[label]]
        for values, label in zip(tumors.data, tumors.target, strict=True)
    ]
    for part, is_in_part in {
        "train": [n % 5 != 4 for n in range(569)],
        "test": [n % 5 == 4 for n in range(569)],
    }.items():
        with (folder / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
            selected = [row for row, used in zip(rows, is_in_part, strict=True) if used]
            csv.writer(file).writerows([[*names, "diagnosis"], *selected])
        print(f"{len(selected)} rows in {folder / f'{part}.csv'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "data")
