"""Golden rows: what drifted is named by row and field, and the base library's own tokenizer has its say."""

import json
import shutil

import numpy as np
import pytest

from cluster.errors import ModelError
from cluster.files import read_json, sha256, write_json
from trainer.contract.contract import Contract
from trainer.inference import evaluate, golden
from trainer.inference.predictor import Predictor
from trainer.registry import register
from trainer.tasks import catalog as task_catalog
from trainer.tasks.resolve import load
from trainer.tasks.text import library_check
from trainer.training.checkpoint import export

TEXTS = ["i want a good hammer", "tell me please one cat", "and my new apple"]
LABELS = ["animal", "fruit", "tool"]


@pytest.fixture(scope="module")
def trained(tiny_base, tmp_path_factory):
    """A model folder as a checkpoint is, with golden rows."""
    prepared, folder = tmp_path_factory.mktemp("prepared"), tmp_path_factory.mktemp("model")
    task = task_catalog.get("text-classification")
    spec = load({"name": "a", "data": {"train": "t.csv", "max_length": 8}, "model": {"base": str(tiny_base)}})
    contract = task.begin(spec, prepared).model_copy(update={"fitted": {"labels": LABELS}})
    export.save(folder, task, task.new_model(contract, spec), contract, prepared, {})
    predictor = Predictor(folder)
    inputs = predictor.encode({"text": TEXTS})
    golden.write(folder, inputs, TEXTS, predictor.scores(inputs))
    return folder


@pytest.fixture
def model(trained, tmp_path):
    """A copy to be spoiled."""
    return shutil.copytree(trained, tmp_path / "model")


def edit(folder, row, **changes):
    found = read_json(folder / golden.FILE)
    found["rows"][row].update(changes)
    write_json(folder / golden.FILE, found)
    return found["rows"][row]


def test_all_rows_are_replayed(trained):
    assert golden.replay(trained, Predictor(trained)) == 3


def test_another_token_is_named_with_its_words(model):
    now = read_json(model / golden.FILE)["rows"][1]["inputs"]
    recorded = list(now)
    recorded[3] = 5
    edit(model, 1, inputs=recorded)
    tokens = Predictor(model).encoder._tokenizer
    wanted = (
        f"golden row 1, inputs\\[3\\]: recorded 5, now {now[3]} "
        f"\\(token '{tokens.id_to_token(5)}' -> '{tokens.id_to_token(now[3])}'\\)"
    )
    with pytest.raises(ModelError, match=wanted):
        golden.replay(model, Predictor(model))


def test_another_length_is_named(model):
    row = edit(model, 2)
    edit(model, 2, inputs=row["inputs"][:-1])
    n = len(row["inputs"])
    with pytest.raises(ModelError, match=f"golden row 2, length of inputs: {n - 1} -> {n}"):
        golden.replay(model, Predictor(model))


def test_another_score_is_named_by_its_label(model):
    scores = edit(model, 1)["scores"]
    edit(model, 1, scores=[scores[0], scores[1] + 0.5, scores[2] - 0.1])
    recorded, now = f"{scores[1] + 0.5:.4f}", f"{scores[1]:.4f}"
    with pytest.raises(ModelError, match=f"golden row 1, scores\\['fruit'\\]: recorded {recorded}, now {now}"):
        golden.replay(model, Predictor(model))
    edit(model, 1, scores=[*scores, 0.0])
    with pytest.raises(ModelError, match="golden row 1, length of scores: 4 -> 3"):
        golden.replay(model, Predictor(model))
    assert "scores['a']" in golden.score_difference([1.0], [float("nan")], ["a"], 1e-3)
    assert golden.score_difference([0.5, 0.5], [0.5004, 0.4996], ["a", "b"], 1e-3) == ""


def test_a_damaged_file_is_refused(model):
    (model / golden.FILE).write_text(json.dumps({"rows": []}))
    with pytest.raises(ModelError, match="missing or damaged"):
        golden.replay(model, Predictor(model))


def test_the_library_gives_the_same_ids(trained):
    inputs = Predictor(trained).encode({"text": TEXTS})
    said = library_check.compare(trained, [TEXTS], inputs, 8)
    assert said.startswith("the same ids as transformers") and said.endswith("for 3 rows")


