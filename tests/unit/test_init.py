"""`raymill.init`: kinds of sources and targets, refusals, and what it says."""

import datetime as dt
import decimal
import io
import itertools
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import raymill
from cluster.errors import DataError, SpecError
from support.odd_table import make_odd_rows
from support.tiny_table import make_table_rows, write_rows
from support.tiny_text import make_text_rows
from trainer.tasks.load_spec import load_spec


def text_table(count=120):
    return [{"message": text, "intent": label} for text, label in make_text_rows(count, seed=1)]


def tag_table():
    rows = text_table()
    return [
        {"text": row["message"], "tags": row["intent"] + ("|urgent" if i % 4 else "")} for i, row in enumerate(rows)
    ]


def pair_table():
    rows = text_table()
    pairs = itertools.pairwise(rows)
    return [
        {"first": a["message"], "second": b["message"], "answer": ["no", "yes"][i % 2]}
        for i, (a, b) in enumerate(pairs)
    ]


def number_table():
    return [{**row, "stars": f"{i % 50 / 10}"} for i, row in enumerate(text_table())]


#: Rows -> the task that fits them, and the column to predict.
TABLES = {
    "classes of texts": (text_table, "text-classification", "intent"),
    "tags of texts": (tag_table, "text-multi-label", "tags"),
    "pairs of texts": (pair_table, "text-pair-classification", "answer"),
    "numbers of texts": (
        lambda: [{"text": row["message"], "stars": row["stars"]} for row in number_table()],
        "text-regression",
        "stars",
    ),
    "classes of rows": (
        lambda: [{k: v for k, v in row.items() if k != "spent"} for row in make_table_rows(120, seed=1)],
        "tabular-classification",
        "label",
    ),
    "numbers of rows": (
        lambda: [{k: v for k, v in row.items() if k != "label"} for row in make_table_rows(120, seed=1)],
        "tabular-regression",
        "spent",
    ),
}


def write_table(folder, rows, ending, stem="rows"):
    """Write rows as a csv, tsv, jsonl, parquet or arrow file."""
    path = folder / f"{stem}.{ending}"
    if ending == "csv":
        write_rows(path, rows)
    elif ending == "tsv":
        lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "arrow"])
@pytest.mark.parametrize("name", TABLES)
def test_every_format_and_kind_of_table_gets_a_spec_that_loads(tmp_path, tiny_base, name, ending):
    make_rows, task, target = TABLES[name]
    data = write_table(tmp_path, make_rows(), ending)
    base = None if task.startswith("tabular") else str(tiny_base)
    draft = raymill.init(data, tmp_path / "run.yaml", base=base)
    spec = load_spec(tmp_path / "run.yaml")
    assert (spec.task, spec.data.train) == (task, str(data))
    assert spec.model_dump() == draft.spec.model_dump()
    assert draft.text == (tmp_path / "run.yaml").read_text(encoding="utf-8")
    assert {column["name"]: column["used_as"] for column in draft.columns}[target] in ("label", "labels", "value")
    assert yaml.safe_load(draft.text)["data"]["train"] == data.name  # relative to the spec's folder


def test_columns_of_all_kinds_become_features(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "spent"} for row in make_table_rows(200, seed=1)]
    features = raymill.init(write_table(tmp_path, rows, "csv")).spec.data.features
    assert {name: rules.kind for name, rules in features.items()} == {
        "age": "numeric",
        "income": "numeric",
        "country": "categorical",
        "shop": "categorical",
        "joined": "date",
        "member": "boolean",
    }


def test_odd_columns_are_read_or_left_out_with_a_reason(tmp_path):
    draft = raymill.init(write_table(tmp_path, make_odd_rows(300), "csv"))
    assert {column["name"]: column["used_as"] for column in draft.columns} == {
        "customer_id": "left out",
        "region": "left out",
        "joined": "date",
        "remark": "left out",
        "total": "numeric",
        "weight": "numeric",
        "visits": "numeric",
        "plan": "categorical",
        "churned": "label",
    }
    features = draft.spec.data.features
    assert features["joined"].format == "%d.%m.%Y"
    assert features["total"].remove == ["$", ","] and features["weight"].remove == ["kg"]
    assert features["visits"].remove == [","] and "unknown" in features["visits"].missing_words
    for reason in ("it identifies a row", "it is constant", "cannot read free text"):
        assert f"is left out: {reason}" in draft.text or reason in draft.text
    problems = " ".join(str(doubt) for doubt in draft.unsure)
    assert (
        "'remark' is left out" in problems and "'unknown' in" in problems and "--task text-classification" in problems
    )


