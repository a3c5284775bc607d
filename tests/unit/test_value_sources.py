"""One table in every source: the same contract, the same split, the same inputs; and the same inputs of a request."""

import csv
import datetime as dt
import decimal
import json
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.data.prepare.prepare import prepare_rows
from trainer.data.prepare.row_checks import check_rows
from trainer.data.readers.read import read_blocks
from trainer.data.sources.source_files import find_source_files
from trainer.inference.batch_predict import input_options
from trainer.spec.data import QuerySpec
from trainer.steps.cleaner import Cleaner
from trainer.tasks.catalog import get_task, task_of_contract
from trainer.tasks.load_spec import load_spec
from trainer.tasks.roles import input_roles

SOURCES = ("csv", "tsv", "jsonl", "parquet", "dictionary", "arrow", "sql", "hub")
N_ROWS = 60
FEATURES = {
    "zone": "categorical",
    "flag": "categorical",
    "rate": "categorical",
    "big": {"kind": "categorical", "encode": "ids"},
    "city": "categorical",
    "day": "categorical",
    "moment": {"kind": "categorical", "max_categories": 20},
    "amount": "numeric",
    "price": {"kind": "numeric", "decimal_sign": ","},
    "count": "numeric",
    "member": "boolean",
    "joined": "date",
    "born": {"kind": "date", "format": "%d.%m.%Y"},
    "seen": {"kind": "date", "unit": "s"},
}


def typed_rows() -> list[dict]:
    """Return rows with the values of their own types; None is missing."""
    rows = []
    for n in range(N_ROWS):
        at = dt.datetime(2026, 1, 1, 6, 15) + dt.timedelta(hours=7 * n)
        rows.append(
            {
                "label": n % 3 == 0,
                "zone": None if n % 11 == 0 else float(3 + n % 3),
                "flag": n % 2 == 0,
                "rate": decimal.Decimal(["5.50", "19.00", "7.25"][n % 3]),
                "big": 2**60 + 1 + n % 3,
                "city": ["Zürich", "New York", "Ulm"][n % 3],
                "day": dt.date(2026, 3, 1 + n % 4),
                "moment": at.replace(tzinfo=dt.timezone.utc),
                "amount": None if n == 7 else n / 7,
                "price": n * 1.25,
                "count": None if n % 5 == 0 else n,
                "member": n % 4 == 0,
                "joined": at,
                "born": dt.date(1980, 1 + n % 12, 1 + n % 28),
                "seen": 1_772_323_200 + n,
                "at": at,
                "group": float(n % 17),
            }
        )
    return rows


def texts(row: dict, n: int) -> dict:
    """Return a row as programs write it into a csv file: pandas, PostgreSQL, a spreadsheet."""
    zone = ["+00", "Z", " UTC"][n % 3]
    moment, born = row["moment"], row["born"]
    spelled = {name: "" if value is None else str(value) for name, value in row.items()}
    return spelled | {
        "label": ["True", "TRUE", "true", "False", "FALSE", "false"][3 * (not row["label"]) + n % 2],
        "city": unicodedata.normalize("NFD" if n % 2 else "NFC", row["city"]) + " " * (n % 2),
        "moment": moment.strftime(f"%Y-%m-%d %H:%M:%S{zone}"),
        "price": str(row["price"]).replace(".", ","),
        "member": ["yes", "True", "1.0"][n % 3] if row["member"] else ["no", "False", "0.0"][n % 3],
        "joined": row["joined"].isoformat() + ("+00:00" if n % 2 else ""),
        "born": born.strftime("%d.%m.%Y"),
        "at": row["at"].strftime("%Y-%m-%d %H:%M:%S+00"),
    }


def to_sqlite(value):
    if isinstance(value, bool):  # SQLite has no boolean: it would be the number 1
        return "true" if value else "false"
    return value if isinstance(value, float) else to_json(value)


def to_json(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, decimal.Decimal):
        return str(value)
    return value.isoformat() if isinstance(value, dt.date) else value


