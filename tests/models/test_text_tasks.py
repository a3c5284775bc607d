"""Pairs, numbers, tags and a user's own task: from rows to answers, without Ray."""

import json
import sys

import numpy as np
import pytest

from cluster.errors import ModelError, RequestError, SpecError
from support.tiny_text import WORDS, make_text_rows
from trainer.data.prepare.prepare import prepare_rows
from trainer.inference import evaluate, golden, held_out, scoring
from trainer.inference.predictor import Predictor
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.pipeline.run import check_references
from trainer.registry import register
from trainer.tasks import catalog as task_catalog
from trainer.tasks.load_spec import load_spec
from trainer.training.callbacks import FunctionCallback
from trainer.training.context import TrainContext
from trainer.training.run import run_training

TRAIN = {"epochs": 8, "batch_size": 8, "learning_rate": 3e-3}


def rows_with(make, count=160, seed=1):
    """Return rows of the tiny data, each made by `make(text, label, number)`."""
    return [make(text, label, number) for number, (text, label) in enumerate(make_text_rows(count, seed))]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def train(base, folder, rows, *, train=TRAIN, **spec):
    """Return the spec, prepared rows and a checkpoint folder after a training in this process."""
    data = {"train": write_jsonl(folder / "rows.jsonl", rows), "max_bad_fraction": 0.1, **spec.pop("data", {})}
    model = {"base": str(base)}
    raw = {"name": "t", "data": data, "model": model, "train": train, "storage": str(folder / "storage"), **spec}
    loaded = load_spec(raw)
    check_references(loaded)
    prepared = prepare_rows(loaded, lambda progress: None, folder / "quarantine.parquet")
    saved = []

    def report(metrics, save):
        if save is not None:
            target = folder / f"checkpoint_{len(saved)}"
            save(target)
            saved.append((metrics, target))

    task, worker = task_catalog.get_task(loaded.task), WorkerContext(0, 1, "cpu", 1)
    run_training(TrainContext(task, loaded, prepared, worker, FunctionCallback(report), folder))
    return loaded, prepared, *saved[-1]


def evaluate_and_replay(spec, prepared, checkpoint):
    """Return the evaluation on the held-out rows, after the golden rows were written and replayed."""
    rows = held_out.load_held_out(prepared)
    scores = scoring.score_locally(str(checkpoint), rows.columns, 1, False, scoring.ScoringOptions(16))
    evaluation = evaluate.compute_evaluation(prepared.contract, rows, scores, n_bins=5, n_mistakes=3)
    register._write_golden_rows(checkpoint, Predictor(checkpoint), evaluation.scores, rows.columns)
    assert golden.verify_golden(checkpoint, Predictor(checkpoint)) == golden.MAX_ROWS
    profile = register._build_profile(checkpoint, Predictor(checkpoint), prepared)
    json.dumps(profile, allow_nan=False)
    return evaluation


def pair(text, label, number):
    other = WORDS[label if number % 2 else sorted(WORDS)[(sorted(WORDS).index(label) + 1) % 3]]
    return {"text": text, "text_pair": f"one {other[number % 10]}", "label": "same" if number % 2 else "other"}


def test_pairs(tiny_base, tmp_path):
    spec, prepared, figures, folder = train(
        tiny_base, tmp_path, rows_with(pair, 320), task="text-pair-classification", train={**TRAIN, "epochs": 10}
    )
    assert prepared.contract.step_params("tokenize")["second_after"] is not None
    evaluation = evaluate_and_replay(spec, prepared, folder)
    assert np.isfinite(evaluation.metrics["log_loss"]) and figures["macro_f1"] > 0.4
    predictor = Predictor(folder)
    answers = predictor.predict([{"text": "a good hammer", "text_pair": "one saw"}])
    assert set(answers[0]["scores"]) == {"same", "other"}
    for wrong, message in [
        ("a text", r"inputs\[0\] is a text; each input must be \{\"text\": \"...\", \"text_pair\": \"...\"\}"),
        ({"text": "a"}, r"inputs\[0\] has no 'text_pair'"),
        ({"text": "a", "text_pair": 3}, r"inputs\[0\].text_pair is a number"),
        ({"text": "a", "text_pair": " "}, r"inputs\[0\].text_pair is empty"),
        ({"text": "a", "text_pair": "b", "text_pear": "c"}, "did you mean 'text_pair'"),
    ]:
        with pytest.raises(RequestError, match=message):
            predictor.predict([wrong])


def test_a_pair_is_encoded_as_the_library_does(tiny_base, tmp_path):
    """Ids and segment numbers agree, also if a text spells the separator or is truncated."""
    import torch
    from transformers import AutoTokenizer

    task = task_catalog.get_task("text-pair-classification")
    data = {"train": "t.csv", "max_length": 12}
    spec = load_spec({"name": "a", "task": task.name, "data": data, "model": {"base": str(tiny_base)}})
    contract = task.make_contract(spec, tmp_path)
    columns = {
        "text": ["i want a saw", "tell [SEP] me", "for my home and my home and my home", "dog"],
        "text_pair": ["one hammer", "a [CLS] cat", "i really want a good new one here now", "a dog please"],
    }
    inputs = task.encoder(contract, tmp_path)(columns).inputs
    batch = task.collate(contract, inputs)
    library = AutoTokenizer.from_pretrained(tiny_base)
    theirs = library(
        columns["text"], columns["text_pair"], truncation=True, max_length=12, split_special_tokens=True,
        padding=True, return_tensors="pt", return_token_type_ids=True,
    )  # fmt: skip
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(batch[name], theirs[name]), name
    assert task.check_against_library(contract, tmp_path, columns, inputs).startswith("the same ids")


