"""A whole run of a language model without Ray: prepared, trained, gated, registered, and answered from."""

import json
from pathlib import Path

import numpy as np
import pytest

import raymill
from cluster.errors import SpecError
from support.chat_data import chat_spec, write_chats
from support.tiny_causal import write_tiny_causal
from trainer.inference.golden import verify_golden
from trainer.inference.predictor import Predictor
from trainer.targets.generated import GeneratedTokens

pytestmark = pytest.mark.slow

TRAIN = {"epochs": 2, "tokens_per_step": 512, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    base = write_tiny_causal(folder / "base")
    spec = chat_spec(base, write_chats(folder / "chats.jsonl", 80), folder / "storage")
    return folder, {**spec, "train": TRAIN, "serve": {"engine": "native"}}


@pytest.mark.parametrize("lora", [None, {"rank": 4, "save": "adapter"}])
def test_a_registered_version_passes_its_golden_rows(scene, lora):
    folder, spec = scene
    model = {**spec["model"], **({"lora": lora} if lora else {})}
    name = "lora" if lora else "whole"
    raymill.run({**spec, "name": name, "model": model})
    version = folder / "storage" / "models" / name / "versions" / "1"
    metrics = json.loads((version / "metrics.json").read_text())
    assert 1 < metrics["test"]["perplexity"] < 400
    assert verify_golden(version, Predictor(version)) > 0
    golden = json.loads((version / "golden.json").read_text())["rows"]
    assert all(row["scores"][1] == sum(token >= 0 for token in row["inputs"]) for row in golden)


ANSWERS = {"metrics": ["exact_match", "chrf", "json_valid"], "max_tokens": 8, "max_rows": 4, "shown": 3}


def test_answers_are_judged_gated_shown_and_written_for_files(scene):
    folder, spec = scene
    spec = {**spec, "name": "answering", "evaluate": {"answers": ANSWERS}, "promote": {"metric": "chrf"}}
    first = raymill.run(spec)
    assert first.promoted and first.reason.startswith("chrf ")
    assert {"exact_match", "chrf", "log_loss"} <= first.metrics["test"].keys()
    assert "json_valid" not in first.metrics["test"]  # no answer of the rows is JSON
    version = folder / "storage" / "models" / "answering" / "versions" / "1"
    assert verify_golden(version, Predictor(version)) > 0  # statistics of answers are no scores of golden rows
    second = raymill.run({**spec, "train": {**TRAIN, "epochs": 3}})
    lines = [
        [json.loads(line) for line in (Path(second.run) / name).read_text().splitlines()]
        for name in ("answers.jsonl", "answers-champion.jsonl")
    ]
    assert [len(part) for part in lines] == [4, 4]
    assert [row["reference"] for row in lines[0]] == [row["reference"] for row in lines[1]]
    report = Path(second.report).read_text()
    assert "champion&#39;s answer" in report or "champion's answer" in report

    questions = folder / "questions.jsonl"
    asked = [{"messages": [{"role": "user", "content": text}]} for text in ("Where is my parcel?", "Help!")]
    questions.write_text("".join(json.dumps(row) + "\n" for row in [*asked, {"messages": []}]))
    written = [
        raymill.predict(
            "answering@1", str(questions), folder / f"{number}.jsonl", storage=folder / "storage", max_tokens=5
        )
        for number in range(2)
    ]
    assert written[0]["predicted"] == 2 and list(written[0]["bad_rows"]) == ["no message"]
    rows = [json.loads(line) for line in (folder / "0.jsonl").read_text().splitlines()]
    assert (folder / "1.jsonl").read_text() == (folder / "0.jsonl").read_text()
    assert all(row["score"] < 0 and isinstance(row["prediction"], str) for row in rows[:2])


def test_a_metric_that_no_answer_gets_is_refused(scene):
    _, spec = scene
    with pytest.raises(SpecError, match=r"promote\.metric=bleu is a metric of answers"):
        raymill.plan({**spec, "name": "odd", "promote": {"metric": "bleu"}})
    with pytest.raises(SpecError, match=r"evaluate\.metric=chrf is not computed"):
        raymill.plan({**spec, "name": "odd", "evaluate": {"metric": "chrf", "answers": ANSWERS}})


def test_golden_rows_compare_means_and_no_counts_of_right_tokens():
    target = GeneratedTokens()
    scores = np.array([[400.0, 200.0, 150.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    rounded = scores + np.array([0.02, 0.0, 1.0, 0.0, 0.0])
    assert np.abs(target.stable_scores(scores) - target.stable_scores(rounded))[0].max() < 1e-3
    assert np.abs(target.stable_scores(scores) - target.stable_scores(scores * 1.01))[0].max() > 1e-3
