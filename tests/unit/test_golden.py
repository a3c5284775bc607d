"""Golden rows: drift is reported by row and field, and the base library's tokenizer is compared."""

import json
import shutil

import numpy as np
import pytest

from cluster.errors import ModelError
from cluster.files import file_sha256, read_json, write_json
from trainer.contract.contract import Contract
from trainer.inference import evaluate, golden, scoring
from trainer.inference.predictor import Predictor
from trainer.registry import register
from trainer.tasks import catalog as task_catalog
from trainer.tasks.load_spec import load_spec
from trainer.tasks.text import library_check
from trainer.training.checkpoint import export

TEXTS = ["i want a good hammer", "tell me please one cat", "and my new apple"]
LABELS = ["animal", "fruit", "tool"]


@pytest.fixture(scope="module")
def trained(tiny_base, tmp_path_factory):
    """Return a checkpoint folder with golden rows."""
    prepared, folder = tmp_path_factory.mktemp("prepared"), tmp_path_factory.mktemp("model")
    task = task_catalog.get_task("text-classification")
    spec = load_spec({"name": "a", "data": {"train": "t.csv", "max_length": 8}, "model": {"base": str(tiny_base)}})
    contract = task.make_contract(spec, prepared).model_copy(update={"fitted": {"labels": LABELS}})
    export.export_model(folder, task, task.new_model(contract, spec), contract, prepared, {})
    predictor = Predictor(folder)
    inputs = predictor.encode({"text": TEXTS})
    golden.write_golden(folder, inputs, TEXTS, predictor.scores(inputs))
    return folder


@pytest.fixture
def model(trained, tmp_path):
    """Return a copy of the model folder that a test may damage."""
    return shutil.copytree(trained, tmp_path / "model")


def edit(folder, row, **changes):
    content = read_json(folder / golden.GOLDEN_FILE)
    content["rows"][row].update(changes)
    write_json(folder / golden.GOLDEN_FILE, content)
    return content["rows"][row]


def test_all_rows_are_verified(trained):
    assert golden.verify_golden(trained, Predictor(trained)) == 3


def test_a_changed_token_is_named_with_its_words(model):
    now = read_json(model / golden.GOLDEN_FILE)["rows"][1]["inputs"]
    recorded = list(now)
    recorded[3] = 5
    edit(model, 1, inputs=recorded)
    tokens = Predictor(model).encoder._tokenizer
    message = (
        f"golden row 1, inputs\\[3\\]: recorded 5, now {now[3]} "
        f"\\(token '{tokens.id_to_token(5)}' -> '{tokens.id_to_token(now[3])}'\\)"
    )
    with pytest.raises(ModelError, match=message):
        golden.verify_golden(model, Predictor(model))


def test_a_changed_length_is_named(model):
    row = edit(model, 2)
    edit(model, 2, inputs=row["inputs"][:-1])
    n = len(row["inputs"])
    with pytest.raises(ModelError, match=f"golden row 2, length of inputs: {n - 1} -> {n}"):
        golden.verify_golden(model, Predictor(model))


def test_a_changed_score_is_named_by_its_label(model):
    scores = edit(model, 1)["scores"]
    edit(model, 1, scores=[scores[0], scores[1] + 0.5, scores[2] - 0.1])
    recorded, now = f"{scores[1] + 0.5:.4f}", f"{scores[1]:.4f}"
    with pytest.raises(ModelError, match=f"golden row 1, scores\\['fruit'\\]: recorded {recorded}, now {now}"):
        golden.verify_golden(model, Predictor(model))
    edit(model, 1, scores=[*scores, 0.0])
    with pytest.raises(ModelError, match="golden row 1, length of scores: 4 -> 3"):
        golden.verify_golden(model, Predictor(model))
    assert "scores['a']" in golden.score_difference([1.0], [float("nan")], ["a"], 1e-3)
    assert golden.score_difference([0.5, 0.5], [0.5004, 0.4996], ["a", "b"], 1e-3) == ""


def test_a_damaged_file_is_rejected(model):
    (model / golden.GOLDEN_FILE).write_text(json.dumps({"version": golden.VERSION, "rows": []}))
    with pytest.raises(ModelError, match="missing or damaged"):
        golden.verify_golden(model, Predictor(model))


def test_golden_rows_of_another_version_are_refused(model):
    content = read_json(model / golden.GOLDEN_FILE)
    del content["version"]  # as the version before wrote it
    write_json(model / golden.GOLDEN_FILE, content)
    with pytest.raises(ModelError, match="has version 1 of golden rows") as caught:
        golden.verify_golden(model, Predictor(model))
    assert "train again" in caught.value.fix


def test_the_library_gives_the_same_ids(trained):
    inputs = Predictor(trained).encode({"text": TEXTS})
    note = library_check.compare_token_ids(trained, [TEXTS], inputs, 8)
    assert note.startswith("the same ids as transformers") and note.endswith("for 3 rows")


