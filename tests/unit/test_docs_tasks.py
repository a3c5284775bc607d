"""The pages about tasks: their tables agree with the tasks, and the two example tasks train and answer as printed."""

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
from trainer.tasks import Task
from trainer.tasks import catalog as task_catalog
from trainer.tasks.load_spec import load_spec
from trainer.tasks.model_options import ModelOptions
from trainer.tasks.reporting import Reporting
from trainer.tasks.request_options import RequestOptions
from trainer.tasks.row_options import RowOptions
from trainer.training.callbacks import FunctionCallback
from trainer.training.context import TrainContext
from trainer.training.run import run_training

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "how-to" / "write-a-task.md").read_text(encoding="utf-8")
API = (DOCS / "reference" / "task-api.md").read_text(encoding="utf-8")
TASKS = (DOCS / "reference" / "tasks.md").read_text(encoding="utf-8")
CODE = {
    code.split("\n", 1)[0].removeprefix("# "): code for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
}


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


def train_task(spec, folder):
    """Prepare and train in this process. Return prepared rows, the best checkpoint's folder, and the epochs' metrics."""
    loaded = load_spec(spec)
    task = task_catalog.get_task(loaded.task)
    task.check_spec(loaded)
    prepared = preparing.prepare_rows(loaded, lambda progress: None, folder / "quarantine.parquet")
    epochs = []

    def report(metrics, save):
        epochs.append(metrics)
        if save:
            save(folder / "checkpoint")

    worker = WorkerContext(0, 1, "cpu", 1)
    run_training(TrainContext(task, loaded, prepared, worker, FunctionCallback(report), folder))
    return prepared, folder / "checkpoint", epochs


def test_the_table_has_every_task_with_its_columns_and_metric():
    rows = dict(re.findall(r"^\| \[`([a-z-]+)`\]\(#[a-z-]+\) \|(.*)\|$", TASKS, re.MULTILINE))
    assert set(rows) == {task["task"] for task in raymill.tasks()}
    for task in raymill.tasks():
        cells = rows[task["task"]]
        assert f"`{task['metric']}`" in cells, task["task"]
        assert all(f"`{role}`" in cells for role in task["columns"]), task["task"]


def names_in(lines):
    """Return the names in backquotes, without files."""
    return {name for line in lines for name in re.findall(r"`([a-z_]+)`", line)}


def public_names(cls):
    return {name for name in vars(cls) if not name.startswith("_")}


def test_the_page_and_the_base_class_list_what_must_be_written():
    table = API[API.index("| must be written |") : API.index("| may be overridden |")]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    assert names_in(first_cells) == {*Task.__abstractmethods__, "roles", "target"}
    assert {*Task.__annotations__} == {"name", "roles", "target"}
    assert public_names(Task) == {*Task.__abstractmethods__, "forward"}


@pytest.mark.parametrize("options", [RowOptions, RequestOptions, ModelOptions, Reporting])
def test_the_page_and_the_docstring_list_what_may_be_overridden(options):
    file = f"{options.__module__.rpartition('.')[2]}.py"
    (row,) = (line for line in API.splitlines() if line.startswith("|") and f"`{file}`" in line)
    assert names_in([row]) == public_names(options)
    entry = (
        Task.__doc__[Task.__doc__.index(f"`{options.__name__}` ({file}): ") :].partition(": ")[2].split("\n    - ")[0]
    )
    assert {*re.findall(r"[a-z_]+", entry)} == public_names(options)


def test_the_files_of_the_page_are_short():
    assert sorted(CODE) == ["letters.py", "similarity.py"]
    for name, code in CODE.items():
        assert sum(bool(line.strip()) for line in code.splitlines()) < 60, name


def test_the_task_of_existing_parts(tiny_base, working_directory):
    lines = [(text, text.split()[0], number % 6) for number, (text, _) in enumerate(make_text_rows(90, seed=1))]
    with (working_directory / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "text_pair", "alike"), *lines])
    spec = tiny_spec(tiny_base, working_directory, working_directory / "storage", task="similarity:Similarity")
    spec["data"] = {"train": str(working_directory / "train.csv"), "columns": {"value": "alike"}}
    prepared, checkpoint, epochs = train_task({**spec, "train": {"epochs": 1}}, working_directory)
    assert set(prepared.contract.columns) == {"text", "text_pair", "value"} and epochs[0]["rmse"] > 0
    (answer,) = Predictor(checkpoint).predict([{"text": "an apple", "text_pair": "a pear"}])
    assert set(answer) == {"value"}
    with pytest.raises(RequestError, match="text_pair"):
        Predictor(checkpoint).predict([{"text": "an apple"}])


@pytest.mark.slow
def test_the_task_with_its_own_inputs_and_model(working_directory):
    write_csv(working_directory / "train.csv", make_text_rows(300, seed=1))
    spec = {
        "name": "letters",
        "task": "letters:Letters",
        "data": {"train": str(working_directory / "train.csv"), "steps": ["normalize"]},
        "train": {"epochs": 8, "batch_size": 8, "learning_rate": 0.02},
        "storage": str(working_directory / "storage"),
    }
    prepared, checkpoint, epochs = train_task(spec, working_directory)
    assert epochs[-1]["accuracy"] > 0.9
    predictor = Predictor(checkpoint)
    rows = prepared.part("test")
    texts = rows.raw("text")
    inputs = predictor.encode({"text": texts})
    golden.write_golden(
        checkpoint, inputs, predictor.task.as_request(predictor.contract, {"text": texts}), predictor.scores(inputs)
    )
    assert golden.verify_golden(checkpoint, Predictor(checkpoint)) == golden.MAX_ROWS
    assert predictor.predict(["my new hammer"])[0]["label"] == "tool"
    # The source is pinned: a changed one is refused for this model.
    assert (checkpoint / "task_letters.py").read_text(encoding="utf-8") == CODE["letters.py"]
    (working_directory / "letters.py").write_text(CODE["letters.py"] + "# changed\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"letters\.py is not the source"):
        Predictor(checkpoint)