def test_numbers(tiny_base, tmp_path):
    size = {"fruit": 10, "tool": 20.5, "animal": -3}
    rows = rows_with(lambda text, label, number: {"text": text, "stars": size[label]}, 240)
    rows[5]["stars"], rows[6]["stars"], rows[7]["stars"] = "many", None, True
    spec, prepared, figures, folder = train(
        tiny_base, tmp_path, rows, task="text-regression", data={"columns": {"value": "stars"}}
    )
    assert spec.evaluate.metric == "rmse" and spec.evaluate.mode == "min"
    assert sum(prepared.summary["quarantined"].values()) == 3
    evaluation = evaluate_and_replay(spec, prepared, folder)
    assert evaluation.metrics["rmse"] < 5 and evaluation.metrics["r2"] > 0.5
    assert figures["train_loss"] < 60  # in the units of the target, squared
    (answer,) = Predictor(folder).predict(["a good hammer and a saw"])
    assert answer["value"] == pytest.approx(20.5, abs=5)


def test_tags(tiny_base, tmp_path):
    def tagged(text, label, number):
        both = f"{text} cat" if number % 4 == 0 else text
        tags = sorted({label, "animal"}) if number % 4 == 0 else [label]
        tags = [] if number % 10 == 3 else tags
        text = f"so it is here now {number}" if not tags else both
        return {"text": text, "labels": tags if number % 2 else "|".join(tags)}

    spec, prepared, _, folder = train(tiny_base, tmp_path, rows_with(tagged, 240), task="text-multi-label")
    assert prepared.summary["quarantined"] == {} and prepared.contract.fitted["labels"] == sorted(WORDS)
    assert prepared.part("train").targets.shape[1] == 3
    evaluation = evaluate_and_replay(spec, prepared, folder)
    assert evaluation.metrics["micro_f1"] > 0.8
    (answer,) = Predictor(folder).predict(["a good hammer and a saw"])
    assert answer["labels"] == ["tool"] and set(answer["scores"]) == set(WORDS)


@pytest.mark.parametrize(
    ("task", "section", "message"),
    [
        ("text-regression", {"evaluate": {"metric": "macro_f1"}}, "macro_f1 is not computed for text-regression"),
        ("text-classification", {"evaluate": {"metric": "rmse"}}, "rmse is not computed for text-classification"),
        ("text-multi-label", {"data": {"train": "t", "steps": ["balance"]}}, "balance needs classes"),
        ("text-regression", {"data": {"train": "t", "split": {"stratify": True}}}, "split.stratify needs classes"),
        ("text-regression", {"data": {"train": "t", "labels": ["1", "2"]}}, "data.labels lists classes or tags"),
        (
            "text-classification",
            {"train": {"folds": 5}},
            "train.folds is set, but text-classification does not use it",
        ),
        ("text-classification", {"data": {"train": "t", "tag_separator": ","}}, "data.tag_separator is set"),
        ("tabular-classification", {"data": {"train": "t", "image": {"size": 8}}}, "data.image is set"),
        (
            "text-classification",
            {"tune": {"space": {"model.params.max_depth": {"randint": [2, 5]}}}},
            "tune.space searches model.params",
        ),
        ("text-clasification", {}, "did you mean 'text-classification'"),
        ("no_such_module:Task", {}, "there is no module 'no_such_module'"),
        ("os:system", {}, "task: os:system is a part of Python"),
        ("trainer.tasks.text.base:TextTask", {}, "is a part of raymill"),
    ],
)
def test_what_a_task_cannot_do(task, section, message):
    with pytest.raises(SpecError, match=message):
        load_spec({"name": "a", "task": task, "data": {"train": "t"}, "model": {"base": "b"}, **section})


OWN = '''
from trainer.targets.numbers import Numbers
from trainer.tasks.text import TextTask


class Length(TextTask):
    """Texts to a number, a tenth of what is in the column."""

    roles = {"text": "a text", "value": "its number"}
    target_role = "value"
    target = Numbers()

    def example(self, contract):
        return "one of mine"
'''


@pytest.fixture
def own_task(tmp_path, monkeypatch):
    """A module with a task in the working directory, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_tasks.py").write_text(OWN)
    yield tmp_path / "my_tasks.py"
    sys.modules.pop("my_tasks", None)


def test_a_task_from_outside_the_package(tiny_base, tmp_path, own_task):
    size = {"fruit": 1, "tool": 2, "animal": 3}
    rows = rows_with(lambda text, label, number: {"text": text, "value": size[label]}, 160)
    spec, prepared, _, folder = train(tiny_base, tmp_path, rows, task="my_tasks:Length", train={**TRAIN, "epochs": 2})
    assert prepared.contract.task == "my_tasks:Length" and (folder / "task_my_tasks.py").read_text() == OWN
    assert np.isfinite(evaluate_and_replay(spec, prepared, folder).metrics["rmse"])
    assert Predictor(folder).task.example(prepared.contract) == "one of mine"
    own_task.write_text(OWN.replace("one of mine", "changed"))
    with pytest.raises(ModelError, match="is not the source of my_tasks:Length that the model was trained with"):
        Predictor(folder)
    own_task.unlink()
    with pytest.raises(ModelError, match="there is no module 'my_tasks'"):
        Predictor(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("Length = 3", "is not a function or a class"),
        ("def Length(): pass", "is not a task"),
        ("from trainer.tasks import Task\nclass Length(Task): pass", "lacks as_request, collate"),
        (OWN.replace("target = Numbers()", ""), "lacks target"),
        ("import no_such_thing", "cannot be imported"),
        ("1 / 0", "raised ZeroDivisionError"),
    ],
)
def test_what_is_not_a_task(own_task, source, message):
    own_task.write_text(source)
    with pytest.raises(SpecError, match=message):
        task_catalog.get_task("my_tasks:Length")