def test_the_user_overrules_target_and_task(tmp_path, tiny_base):
    data = write_table(tmp_path, number_table(), "csv")
    guess = raymill.init(data, base=str(tiny_base))
    assert guess.spec.task == "text-classification" and "--target stars" in " ".join(map(str, guess.unsure))
    chosen = raymill.init(data, target="stars", base=str(tiny_base))
    assert chosen.spec.task == "text-regression" and chosen.spec.data.columns == {"text": "message", "value": "stars"}
    table = raymill.init(data, target="stars", task="tabular-regression")
    assert list(table.spec.data.features) == ["intent"]
    with pytest.raises(DataError, match="no such column"):
        raymill.init(data, target="star")
    with pytest.raises(DataError, match="predicts a number"):
        raymill.init(data, task="text-regression", target="intent")
    with pytest.raises(DataError, match="needs the first text, the second text"):
        raymill.init(data, task="text-pair-classification", target="intent")
    with pytest.raises(SpecError, match="is not a known task"):
        raymill.init(data, task="text-classifcation")
    with pytest.raises(SpecError, match="has none"):
        raymill.init(data, target="stars", task="tabular-regression", base="org/name")


def test_an_existing_file_is_not_overwritten_without_force(tmp_path, tiny_base):
    data, output = write_table(tmp_path, text_table(), "csv"), tmp_path / "run.yaml"
    output.write_text("mine", encoding="utf-8")
    with pytest.raises(SpecError, match="exists already") as caught:
        raymill.init(data, output, base=str(tiny_base))
    assert "--force" in caught.value.fix and output.read_text(encoding="utf-8") == "mine"
    raymill.init(data, output, base=str(tiny_base), force=True)
    assert load_spec(output).task == "text-classification"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_siblings_become_parts_if_they_can(tmp_path, tiny_base):
    rows = text_table()
    data = write_table(tmp_path, rows, "csv", "intents_train")
    write_table(tmp_path, text_table(60)[30:], "csv", "intents_valid")
    write_table(tmp_path, [{**row, "intent": ""} for row in rows], "csv", "intents_test")
    write_table(tmp_path, rows, "csv", "other_test")
    for source in (data, [tmp_path / f"intents_{part}.csv" for part in ("train", "valid")]):
        draft = raymill.init(source, tmp_path / "run.yaml", base=str(tiny_base), force=True)
        assert draft.spec.data.validation == str(tmp_path / "intents_valid.csv")
        assert draft.spec.data.test is None and draft.spec.name == "intents"
    assert "intents_test.csv does not become the test rows" in str(raymill.init(data, base=str(tiny_base)).unsure[0])
    with pytest.raises(DataError, match="several data sets"):
        raymill.init(tmp_path)


def test_a_glob_and_several_files_are_one_part(tmp_path, tiny_base, monkeypatch):
    for number in range(3):
        write_table(tmp_path, text_table()[number::3], "jsonl", f"day{number}")
    monkeypatch.chdir(tmp_path)
    assert yaml.safe_load(raymill.init("*.jsonl", base=str(tiny_base)).text)["data"]["train"] == "*.jsonl"
    names = [f"day{number}.jsonl" for number in range(3)]
    assert yaml.safe_load(raymill.init(names, base=str(tiny_base)).text)["data"]["train"] == names
    write_table(tmp_path, [{"message": "a", "other": "b"}], "jsonl", "day0")
    with pytest.raises(DataError, match="no column"):
        raymill.init(names)


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("kind", ["images", "texts"])
def test_folders_with_a_subfolder_for_each_class(tmp_path, tiny_base, kind, in_parts):
    data = tmp_path / "garden" / "flowers"
    for part in ("train", "test") if in_parts else ("",):
        for label in ("daisy", "rose"):
            folder = data / part / label
            folder.mkdir(parents=True)
            for number in range(12):
                if kind == "texts":
                    (folder / f"{number}.txt").write_text(f"{part} a text about a {label} {number}")
                else:
                    shade = (number * 20, 255 - number * 10, len(part) + ord(label[0]))
                    Image.new("RGB", (24, 20), shade).save(folder / f"{number}.png")
    base = str(tiny_base) if kind == "texts" else None
    draft = raymill.init(data.parent, tmp_path / "run.yaml", base=base)
    assert raymill.init(data, tmp_path / "same.yaml", base=base).spec.data.train == draft.spec.data.train
    spec = load_spec(tmp_path / "run.yaml")
    assert spec.task == {"images": "image-classification", "texts": "text-classification"}[kind]
    assert spec.data.test == (str(data / "test") if in_parts else None)
    assert spec.name == "flowers" and not spec.data.columns
    if kind == "images":
        assert spec.data.image.size == 24 and spec.data.image.mode == "rgb" and spec.model.config
        assert "name a pre-trained model with --base" in " ".join(draft.assumed)


def test_paths_of_images_in_a_table(tmp_path):
    rows = []
    for number in range(40):
        Image.new("L", (16, 16), number * 5).save(tmp_path / f"{number}.png")
        rows.append({"file": f"{number}.png", "label": ["even", "odd"][number % 2]})
    spec = raymill.init(write_table(tmp_path, rows, "csv")).spec
    assert spec.task == "image-classification" and spec.data.columns == {"image": "file", "label": "label"}
    assert spec.data.image.mode == "gray"


