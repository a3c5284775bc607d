"""A contract is fitted on the training rows only."""

import csv
import json

import pytest

from cluster.errors import DataError
from trainer.data.prepare.prepare import prepare_rows
from trainer.tasks.load_spec import load_spec


def prepare(folder, rows, task, base, **data):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = {} if task.startswith("tabular") else {"base": str(base)}
    data = {"train": str(path), "max_bad_fraction": 0.5, **data}
    spec = load_spec({"name": "a", "task": task, "data": data, "model": model, "storage": str(folder / "storage")})
    return prepare_rows(spec, lambda progress: None, folder / "quarantine.parquet")


def test_the_mean_of_numbers_is_that_of_the_training_rows(tiny_base, tmp_path):
    rows = [{"text": f"text {n}", "value": n % 37} for n in range(200)]
    prepared = prepare(tmp_path, rows, "text-regression", tiny_base)
    trained = prepared.part("train").targets
    assert len(trained) < 190
    assert prepared.contract.fitted["target"]["mean"] == pytest.approx(trained.mean(), rel=1e-12)
    assert prepared.contract.fitted["target"]["std"] == pytest.approx(trained.std(), rel=1e-12)


def test_a_tag_that_only_held_out_rows_have_is_unknown(tiny_base, tmp_path):
    own = {n: [f"own {n}"] for n in range(0, 90, 3)}
    rows = [{"text": f"text {n}", "labels": ["even" if n % 2 else "odd", *own.get(n, [])]} for n in range(90)]
    prepared = prepare(tmp_path, rows, "text-multi-label", tiny_base)
    assert prepared.part("train").targets.sum(axis=0).min() >= 1
    n_unknown = len(own) - (len(prepared.contract.fitted["labels"]) - 2)
    assert n_unknown > 1 and prepared.summary["quarantined"] == {"unknown label": n_unknown}


@pytest.mark.parametrize("kind", ["numeric", "categorical", "boolean"])
def test_a_table_of_one_column_may_lack_a_cell(tmp_path, kind):
    cells = {"numeric": ["1", "2"], "categorical": ["a", "b"], "boolean": ["yes", "no"]}[kind]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["x", "label"], *[[["", *cells][n % 3], "pq"[n % 2]] for n in range(90)]])
    data = {"train": str(path), "features": {"x": kind}, "split": {"validation": 0.3, "test": 0.3}}
    spec = load_spec(
        {"name": "a", "task": "tabular-classification", "data": data, "storage": str(tmp_path / "storage")}
    )
    try:
        prepared = prepare_rows(spec, lambda progress: None, tmp_path / "quarantine.parquet")
    except DataError as error:  # the three different rows may all fall into one part
        assert "no row is left" in str(error)
    else:
        assert sum(prepared.summary["rows"].values()) == 90