def test_a_tokenizer_that_the_library_reads_differently_is_rejected_by_row_and_field(model):
    """tokenizer.json no longer matches the ids the model was trained on: its vocabulary has another order."""
    inputs = Predictor(model).encode({"text": TEXTS})
    path = model / "tokenizer.json"
    tokenizer = read_json(path)
    words = tokenizer["model"]["vocab"]
    words["good"], words["new"] = words["new"], words["good"]
    write_json(path, tokenizer)
    with pytest.raises(ModelError) as caught:
        library_check.compare_token_ids(model, [TEXTS], inputs, 8)
    assert "golden row 0, inputs[4]: by transformers" in str(caught.value)
    assert "(token 'good' -> 'new')" in str(caught.value) or "(token 'new' -> 'good')" in str(caught.value)
    with pytest.raises(ModelError, match="golden row 0, length of inputs"):
        library_check.compare_token_ids(model, [TEXTS], [ids[:-1] for ids in inputs], 8)
    # A contract with the digest of the changed file, as if prepared with it: verification detects it.
    contract = Contract(**{k: v for k, v in read_json(model / "contract.json").items() if k != "fingerprint"})
    contract.model_copy(update={"files": {"tokenizer.json": file_sha256(path)}}).save(model)
    with pytest.raises(ModelError, match=r"golden row 0, inputs\[4\]: recorded"):
        golden.verify_golden(model, Predictor(model))


def test_a_tokenizer_that_the_library_cannot_read_is_noted_not_rejected(model, tmp_path):
    inputs = [np.array([1], np.int32)]
    assert library_check.compare_token_ids(tmp_path, [["a"]], inputs, 8).startswith("not compared: there is no")
    (model / "tokenizer_config.json").write_text("{")
    assert "cannot read this tokenizer" in library_check.compare_token_ids(model, [["a"]], inputs, 8)


def with_steps(steps, base, folder):
    """Return a checkpoint folder whose contract has these cleaning steps."""
    prepared, model = folder / "prepared", folder / "redacting"
    prepared.mkdir()
    model.mkdir()
    task = task_catalog.get_task("text-classification")
    data = {"train": "t.csv", "max_length": 8, "steps": steps}
    spec = load_spec({"name": "a", "data": data, "model": {"base": str(base)}})
    contract = task.make_contract(spec, prepared).model_copy(update={"fitted": {"labels": LABELS}})
    export.export_model(model, task, task.new_model(contract, spec), contract, prepared, {})
    return model


def write_golden(model, raw):
    rows = evaluate.with_digest({"text": raw}, ["tool"] * len(raw))
    scores = scoring.score_locally(str(model), rows.columns, 1, False, scoring.ScoringOptions(8))
    register._write_golden_rows(model, Predictor(model), scores, rows.columns)
    return read_json(model / golden.GOLDEN_FILE)


def test_addresses_that_redact_removes_are_not_stored(tiny_base, tmp_path):
    """strip_html runs after redact and turns the first row into an address: cleaning it again would change it."""
    model = with_steps(["redact", "strip_html", {"normalize": {"lowercase": True}}], tiny_base, tmp_path)
    raw = ["mail me at jo.doe&#64;mail.example please", "Mail  jo.doe@mail.example, I want a good hammer"]
    raw += [f"<p>Tell me {n} cat@mail.example</p>" for n in range(12)]
    golden_json = write_golden(model, raw)
    text = (model / golden.GOLDEN_FILE).read_text()
    assert "mail.example" not in text and "@" not in text
    assert [row["raw"] for row in golden_json["rows"][:2]] == [
        "mail [email], i want a good hammer",
        "tell me 0 [email]",
    ]
    assert len(golden_json["rows"]) == golden.MAX_ROWS == golden.verify_golden(model, Predictor(model))
    assert golden_json["library"].startswith("the same ids")
    for path in model.rglob("*"):
        assert not path.is_file() or b"mail.example" not in path.read_bytes(), path


def test_rows_that_cleaning_changes_again_are_left_out(tiny_base, tmp_path):
    model = with_steps(["redact", "strip_html"], tiny_base, tmp_path)
    golden_json = write_golden(model, ["a&amp;amp;lt; hammer", "jo&#64;mail.example", "jo@mail.example has one cat"])
    assert [row["raw"] for row in golden_json["rows"]] == ["[EMAIL] has one cat"]
    assert golden.verify_golden(model, Predictor(model)) == 1
    golden_json = write_golden(model, ["a&amp;amp;lt; hammer"])
    assert golden_json["rows"] == [] and "no row could be stored" in golden_json["library"]
    assert golden.verify_golden(model, Predictor(model)) == 0


def test_without_redact_the_raw_rows_are_stored(tiny_base, tmp_path):
    model = with_steps(["strip_html"], tiny_base, tmp_path)
    raw = ["<p>Tell me</p>", "a&amp;amp;b", *TEXTS * 4]
    assert [row["raw"] for row in write_golden(model, raw)["rows"]] == raw[: golden.MAX_ROWS]
    assert golden.verify_golden(model, Predictor(model)) == golden.MAX_ROWS
