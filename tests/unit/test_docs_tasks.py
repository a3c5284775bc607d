"""docs/tasks.md: its tables say what the tasks say, and its two tasks train and answer as they stand there."""

import csv
import re
import sys
from pathlib import Path

import pytest

import raymill
from cluster.errors import ModelError, RequestError
from support.tiny_text import make_text_rows, tiny_spec, write_csv
from trainer.data.prepare import prepare as preparing
from trainer.inference import golden
from trainer.inference.predictor import Predictor
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.tasks import catalog as task_catalog
from trainer.tasks.resolve import load
from trainer.training.run import run

TEXT = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
CODE = {code.split("\n", 1)[0].removeprefix("# "): code for code in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)}


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    """A working directory with the files that the page shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, code in CODE.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    yield tmp_path
    for name in CODE:
        sys.modules.pop(name.removesuffix(".py"), None)


def trained(spec, folder):
    """Prepare and train in this process; returns the folder of the best checkpoint and its figures."""
    loaded = load(spec)
    task = task_catalog.get_task(loaded.task)
    task.check_spec(loaded)
    prepared = preparing.prepare(loaded, lambda progress: None, folder / "quarantine.parquet")
    epochs = []

    def report(figures, save, state=None):
        epochs.append(figures)
        if save:
            save(folder / "checkpoint")

    run(task, loaded, prepared, WorkerContext(0, 1, "cpu", 1), report, folder)
    return prepared, folder / "checkpoint", epochs


def test_the_table_has_every_task_with_its_columns_and_metric():
    rows = dict(re.findall(r"^\| `([a-z-]+)` \|(.*)\|$", TEXT, re.MULTILINE))
    assert set(rows) == {task["task"] for task in raymill.tasks()}
    for task in raymill.tasks():
        cells = rows[task["task"]]
        assert f"`{task['metric']}`" in cells, task["task"]
        assert all(f"`{role}`" in cells for role in task["columns"]), task["task"]


def test_the_files_of_the_page_are_short():
    assert sorted(CODE) == ["letters.py", "similarity.py"]
    for name, code in CODE.items():
        assert sum(bool(line.strip()) for line in code.splitlines()) < 60, name


def test_a_task_of_parts_that_are_there(tiny_base, working_directory):
    lines = [(text, text.split()[0], number % 6) for number, (text, _) in enumerate(make_text_rows(90, seed=1))]
    with (working_directory / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "text_pair", "alike"), *lines])
    spec = tiny_spec(tiny_base, working_directory, working_directory / "storage", task="similarity:Similarity")
    spec["data"] = {"train": str(working_directory / "train.csv"), "columns": {"value": "alike"}}
    prepared, checkpoint, epochs = trained({**spec, "train": {"epochs": 1}}, working_directory)
    assert set(prepared.contract.columns) == {"text", "text_pair", "value"} and epochs[0]["rmse"] > 0
    (answer,) = Predictor(checkpoint).predict([{"text": "an apple", "text_pair": "a pear"}])
    assert set(answer) == {"value"}
    with pytest.raises(RequestError, match="text_pair"):
        Predictor(checkpoint).predict([{"text": "an apple"}])


def test_a_task_with_inputs_and_a_model_of_its_own(working_directory):
    write_csv(working_directory / "train.csv", make_text_rows(300, seed=1))
    spec = {
        "name": "letters",
        "task": "letters:Letters",
        "data": {"train": str(working_directory / "train.csv"), "steps": ["normalize"]},
        "train": {"epochs": 8, "batch_size": 8, "learning_rate": 0.02},
        "storage": str(working_directory / "storage"),
    }
    prepared, checkpoint, epochs = trained(spec, working_directory)
    assert epochs[-1]["accuracy"] > 0.9
    predictor = Predictor(checkpoint)
    rows = prepared.part("test")
    texts = rows.raw("text")
    inputs = predictor.encode({"text": texts})
    golden.write(
        checkpoint, inputs, predictor.task.as_request(predictor.contract, {"text": texts}), predictor.scores(inputs)
    )
    assert golden.replay(checkpoint, Predictor(checkpoint)) == golden.ROWS
    assert predictor.predict(["my new hammer"])[0]["label"] == "tool"
    # The source is pinned: another one does not answer for this model.
    assert (checkpoint / "task_letters.py").read_text(encoding="utf-8") == CODE["letters.py"]
    (working_directory / "letters.py").write_text(CODE["letters.py"] + "# changed\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"letters\.py is not the source"):
        Predictor(checkpoint)
