"""Steps over the whole data set: deduplicate, balance and sample."""

import numpy as np
import pytest

from support.tiny_text import make_text_rows, tiny_spec, write_csv
from trainer.data.prepare.prepare import prepare_rows
from trainer.tasks.load_spec import load_spec


def prepare(spec, tmp_path):
    return prepare_rows(load_spec(spec), lambda progress: None, tmp_path / "quarantine.parquet")


@pytest.fixture
def prepare_with(tiny_base, tmp_path):
    """A function that prepares about 600 rows with some steps; one class is rare, and 20 rows are duplicates."""
    rows = [row for row in make_text_rows(900, seed=6) if row[1] != "tool" or int(row[0].split()[-1]) % 9 == 2]
    write_csv(tmp_path / "train.csv", [*rows, *rows[:20]])

    def prepare_steps(*steps):
        data = {"train": str(tmp_path / "train.csv"), "steps": list(steps), "max_bad_fraction": 0.1}
        return prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)

    return prepare_steps


def training_rows_by_class(prepared):
    return [counts[0] for counts in prepared.summary["rows_by_class"].values()]


def test_duplicates_are_bad_rows_or_left_out_by_a_step(prepare_with):
    plain = prepare_with().summary
    assert plain["quarantined"] == {"duplicate": 20}
    assert plain["left_out"] == {}
    deduplicated = prepare_with("deduplicate").summary
    assert deduplicated["quarantined"] == {}
    assert deduplicated["left_out"] == {"duplicate": 20}
    assert deduplicated["rows"] == plain["rows"]


def test_undersampling_balances_the_training_rows(prepare_with):
    plain, under = prepare_with(), prepare_with({"balance": {"method": "undersample"}})
    smallest = min(training_rows_by_class(plain))
    assert all(smallest * 0.7 <= count <= smallest * 1.3 for count in training_rows_by_class(under))
    for part in ("validation", "test"):
        assert under.summary["rows"][part] == plain.summary["rows"][part]


def test_oversampling_balances_the_training_rows(prepare_with):
    largest = max(training_rows_by_class(prepare_with()))
    counts = np.bincount(prepare_with({"balance": {"method": "oversample"}}).part("train").targets)
    assert counts.min() >= 0.8 * largest
    assert counts.max() == largest


def test_class_weights_balance_the_classes(prepare_with):
    plain = prepare_with()
    assert plain.summary["class_weights"] is None
    weights = prepare_with("balance").summary["class_weights"]
    assert max(weights) == weights[2]  # the rare class
    weighted = sum(weight * count for weight, count in zip(weights, training_rows_by_class(plain), strict=True))
    assert weighted == pytest.approx(plain.summary["rows"]["train"], rel=1e-3)


def test_a_sample_takes_a_fraction_or_a_number_of_training_rows(prepare_with):
    n_train = prepare_with().summary["rows"]["train"]
    half = prepare_with({"sample": {"fraction": 0.5}}).summary
    assert 0.4 < half["rows"]["train"] / n_train < 0.6
    assert sum(half["left_out"].values()) == n_train - half["rows"]["train"]
    assert 80 < prepare_with({"sample": {"rows": 100}}).summary["rows"]["train"] < 120


def test_a_sample_with_the_splits_seed_takes_other_rows(tiny_base, tmp_path):
    write_csv(tmp_path / "train.csv", make_text_rows(900, seed=6))
    steps = [{"sample": {"fraction": 0.3, "seed": 13}}, {"balance": {"method": "undersample"}}]
    data = {"train": str(tmp_path / "train.csv"), "steps": steps, "split": {"seed": 13, "test": 0.3}}
    prepared = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)
    assert 120 < prepared.summary["rows"]["train"] < 200


def test_each_of_two_samples_takes_its_share(tiny_base, tmp_path):
    write_csv(tmp_path / "train.csv", make_text_rows(900, seed=6))
    half = {"sample": {"fraction": 0.5}}
    data = {"train": str(tmp_path / "train.csv"), "steps": [half, half]}
    prepared = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)
    assert 130 < prepared.summary["rows"]["train"] < 230


def test_repeated_rows_are_counted_and_can_be_removed(tiny_base, tmp_path):
    rows = [row for row in make_text_rows(600, seed=6) if row[1] != "tool" or int(row[0].split()[-1]) % 9 == 2]
    write_csv(tmp_path / "train.csv", rows)
    data = {"train": str(tmp_path / "train.csv"), "steps": [{"balance": {"method": "oversample"}}]}
    prepared = prepare({**tiny_spec(tiny_base, tmp_path, tmp_path), "data": data}, tmp_path)
    train = prepared.part("train")
    assert len(train) == prepared.summary["rows"]["train"] + prepared.summary["repeated"] > len(train.without_repeats())
    assert len(train.without_repeats()) == prepared.summary["rows"]["train"] == len(set(train.raw("text")))
