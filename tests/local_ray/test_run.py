"""The whole pipeline with the Python API: register, promote through the gate, evaluate, predict."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raymill
from cluster.errors import DataError, ModelError, user_error_in
from support.tiny_text import make_text_rows, tiny_spec, write_csv
from trainer.registry.registry import Registry


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def outcome(tiny_base, tiny_data, storage):
    return raymill.run(tiny_spec(tiny_base, tiny_data, storage))


def test_the_outcome_and_its_files(outcome, storage):
    assert (outcome.model, outcome.version, outcome.promoted) == ("tiny", 1, True)
    assert outcome.metrics["test"]["accuracy"] > 0.9
    assert set(outcome.stages) >= {"prepare", "train", "evaluate", "register"}
    version = Registry(storage).find("tiny@champion")
    names = {path.name for path in version.folder.iterdir()}
    assert {"model.safetensors", "contract.json", "golden.json", "metrics.json"} <= names
    assert {"lineage.json", "spec.yaml", "manifest.json"} <= names
    page = Path(outcome.report).read_text(encoding="utf-8")
    assert page.count("<svg") == 6
    for name in ("www.w3.org", "purl.org", "creativecommons.org"):  # namespaces in the charts
        page = page.replace(f"http://{name}", "")
    assert "http" not in page


def test_the_same_run_again_is_not_promoted(outcome, tiny_base, tiny_data, storage):
    again = raymill.run(tiny_spec(tiny_base, tiny_data, storage))
    assert (again.version, again.promoted) == (2, False)
    assert again.fingerprint == outcome.fingerprint
    assert again.metrics["test"] == pytest.approx(outcome.metrics["test"])
    assert Registry(storage).find("tiny").number == 1
    assert "both models are equally good" in again.note and again.note in Path(again.report).read_text(encoding="utf-8")
    (move,) = raymill.show("tiny@1", storage=storage)["moves"]
    assert move["evidence"]["note"] == outcome.note and "bootstrap" in outcome.note


def test_the_champion_is_evaluated_again_on_other_held_out_rows(outcome, tiny_base, tiny_data, storage, tmp_path):
    test = write_csv(tmp_path / "test.csv", make_text_rows(60, seed=9))
    data = {"train": str(tiny_data / "train.csv"), "test": str(test)}
    train = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-5}
    worse = raymill.run(tiny_spec(tiny_base, tiny_data, storage, data=data, train=train))
    assert not worse.promoted and "tiny@1" in worse.reason and "paired test" in worse.note


def test_evaluate_gives_the_registered_metrics_and_those_of_a_file(outcome, storage, tmp_path):
    registered = raymill.evaluate("tiny@1", storage=storage)
    assert registered["metrics"]["test"] == pytest.approx(outcome.metrics["test"], abs=1e-6)
    rows = make_text_rows(30, seed=5)
    on_file = raymill.evaluate("tiny@1", data=str(write_csv(tmp_path / "more.csv", rows)), storage=storage)
    assert on_file["rows"] == 30 and on_file["metrics"]["test"]["accuracy"] > 0.8
    with pytest.raises(DataError, match="not trained on: 'vehicle'"):
        raymill.evaluate(
            "tiny@1", data=str(write_csv(tmp_path / "odd.csv", [*rows, ("a car", "vehicle")])), storage=storage
        )
    with pytest.raises(DataError, match="row 31 of .* empty text"):
        raymill.evaluate("tiny@1", data=str(write_csv(tmp_path / "bad.csv", [*rows, ("", "tool")])), storage=storage)


def test_a_loaded_model_predicts(outcome, storage):
    answers = raymill.load("tiny@champion", storage=storage).predict(["a good hammer and a saw", "my cat and my dog"])
    assert [answer["label"] for answer in answers] == ["tool", "animal"]
    assert sum(answers[0]["scores"].values()) == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(ModelError, match="did you mean 'tiny'"):
        raymill.load("tinny", storage=storage)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_batch_predictions_keep_every_row_in_order(outcome, storage, tmp_path, kind):
    texts = [text for text, _ in make_text_rows(50, seed=6)]
    texts[7] = "  "
    source, target = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    if kind == "csv":
        write_csv(source, [(text, "x") for text in texts])
    elif kind == "jsonl":
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        pq.write_table(pa.table({"text": texts}), source)
    counts = raymill.predict("tiny", str(source), target, storage=storage)
    assert (counts["rows"], counts["predicted"]) == (50, 49)
    if kind == "csv":
        rows = list(csv.DictReader(target.open(newline="", encoding="utf-8")))
    elif kind == "jsonl":
        rows = [json.loads(line) for line in target.read_text().splitlines()]
    else:
        rows = pq.read_table(target).to_pylist()
    assert [row["text"] for row in rows] == texts
    assert [int(row["row"]) for row in rows] == list(range(1, 51))
    assert rows[7]["error"] == "empty text" and not rows[7]["prediction"]
    single = raymill.load("tiny", storage=storage).predict([texts[0]])[0]
    assert rows[0]["prediction"] == single["label"]
    assert float(rows[0]["score"]) == pytest.approx(single["score"], abs=1e-5)


def test_batch_predictions_of_wrong_files(outcome, storage, tmp_path):
    good = write_csv(tmp_path / "in.csv", make_text_rows(3, 1))
    other = write_csv(tmp_path / "other.csv", make_text_rows(3, 1), header=("txt", "label"))
    for source, output, message in [
        (tmp_path / "nope.csv", "out.csv", "no such file"),
        (good, "out.xlsx", "ends in .csv, .jsonl or .parquet"),
        (other, "out.csv", "no column 'text'"),
        (good, "no/such/folder/out.csv", "no folder"),
        (good, "in.csv", "is also an input"),
    ]:
        with pytest.raises(DataError, match=message):
            raymill.predict("tiny", str(source), tmp_path / output, storage=storage)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "other.csv"]


def test_a_user_error_in_a_ray_task_keeps_its_message():
    import ray

    @ray.remote(num_cpus=0.1)
    def fail():
        raise DataError("rows.csv is empty", "give a file with rows in it")

    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        ray.get(fail.remote())
    assert str(user_error_in(caught.value)) == "rows.csv is empty\n  fix: give a file with rows in it"
