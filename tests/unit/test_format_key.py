"""`data.format` and --format: the same keys for init, prepare, streams, predict and evaluate."""

import csv
import io
import json

import pyarrow.parquet as pq
import pytest

import raymill
from cluster.errors import DataError, SpecError
from support.tiny_text import make_text_rows, tiny_spec
from trainer.data.prepare import passes
from trainer.data.prepare.prepare import prepare_rows
from trainer.data.prepare.quarantine import TooManyBadRows
from trainer.data.readers.read_options import read_options_of_spec
from trainer.data.sources.spec_sources import check_sources_exist, count_files_left_out, list_source_files
from trainer.inference.evaluate import read_labeled
from trainer.spec.format_option import read_format
from trainer.tasks.load_spec import load_spec

ROWS = [(f"{text} für Möbel; naïve", label) for text, label in make_text_rows(120, seed=1)]
KEYS = {"encoding": "cp1252", "escape": "\\", "header": ["text", "label"]}


def write_export(path, rows=ROWS):
    """Write rows as cp1252 with escapes and no header, separated by semicolons."""
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=";", quoting=csv.QUOTE_NONE, escapechar="\\", lineterminator="\r\n")
    writer.writerows(rows)
    path.write_bytes(sink.getvalue().encode("cp1252"))
    return path


def prepare(spec, tmp_path):
    return prepare_rows(spec, lambda progress: None, tmp_path / "quarantine.parquet")


@pytest.fixture
def export_spec(tiny_base, tmp_path):
    write_export(tmp_path / "train.csv")
    write_export(tmp_path / "test.csv", [(f"{text} !", label) for text, label in ROWS[:30]])
    spec = tiny_spec(tiny_base, tmp_path, tmp_path / "store")
    return {**spec, "data": {**spec["data"], "format": KEYS}}


def test_prepare_and_streams_read_with_the_keys(export_spec, tmp_path):
    spec = load_spec(export_spec)
    prepared = prepare(spec, tmp_path)
    texts = [*prepared.part("train").raw("text"), *prepared.part("validation").raw("text")]
    assert sorted(texts) == sorted(text for text, _ in ROWS) and len(prepared.part("test")) == 30
    files = list_source_files(spec)
    item = passes.pa.table({"item": [json.dumps([file._asdict() for file in files if file.part == "train"])]})
    options = read_options_of_spec(spec, prepared.contract)
    [(rows, _, _)] = [
        unpacked for packed in passes._ReadFiles(options)(item) for unpacked in passes.unpack_blocks(packed)
    ]
    assert rows["text"].to_pylist() == [text for text, _ in ROWS]
    assert read_labeled(str(tmp_path / "train.csv"), prepared.contract, prepared.folder, read_format(KEYS)).columns[
        "text"
    ] == [text for text, _ in ROWS]


def test_every_source_may_have_its_own_format(export_spec, tmp_path):
    (tmp_path / "test.csv").write_text("label|text\n" + "".join(f"{label}|{text} !\n" for text, label in ROWS[:30]))
    data = {**export_spec["data"], "test": {"path": "test.csv", "format": "csv"}}
    data["train"] = [{"path": "train.csv", "format": KEYS}]
    data.pop("format")
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps({**export_spec, "data": data}))
    spec = load_spec(path)
    check_sources_exist(spec)
    assert len(prepare(spec, tmp_path).part("test")) == 30
    assert load_spec(spec).data == spec.data
    for data, message in [
        ({"train": {"path": "train.csv"}}, "data.train.format"),
        ({"train": [{"path": "train.csv", "format": "cvs"}]}, "data.train.0.format"),
        ({"train": "train.csv", "format": {"separatr": ";"}}, "did you mean 'data.format.separator'|separator"),
        ({"train": "train.csv", "format": {"kind": "parquet", "quote": "none"}}, "does not use quote"),
    ]:
        with pytest.raises(SpecError, match=message):
            load_spec({**export_spec, "data": data})


def test_without_the_keys_the_message_names_the_bytes(export_spec, tmp_path):
    write_export(tmp_path / "train.csv", [("text", "label"), *((text.replace(";", ""), label) for text, label in ROWS)])
    data = {key: value for key, value in export_spec["data"].items() if key != "format"}
    with pytest.raises(
        TooManyBadRows, match=r"invalid UTF-8.*line 2, byte \d+, in b'.*\\xfcr.* in cp1252 reads .*für"
    ) as caught:
        prepare(load_spec({**export_spec, "data": {"train": data["train"]}}), tmp_path)
    assert "set `data.format: {encoding: cp1252}`" in caught.value.fix
    write_export(
        tmp_path / "train.csv",
        [("text", "label"), *((text.split(" für")[0], label) for text, label in ROWS), ("a;b", "x")],
    )
    with pytest.raises(TooManyBadRows, match=r"wrong number of cells.*row 121 of .*train.csv: 'a\\\\;b;x'"):
        prepare(load_spec({**export_spec, "data": {"train": data["train"], "max_bad_fraction": 0}}), tmp_path)


@pytest.mark.slow
def test_init_reads_the_files_as_they_are(tiny_base, tmp_path):
    path = write_export(tmp_path / "export.csv")
    with pytest.raises(DataError, match=r"is not UTF-8: line 1, byte \d+, in b.*which in cp1252 reads"):
        raymill.init(path)
    draft = raymill.init(path, base=str(tiny_base), format=["encoding=cp1252", "escape=\\", "header=text,label"])
    assert draft.spec.data.format == read_format(KEYS) and draft.spec.task == "text-classification"
    assert "its cells are separated by ';' and its text is CP1252" in draft.assumed[0]
    folder = tmp_path / "exp [v2]"
    for number, (text, label) in enumerate(ROWS):
        part = folder / f"label={label}" / f"{number:03d}.csv"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(f"text\tn\r\n{text}\t{number}\r\n".encode("utf-16"))
    (folder / "_SUCCESS").touch()
    draft = raymill.init(folder, base=str(tiny_base))
    assert draft.spec.data.train == str(folder) and draft.spec.data.format == read_format("auto")
    assert "Files without rows are left out (1 no extension)." in draft.assumed
    prepared = prepare(draft.spec.model_copy(update={"storage": str(tmp_path / "store")}), tmp_path)
    assert prepared.summary["rows_in_all"] == len(ROWS)
    assert prepared.summary["files_left_out"] == {"no extension": {"files": 1, "examples": [str(folder / "_SUCCESS")]}}


def test_files_left_out_are_counted_when_rows_are_found_again(tiny_base, tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    spec = load_spec({**tiny_spec(tiny_base, tmp_path, tmp_path / "store"), "data": {"train": str(rows)}})
    assert prepare(spec, tmp_path).summary["files_left_out"] == {}
    (rows / "notes.md").write_text("new")
    again = prepare(spec, tmp_path)
    assert again.summary["files_left_out"] == count_files_left_out(spec) != {}
    assert (
        not (tmp_path / "quarantine.parquet").exists()
        or pq.read_metadata(tmp_path / "quarantine.parquet").num_rows == 0
    )
