"""Features fitted by one pass of Ray Data: same result for every order and split, bounded memory, user errors."""

import csv
import datetime as dt
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
from sklearn.datasets import load_diabetes

from cluster.errors import DataError
from trainer.features.fit import fit_features, fit_tables
from trainer.features.fitted import transform_table
from trainer.features.summary import summaries_to_arrow, summarize_rows
from trainer.spec.features import BooleanSpec, CategoricalSpec, DateSpec, NumericSpec

COLUMNS = {
    "amount": NumericSpec(indicator=True),
    "balance": NumericSpec(scale="robust", missing="median"),
    "country": CategoricalSpec(),
    "user": CategoricalSpec(encode="hash_ids"),
    "day": DateSpec(),
    "active": BooleanSpec(),
}


def make_rows(n):
    rng = random.Random(8)
    return [
        {
            "amount": None if rng.random() < 0.1 else rng.gauss(0, 1) * 10 ** rng.randrange(-8, 9),
            "balance": rng.lognormvariate(3, 2),
            "country": rng.choice(["DE", "FR", " FR ", "", None]),
            "user": f"user {rng.randrange(n)}",
            "day": dt.date(2020, 1, 1) + dt.timedelta(days=rng.randrange(900)),
            "active": rng.random() < 0.3,
            "note": "not a feature",
        }
        for _ in range(n)
    ]


def as_json(result):
    return json.dumps([result.fitted.model_dump(mode="json"), result.profile.model_dump(mode="json")], allow_nan=False)


@pytest.fixture(scope="module")
def rows():
    return pa.Table.from_pylist(make_rows(30_000))


@pytest.fixture(scope="module")
def reference(rows):
    return as_json(fit_tables([rows], COLUMNS))


@pytest.mark.parametrize("n_blocks", [1, 3, 17])
def test_order_and_blocks_do_not_matter(rows, reference, n_blocks):
    order = pa.array(np.random.default_rng(n_blocks).permutation(len(rows)))
    dataset = ray.data.from_arrow(rows.take(order)).repartition(n_blocks)
    assert as_json(fit_features(dataset, COLUMNS)) == reference


def test_ray_shuffle_and_parquet_files_do_not_matter(rows, reference, tmp_path):
    for part in range(4):
        pq.write_table(rows.slice(part * 7500, 7500), tmp_path / f"{part}.parquet", row_group_size=1000)
    dataset = ray.data.read_parquet(str(tmp_path))
    assert as_json(fit_features(dataset, COLUMNS)) == reference
    assert as_json(fit_features(dataset.random_shuffle(seed=3), COLUMNS)) == reference


def test_csv_text_gives_the_same_result_as_typed_columns(rows, reference, tmp_path):
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows.column_names)
        writer.writeheader()
        writer.writerows(rows.to_pylist())
    with (tmp_path / "rows.csv").open(newline="") as file:
        texts = list(csv.DictReader(file))
    assert as_json(fit_features(ray.data.from_items(texts, override_num_blocks=5), COLUMNS)) == reference


def test_scales_match_the_preprocessors_of_ray():
    from ray.data.preprocessors import MinMaxScaler, StandardScaler

    data = load_diabetes()["data"]
    table = pa.table({f"c{column}": data[:, column] for column in range(data.shape[1])})
    dataset = ray.data.from_arrow(table).repartition(3)
    for scale, reference in (("standard", StandardScaler), ("min_max", MinMaxScaler)):
        ours = transform_table(
            fit_features(dataset, dict.fromkeys(table.column_names, NumericSpec(scale=scale))).fitted, table
        )
        theirs = reference(columns=table.column_names).fit(dataset).transform_batch(table.to_pandas())
        np.testing.assert_allclose(ours, theirs[table.column_names].to_numpy(), rtol=1e-5, atol=1e-6)


def test_a_million_rows_need_only_a_few_thousand_buckets():
    def numbers(batch):
        mixed = batch["id"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # a row's number, well mixed
        return {"x": (mixed >> np.uint64(11)).astype(np.float64), "y": np.log1p(mixed.astype(np.float64))}

    n = 1_000_000
    columns = {"x": NumericSpec(), "y": NumericSpec(scale="robust")}
    few, many = (
        fit_features(ray.data.range(n, override_num_blocks=blocks).map_batches(numbers, batch_size=None), columns)
        for blocks in (2, 32)
    )
    assert as_json(few) == as_json(many)
    everything = numbers({"id": np.arange(n)})
    part = summaries_to_arrow(summarize_rows(everything, columns))
    assert part.nbytes < 2 * 16_384 * 24 + 10_000
    assert few.fitted.columns[0].center == pytest.approx(everything["x"].mean(), rel=1e-12)
    assert few.fitted.columns[0].scale == pytest.approx(everything["x"].std(), rel=1e-12)
    low, median, high = np.percentile(everything["y"], [25, 50, 75])
    assert few.fitted.columns[1].center == pytest.approx(median, rel=1e-5)
    assert few.fitted.columns[1].scale == pytest.approx(high - low, rel=1e-3)


def test_user_errors_inside_a_worker_keep_their_message():
    dataset = ray.data.from_items([{"age": "1"}, {"age": "abc"}, {"age": None}])
    with pytest.raises(
        DataError, match="column 'age' cannot be used in 1 of 3 rows, for example: 'abc' is not a number"
    ):
        fit_features(dataset, {"age": NumericSpec()})
    with pytest.raises(DataError, match="there is no column 'aeg'"):
        fit_features(dataset.map(lambda row: row), {"aeg": NumericSpec()})
    with pytest.raises(DataError, match="no rows"):
        fit_features(dataset.filter(lambda row: False), {"age": NumericSpec()})