def write(source: str, folder: Path, rows: list[dict]) -> dict:
    """Write the rows and return `data.train`."""
    path = folder / f"rows.{source}"
    if source in ("csv", "tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, list(rows[0]), delimiter="," if source == "csv" else "\t")
            out.writeheader()
            out.writerows(texts(row, n) for n, row in enumerate(rows))
        return str(path)
    if source == "jsonl":
        born = {"born": "%d.%m.%Y"}
        lines = [
            {name: value.strftime(born[name]) if name in born else to_json(value) for name, value in row.items()}
            for row in rows
        ]
        path.write_text("\n".join(map(json.dumps, lines)))
        return str(path)
    if source == "sql":
        with closing(sqlite3.connect(folder / "rows.db")) as db:
            db.execute(f"create table t ({', '.join(f'[{name}]' for name in rows[0])})")
            values = [list(map(to_sqlite, row.values())) for row in rows]
            db.executemany(f"insert into t values ({', '.join('?' * len(rows[0]))})", values)
            db.commit()
        return {"url": f"sqlite:///{folder / 'rows.db'}", "query": "select * from t"}
    table = pa.Table.from_pylist(rows)
    if source == "hub":
        import datasets

        datasets.disable_progress_bars()
        datasets.Dataset(table).save_to_disk(folder / "saved")
        return str(folder / "saved")
    if source == "dictionary":
        columns = {
            name: column.combine_chunks().dictionary_encode()
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
        table = pa.table(columns)
        path = path.with_suffix(".arrow")
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=13)
        return str(path)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return str(path)


def prepare(source: str, folder: Path, split: dict):
    folder.mkdir()
    rows = typed_rows()
    data = {"train": write(source, folder, rows), "features": FEATURES, "split": split}
    spec = load_spec(
        {"name": "x", "task": "tabular-classification", "data": data, "storage": str(folder / "store"),
         "model": {"kind": "logistic_regression"}}
    )  # fmt: skip
    return prepare_rows(spec, lambda _: None, folder / "bad.parquet", with_ray=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "split",
    [
        {"by": "time", "column": "at"},
        {"by": "group", "column": "group", "validation": 0.3, "test": 0.3},
        {"by": "content"},
    ],
    ids=str,
)
def test_one_table_in_every_source_is_one_contract_and_the_same_inputs(split, tmp_path):
    prepared = {source: prepare(source, tmp_path / source, split) for source in SOURCES}
    first = prepared["csv"]
    assert first.contract.fitted["labels"] == ["false", "true"]
    for source, other in prepared.items():
        assert other.contract.fitted == first.contract.fitted, source
        assert other.contract.fingerprint == first.contract.fingerprint, source
        for part in ("train", "validation", "test"):
            rows, expected = other.part(part), first.part(part)
            np.testing.assert_array_equal(rows.matrix(), expected.matrix(), err_msg=f"{source} {part}")
            np.testing.assert_array_equal(rows.targets, expected.targets, err_msg=f"{source} {part}")
    if split["by"] == "time":
        check_requests(first)


def check_requests(prepared):
    """A request for each row, with JSON types, with texts and as a golden row, gives the inputs of the file."""
    contract, task = prepared.contract, task_of_contract(prepared.contract)
    encoder = task.encoder(contract, prepared.folder)
    names = list(FEATURES)
    rows = prepared.part("train")
    numbers = [int(prepared.source("train", row).rpartition(" ")[2]) - 1 for row in range(len(rows))]
    typed = typed_rows()
    as_json = [
        {**{name: to_json(typed[n][name]) for name in names}, "rate": float(typed[n]["rate"]),
         "born": typed[n]["born"].strftime("%d.%m.%Y")}
        for n in numbers
    ]  # fmt: skip
    as_text = [{name: texts(typed[n], n)[name] for name in names} for n in numbers]
    columns = {role: rows.raw(role) for role in input_roles(task, contract)}
    golden = json.loads(json.dumps(task.as_request(contract, columns)))
    assert {type(golden[1][name]) for name in ("zone", "flag", "amount", "member")} == {int, bool, float}
    for requests in (as_json, as_text, golden):
        encoded = encoder(task.parse(contract, requests))
        assert encoded.reasons is None and not encoded.unseen
        np.testing.assert_array_equal(np.stack(encoded.inputs), rows.matrix())


# -- labels, tags and texts


def arrow_labels(folder):
    for name, values in {
        "bool": pa.array([True, False]),
        "int": pa.array([3, 4], pa.uint8()),
        "float": pa.array([3.0, 4.0], pa.float32()),
        "decimal": pa.array([decimal.Decimal("3.00"), decimal.Decimal(4)]),
        "bytes": pa.array([b"3", b"4"]),
        "dictionary": pa.array(["3.0", "4"]).dictionary_encode(),
        "large": pa.array([" 3", "4 "], pa.large_string()),
        "view": pa.array(["3", "4"], pa.string_view()),
    }.items():
        pq.write_table(pa.table({"text": ["Zu\u0308rich", "b"], "label": values}), folder / f"{name}.parquet")
    (folder / "csv.csv").write_text("text,label\nZu\u0308rich,3.0\nb, 4\n")
    (folder / "true.csv").write_text("text,label\nZürich,True\nb,FALSE\n")
    (folder / "json.jsonl").write_text('{"text": "Zürich", "label": 3.0}\n{"text": "b", "label": "4"}\n')
    (folder / "true.jsonl").write_text('{"text": "Zürich", "label": true}\n{"text": "b", "label": false}\n')
    return sorted(path for path in folder.iterdir() if path.is_file())


def checked_rows(path, contract, task):
    for file in find_source_files(str(path), "train"):
        for block in read_blocks(file, contract.columns):
            yield check_rows(task, contract, block, Cleaner(contract))


def test_labels_and_texts_have_one_form_in_every_file(tmp_path, tiny_base):
    task = get_task("text-classification")
    spec = load_spec({"name": "a", "data": {"train": "t.csv"}, "model": {"base": str(tiny_base)}})
    contract = task.make_contract(spec, tmp_path)
    (tmp_path / "files").mkdir()
    for path in arrow_labels(tmp_path / "files"):
        [checked] = checked_rows(path, contract, task)
        assert not len(checked.bad), (path, checked.bad.to_pylist())
        assert checked.cleaned["text"].to_pylist() == ["Zürich", "b"], path
        expected = ["true", "false"] if path.stem in ("bool", "true") else ["3", "4"]
        assert checked.good["label"].to_pylist() == expected, path
    for form in ("NFC", "NFD"):
        folder = tmp_path / form / unicodedata.normalize(form, "Rückgabe")
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(unicodedata.normalize(form, "Grüße"))
        [checked] = checked_rows(tmp_path / form, contract, task)
        assert (checked.good["label"].to_pylist(), checked.cleaned["text"].to_pylist()) == (["Rückgabe"], ["Grüße"])
    assert Cleaner(contract).columns({"text": ["Gru\u0308ße"]}, task.text_roles)[0] == {"text": ["Grüße"]}


def test_numbers_of_a_typed_file_to_predict_get_the_sign_of_their_column(tmp_path):
    prepared = prepare("csv", tmp_path / "csv", {"by": "content"})
    options = input_options(task_of_contract(prepared.contract), prepared.contract)
    assert options.decimal_signs == {"feature.price": ","}


def test_values_of_a_database_are_spelled_as_in_a_file(tmp_path):
    with closing(sqlite3.connect(tmp_path / "rows.db")) as db:
        db.execute("create table t (text, label)")
        db.executemany("insert into t values (?, ?)", [("a", 3.0), ("b", 4)])
        db.commit()
    query = QuerySpec(url=f"sqlite:///{tmp_path / 'rows.db'}", query="select * from t")
    [file] = find_source_files(query, "train", snapshots=tmp_path / "snapshots")
    blocks = list(read_blocks(file, {"text": "text", "label": "label"}))
    assert blocks[0]["label"].to_pylist() == ["3", "4"]
