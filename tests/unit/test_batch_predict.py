"""Batch prediction: how the reader and the actor handle blocks, without Ray."""

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainer.data.sources import source_files
from trainer.inference import batch_predict
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog
from trainer.tasks.fitting import fit_target

RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}


def picture(seed):
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9), dtype=np.uint8)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the contract and the folder of an untrained image model."""
    folder = tmp_path_factory.mktemp("model")
    spec = RunSpec.model_validate(
        {"name": "x", "task": "image-classification", "data": {"train": "pictures", "image": {"size": 32}},
         "model": {"config": RESNET}}
    )  # fmt: skip
    task = task_catalog.get_task("image-classification")
    contract = fit_target(task, task.make_contract(spec, folder), {"cat": 2, "dog": 3})
    task.save_model(task.new_model(contract, spec), contract, folder)
    contract.save(folder)
    return contract, folder


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_files_of_different_kinds_have_the_same_columns(model, tmp_path, ending):
    contract, folder = model
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(picture(1))
    pq.write_table(pa.table({"image": [picture(seed) for seed in range(300)]}), tmp_path / "bytes.parquet")
    (tmp_path / "paths.csv").write_text("image\npictures/a.png\nnone.png\n")
    inputs = [str(tmp_path / name) for name in ("bytes.parquet", "pictures", "paths.csv")]
    files = source_files.find_source_files(inputs, "input")
    task = task_catalog.task_of_contract(contract)
    read = batch_predict._ReadBlocks(
        batch_predict.input_options(task, contract), batch_predict._may_have_paths(task, files)
    )
    blocks = [block for file in files for block in read(pa.table({"item": [json.dumps([file._asdict()])]}))]
    assert len({tuple(block.column_names) for block in blocks}) == 1
    predict = batch_predict._PredictBlocks(str(folder), 1, None)
    answers = list(predict(pa.concat_tables(blocks)))
    assert [len(part) for part in answers] == [256, 47]  # few images at a time, whatever the size of Ray Data's blocks
    output = tmp_path / f"out.{ending}"
    with batch_predict._OutputWriter(output, ending) as write:
        for part in [*answers, *predict(blocks[0])]:
            write(part)
    rows = rows_of(output)
    assert len(rows) == 303 + 256
    assert all(list(row) == ["row", "path", "prediction", "score", "error"] for row in rows)
    assert [row["path"] or None for row in rows[299:304]] == [
        None, str(tmp_path / "pictures/a.png"), str(tmp_path / "pictures/a.png"), str(tmp_path / "none.png"), None,
    ]  # fmt: skip
    assert rows[302]["error"].startswith("no file") and rows[300]["prediction"] in ("cat", "dog")


def test_a_column_called_path_is_renamed():
    assert (
        batch_predict._unused_name("path", {"row", "path"}) == "input_path"
        and batch_predict._unused_name("path", {"row"}) == "path"
    )


def rows_of(output):
    if output.suffix == ".parquet":
        return pq.read_table(output).to_pylist()
    with output.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file)) if output.suffix == ".csv" else [json.loads(line) for line in file]