def test_no_spec_can_be_written(tmp_path):
    (tmp_path / "empty").mkdir()
    poems = tmp_path.with_name("poems_of_no_class")
    poems.mkdir()
    (poems / "poem.txt").write_text("a line\n" * 10)
    cases = {
        poems: "plain text without labels",
        tmp_path: "prices.csv",
        tmp_path / "empty": "without rows that raymill reads",
        tmp_path / "nothing.csv": "no such file",
        write_table(
            tmp_path, [{"text": f"only a text number {i}", "id": str(i)} for i in range(30)], "csv", "texts"
        ): "can be predicted",
        write_table(tmp_path, [{"p": f"${i}.50", "n": "a"} for i in range(30)], "csv", "prices"): "can be predicted",
        write_table(tmp_path, [{"id": str(i), "label": "ab"[i % 2]} for i in range(30)], "csv", "ids"): "no task fits",
    }
    for data, message in cases.items():
        with pytest.raises(DataError, match=message) as caught:
            raymill.init(data)
        assert caught.value.fix
    with pytest.raises(DataError, match="init looks only at files"):
        raymill.init("hf://imdb")


def test_typed_columns_of_parquet(tmp_path):
    count = 90
    buffer = io.BytesIO()
    Image.new("RGB", (100, 80)).save(buffer, "PNG")
    table = pa.table(
        {
            "when": [dt.datetime(2024, 1, 1) + dt.timedelta(hours=i) for i in range(count)],
            "amount": [decimal.Decimal(f"{i}.25") for i in range(count)],
            "nested": [{"a": i} for i in range(count)],
            "words": [["x", "y"][: 1 + i % 2] for i in range(count)],
            "color": pa.array(["red", "blue"] * (count // 2)).dictionary_encode(),
            "blob": [b"not an image"] * count,
            "ok": [bool(i % 3) for i in range(count)],
            "label": [float(i % 3) for i in range(count)],
        }
    )
    pq.write_table(table, tmp_path / "typed.parquet")
    draft = raymill.init(tmp_path / "typed.parquet")
    kinds = {name: rules.kind for name, rules in draft.spec.data.features.items()}
    assert kinds == {"when": "date", "amount": "numeric", "color": "categorical", "ok": "boolean"}
    assert draft.spec.task == "tabular-regression" and "which cannot be classes" in " ".join(map(str, draft.unsure))
    pictures = pa.table({"picture": [buffer.getvalue()] * count, "label": ["a", "b", "c"] * (count // 3)})
    pq.write_table(
        pictures.set_column(0, "picture", pa.array([buffer.getvalue()] * count)), tmp_path / "pictures.parquet"
    )
    with pytest.raises(DataError, match="cannot be used"):  # they are all equal
        raymill.init(tmp_path / "pictures.parquet")
    with pytest.raises(DataError, match="predicts a class"):
        raymill.init(tmp_path / "typed.parquet", target="words", task="tabular-classification")


def test_lists_of_tags_in_jsonl(tmp_path, tiny_base):
    rows = [{"text": f"hello number {i} of all", "tags": ["a", "b"][: i % 3], "extra": {"n": i}} for i in range(60)]
    draft = raymill.init(write_table(tmp_path, rows, "jsonl"), base=str(tiny_base))
    assert (
        draft.spec.task == "text-multi-label"
        and {"name": "extra", "used_as": "left out"}.items() <= draft.columns[2].items()
    )


def test_files_that_are_damaged_or_need_another_form(tmp_path):
    torn = tmp_path / "torn.csv"
    torn.write_text("x,label\n" + "".join(f"{i}.5,{'ab'[i % 2]}{',z' * (i % 10 == 0)}\n" for i in range(100)))
    draft = raymill.init(torn)
    assert "10 of 100 train rows (10.0%) cannot be used: wrong number of cells" in str(draft.unsure[0])
    assert draft.spec.data.features["x"].remove == []
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"city,label\n" + b"".join(b"K\xf6ln,%d\n" % (i % 2) for i in range(50)))
    with pytest.raises(DataError, match="invalid UTF-8"):
        raymill.init(latin)
    prices = write_table(tmp_path, [{"size": f"{i}", "price": f"${i},000"} for i in range(100, 160)], "csv", "prices")
    with pytest.raises(DataError, match="'price' seems to be the column to predict") as caught:
        raymill.init(prices)
    assert "without other signs" in caught.value.fix
    odd_name = write_table(tmp_path, [{"x": f"{i}.5", "${NOPE}": "ab"[i % 2]} for i in range(60)], "csv", "names")
    with pytest.raises(SpecError, match="environment variable"):
        raymill.init(odd_name)


@pytest.mark.slow
def test_it_loads_no_torch_and_no_ray(tmp_path):
    data = write_table(tmp_path, make_odd_rows(50), "csv")
    code = (
        f"import sys, raymill; raymill.init({str(data)!r}); "
        "loaded = [name for name in ('torch', 'ray', 'transformers') if name in sys.modules]; assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=raymill.__path__[0] + "/..")
