"""From `auto` to values: for texts, images and tables, in a run, resumed, repeated, planned, searched and drafted."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

import raymill
from cluster.files import write_json
from support.tiny_table import make_table_rows, table_spec, write_rows
from support.tiny_text import tiny_spec
from trainer.data.prepare.prepare import prepare_rows
from trainer.defaults.facts import Choice
from trainer.defaults.resolve import choose_search_epochs, read_choices, resolve_once, resolve_spec
from trainer.models.model_facts import base_model_facts
from trainer.runs.resume import load_for_repeat
from trainer.spec.section import AUTO
from trainer.tasks.catalog import get_task
from trainer.tasks.load_spec import load_spec

TEXT_KEYS = {
    "train.batch_size",
    "train.epochs",
    "train.learning_rate",
    "train.warmup_fraction",
    "train.early_stopping_patience",
}


def prepared_rows(spec, folder):
    return prepare_rows(spec, lambda progress: None, folder / "bad.parquet")


@pytest.fixture
def text_spec(tiny_base, tiny_data, tmp_path):
    return tiny_spec(tiny_base, tiny_data, tmp_path / "storage", train={})


def test_texts(text_spec, tmp_path):
    spec = load_spec(text_spec)
    resolved = resolve_spec(spec, prepared_rows(spec, tmp_path))
    assert set(resolved.choices) == TEXT_KEYS
    train = resolved.spec.train
    assert train.rows_per_step == 8
    assert train.n_epochs == 16  # of 240 rows, some are for validation
    assert train.patience == 8
    assert resolved.spec.train.model_fields_set >= {key.removeprefix("train.") for key in TEXT_KEYS}
    assert resolve_spec(resolved.spec, prepared_rows(spec, tmp_path)).choices == {}


def test_the_size_of_a_model_and_the_share_that_is_trained(text_spec):
    def facts(**sections):
        return base_model_facts(load_spec({**text_spec, **sections}))

    base = {"base": text_spec["model"]["base"]}
    whole = facts()
    assert whole.is_pretrained
    assert whole.trainable_share == 1.0
    # Two layers of width 32: 4 matrices of 32 x 32, two of 32 x 64, biases and norms; positions and the pooler.
    assert 17_000 < whole.body_weights < 25_000
    frozen = facts(train={"freeze": ["*.encoder.layer.0.*"]})
    assert 0.4 < frozen.trainable_share < 0.75
    lora = facts(model={**base, "lora": {"rank": 2}})
    assert lora.uses_lora
    assert 0 < lora.trainable_share < 0.3
    assert facts(model={**base, "lora": {"rank": 2, "targets": ["query"]}}).trainable_share < lora.trainable_share


def test_images(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).save(path)
    spec = load_spec(
        {
            "name": "images",
            "task": "image-classification",
            "data": {"train": str(tmp_path / "images"), "image": {"size": 16, "mode": "gray"}},
            "model": {"config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]}},
            "storage": str(tmp_path / "storage"),
        }
    )
    facts = get_task(spec.task).model_facts(spec)
    assert not facts.is_pretrained
    assert 500 < facts.body_weights < 10_000
    train = resolve_spec(spec, prepared_rows(spec, tmp_path)).spec.train
    assert train.rows_per_step == 32
    assert train.peak_learning_rate >= 3e-3


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (None, {"model.params.max_iter"}),
        ("gradient_boosting", {"model.params.max_iter"}),
        ("random_forest", set()),
        ("logistic_regression", set()),
        ("xgboost", {"model.params.n_estimators", "train.epochs", "train.early_stopping_patience"}),
        ("mlp", TEXT_KEYS),
    ],
)
def test_tables(kind, keys, tmp_path):
    write_rows(tmp_path / "train.csv", make_table_rows(200, seed=1))
    write_rows(tmp_path / "test.csv", make_table_rows(60, seed=2))
    spec = load_spec(table_spec(tmp_path, "tabular-classification", model={"kind": kind} if kind else {}, train={}))
    prepared = prepared_rows(spec, tmp_path)
    assert set(resolve_spec(spec, prepared).choices) == keys
    for params in ({"max_iter": 7, "n_estimators": 7}, {str(kind): {"max_iter": 7, "n_estimators": 7}}):
        rounds = next((key.rpartition(".")[2] for key in keys if key.startswith("model.")), None)
        if kind and rounds:  # a number of rounds in the spec wins, also in the group of its kind
            own = {kind: {rounds: 7}} if kind in params else {rounds: 7}
            given = load_spec({**spec.model_dump(exclude_unset=True), "model": {"kind": kind, "params": own}})
            assert set(resolve_spec(given, prepared).choices) == {key for key in keys if key.startswith("train.")}


def test_stored_choices_count_whatever_the_rule_says(text_spec, tmp_path):
    spec = load_spec({**text_spec, "train": {"batch_size": 4}})
    prepared, folder = prepared_rows(spec, tmp_path), tmp_path / "run"
    folder.mkdir()
    first = resolve_once(spec, prepared, folder)
    assert read_choices(folder) == first.choices
    assert "train.batch_size" not in first.choices
    write_json(folder / "auto.json", {"train.epochs": Choice(3, "an earlier rule")._asdict()})
    assert resolve_once(spec, prepared, folder).spec.train.n_epochs == 3
    # A value of the spec wins over a stored one.
    explicit = load_spec({**text_spec, "train": {"epochs": 2}})
    assert resolve_once(explicit, prepared, folder).spec.train.n_epochs == 2


def test_a_search_has_one_number_of_epochs(text_spec, tmp_path):
    spec = load_spec(text_spec)
    prepared = prepared_rows(spec, tmp_path)
    frozen = load_spec({**text_spec, "train": {"batch_size": 64}})
    choices = choose_search_epochs([(spec, prepared), (frozen, prepared)])
    assert {key: choice.value for key, choice in choices.items()} == {"train.epochs": 16}
    assert choose_search_epochs([(load_spec({**text_spec, "train": {"epochs": 2}}), prepared)]) == {}


@pytest.mark.slow
def test_a_run_shows_and_stores_its_values_and_repeats_them(text_spec, tmp_path):
    spec = {**text_spec, "train": {"max_steps": 20}, "cluster": {"cpus": 1}}
    planned = raymill.plan(spec)
    assert set(planned["chosen"]) == TEXT_KEYS
    assert not planned["not_chosen"]
    outcome = raymill.train(spec)
    assert (
        outcome.chosen
        == planned["chosen"]
        == json.loads((tmp_path / outcome.run / "result.json").read_text())["chosen"]
    )
    stored = yaml.safe_load((tmp_path / outcome.run / "resolved.yaml").read_text())
    assert {key: stored["train"][key.removeprefix("train.")] for key in TEXT_KEYS} == {
        key: choice["value"] for key, choice in outcome.chosen.items()
    }
    best = load_spec(tmp_path / outcome.run / "best.yaml")
    assert best.train.n_epochs == outcome.chosen["train.epochs"]["value"]
    page = (tmp_path / outcome.run / "report.html").read_text()
    assert "Chosen for these rows" in page
    assert outcome.chosen["train.learning_rate"]["reason"] in page
    shown = raymill.show_run(outcome.run, storage=tmp_path / "storage", html=tmp_path / "run.html")
    assert shown["chosen"] == outcome.chosen
    assert "Chosen for these rows" in (tmp_path / "run.html").read_text()
    repeated, _ = load_for_repeat(outcome.run, tmp_path / "storage", ["data.train=elsewhere.csv"])
    assert repeated.train.n_epochs == best.train.n_epochs
    # Written as `auto`, a key is as if it were absent.
    written = {**spec, "train": {**spec["train"], **{key.removeprefix("train."): AUTO for key in TEXT_KEYS}}}
    assert raymill.plan(written)["chosen"] == planned["chosen"]


def test_a_plan_says_why_values_are_not_known_yet(text_spec, tmp_path):
    empty = tmp_path / "empty.csv"
    empty.write_text("text,label\n")
    planned = raymill.plan({**text_spec, "data": {**text_spec["data"], "train": str(empty)}})
    assert planned["chosen"] == {}
    assert planned["not_chosen"]
    hub = raymill.plan({**text_spec, "model": {"base": "some/model"}})
    assert hub["not_chosen"] == "the base model is on the hub"


def test_a_plan_leaves_nothing_behind(text_spec, tmp_path):
    raymill.plan(text_spec)
    left = [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]
    assert left == []


def test_a_draft_leaves_the_training_to_auto(tiny_data, tmp_path):
    from trainer.draft.draft import draft_spec

    draft = draft_spec([str(tiny_data / "train.csv")], folder=tmp_path)
    assert "train" not in {key for key in yaml.safe_load(draft.text) if key == "train"}
    assert draft.spec.train.epochs == draft.spec.train.learning_rate == draft.spec.train.batch_size == AUTO