def test_a_tokenizer_that_the_library_reads_otherwise_is_refused_by_row_and_field(model):
    """tokenizer.json and the ids the model was trained on no longer belong together: another vocabulary order."""
    inputs = Predictor(model).encode({"text": TEXTS})
    path = model / "tokenizer.json"
    tokenizer = read_json(path)
    words = tokenizer["model"]["vocab"]
    words["good"], words["new"] = words["new"], words["good"]
    write_json(path, tokenizer)
    with pytest.raises(ModelError) as caught:
        library_check.compare(model, [TEXTS], inputs, 8)
    assert "golden row 0, inputs[4]: by transformers" in str(caught.value)
    assert "(token 'good' -> 'new')" in str(caught.value) or "(token 'new' -> 'good')" in str(caught.value)
    with pytest.raises(ModelError, match="golden row 0, length of inputs"):
        library_check.compare(model, [TEXTS], [ids[:-1] for ids in inputs], 8)
    # A contract that names the changed file, as if it had been prepared with it: the replay tells.
    contract = Contract(**{k: v for k, v in read_json(model / "contract.json").items() if k != "fingerprint"})
    contract.model_copy(update={"files": {"tokenizer.json": sha256(path)}}).save(model)
    with pytest.raises(ModelError, match=r"golden row 0, inputs\[4\]: recorded"):
        golden.replay(model, Predictor(model))


def test_what_the_library_cannot_read_is_said_and_not_refused(model, tmp_path):
    inputs = [np.array([1], np.int32)]
    assert library_check.compare(tmp_path, [["a"]], inputs, 8).startswith("not compared: there is no")
    (model / "tokenizer_config.json").write_text("{")
    assert "cannot read this tokenizer" in library_check.compare(model, [["a"]], inputs, 8)


def with_steps(steps, base, folder):
    """Return a model folder as a checkpoint is, of a contract with these cleaning steps."""
    prepared, model = folder / "prepared", folder / "redacting"
    prepared.mkdir()
    model.mkdir()
    task = task_catalog.get("text-classification")
    data = {"train": "t.csv", "max_length": 8, "steps": steps}
    spec = load({"name": "a", "data": data, "model": {"base": str(base)}})
    contract = task.begin(spec, prepared).model_copy(update={"fitted": {"labels": LABELS}})
    export.save(model, task, task.new_model(contract, spec), contract, prepared, {})
    return model


def write_golden(model, raw):
    rows = evaluate.labelled({"text": raw}, ["tool"] * len(raw))
    scores = evaluate.score_here(str(model), rows.columns, 1, False, 8, None)
    register._write_golden(model, Predictor(model), scores, rows.columns)
    return read_json(model / golden.FILE)


def test_no_address_that_redact_takes_out_is_kept(tiny_base, tmp_path):
    """Only strip_html makes an address of the first row, behind redact: cleaned once more it would be another text."""
    model = with_steps(["redact", "strip_html", {"normalise": {"lowercase": True}}], tiny_base, tmp_path)
    raw = ["mail me at jo.doe&#64;mail.example please", "Mail  jo.doe@mail.example, I want a good hammer"]
    raw += [f"<p>Tell me {n} cat@mail.example</p>" for n in range(12)]
    found = write_golden(model, raw)
    text = (model / golden.FILE).read_text()
    assert "mail.example" not in text and "@" not in text
    assert [row["raw"] for row in found["rows"][:2]] == ["mail [email], i want a good hammer", "tell me 0 [email]"]
    assert len(found["rows"]) == golden.ROWS == golden.replay(model, Predictor(model))
    assert found["library"].startswith("the same ids")
    for path in model.rglob("*"):
        assert not path.is_file() or b"mail.example" not in path.read_bytes(), path


def test_rows_that_cleaning_changes_again_are_left_out(tiny_base, tmp_path):
    model = with_steps(["redact", "strip_html"], tiny_base, tmp_path)
    found = write_golden(model, ["a&amp;amp;lt; hammer", "jo&#64;mail.example", "jo@mail.example has one cat"])
    assert [row["raw"] for row in found["rows"]] == ["[EMAIL] has one cat"]
    assert golden.replay(model, Predictor(model)) == 1
    found = write_golden(model, ["a&amp;amp;lt; hammer"])
    assert found["rows"] == [] and "none could be kept" in found["library"]
    assert golden.replay(model, Predictor(model)) == 0


def test_without_redact_the_rows_are_kept_as_they_came(tiny_base, tmp_path):
    model = with_steps(["strip_html"], tiny_base, tmp_path)
    raw = ["<p>Tell me</p>", "a&amp;amp;b", *TEXTS * 4]
    assert [row["raw"] for row in write_golden(model, raw)["rows"]] == raw[: golden.ROWS]
    assert golden.replay(model, Predictor(model)) == golden.ROWS
