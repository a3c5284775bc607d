"""Metrics of written answers: from statistics of single rows to the same values as their libraries give for all."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from cluster.errors import SpecError
from trainer.spec.answers import AnswerMetricName, AnswersSpec
from trainer.targets.answers.base import Answered
from trainer.targets.answers.catalog import METRICS, N_STATISTICS, AnswerJudge, answer_metrics

REFERENCES = ["the cat sat on the mat", "a dog barks", "It is 5 degrees, and it rains.", "yes"]
ANSWERS = ["the cat sat on a mat", "a dog barks", "It rains at 5 degrees", ""]


def values_of(spec: AnswersSpec, answers=ANSWERS, references=REFERENCES) -> dict[str, float]:
    judge = AnswerJudge(spec)
    rows = [judge.statistics([Answered("p", *pair)]) for pair in zip(answers, references, strict=True)]
    assert all(row.shape == (N_STATISTICS,) for row in rows)
    return answer_metrics(np.stack(rows))


def test_every_name_of_the_spec_has_a_metric():
    assert [metric.name for metric in METRICS] == list(get_args(AnswerMetricName))


def test_summed_statistics_give_the_bleu_of_the_library():
    sacrebleu = pytest.importorskip("sacrebleu", reason="the extra `generation` is not installed")
    expected = sacrebleu.corpus_bleu(ANSWERS, [REFERENCES]).score / 100
    assert values_of(AnswersSpec(metrics=["bleu"]))["bleu"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow  # rouge-score imports nltk
def test_the_other_metrics_are_means_over_rows():
    sacrebleu = pytest.importorskip("sacrebleu", reason="the extra `generation` is not installed")
    values = values_of(AnswersSpec(metrics=["exact_match", "chrf", "rouge_l"]))
    pairs = list(zip(ANSWERS, REFERENCES, strict=True))
    assert values["exact_match"] == 0.25
    assert values["chrf"] == pytest.approx(np.mean([sacrebleu.sentence_chrf(a, [r]).score for a, r in pairs]) / 100)
    assert 0.4 < values["rouge_l"] < 0.8


def test_exact_match_ignores_white_space_at_the_ends_and_the_form_of_accents():
    answers = [" café\n", "cafe\N{COMBINING ACUTE ACCENT}", "Café"]
    assert values_of(AnswersSpec(metrics=["exact_match"]), answers, ["café"] * 3)["exact_match"] == pytest.approx(2 / 3)


SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"enum": ["status", "stock"]}}}


@pytest.mark.parametrize(
    ("answer", "reference", "valid"),
    [
        ('{"name": "stock"}', '{"name": "status"}', 1.0),
        ('<tool_call>\n{"name": "stock"}\n</tool_call>', '<tool_call>{"name": "status"}</tool_call>', 1.0),
        ('{"name": "other"}', '{"name": "status"}', 0.0),
        ('{"name": "stock"', '{"name": "status"}', 0.0),
        ("stock", '{"name": "status"}', 0.0),
        ('Sure: {"name": "stock"}', '{"name": "status"}', 0.0),
        ("[" * 100_000, '{"name": "status"}', 0.0),
    ],
)
def test_json_answers_are_parsed_and_held_to_the_schema(answer, reference, valid):
    spec = AnswersSpec(metrics=["json_valid"], json_schema=SCHEMA)
    assert values_of(spec, [answer], [reference]) == {"json_valid": valid}


def test_rows_whose_own_answer_is_no_json_do_not_count():
    spec = AnswersSpec(metrics=["json_valid"])
    assert values_of(spec, ["no", "{}"], ["a sentence", "[1]"]) == {"json_valid": 1.0}
    assert values_of(spec, ["{}"], ["a sentence"]) == {}


def test_rows_without_an_answer_do_not_count():
    judge = AnswerJudge(AnswersSpec(metrics=["exact_match"]))
    rows = np.stack([judge.statistics([Answered("", "a", "a")]), judge.statistics([])])
    assert answer_metrics(rows) == {"exact_match": 1.0}
    assert answer_metrics(rows[1:]) == {}


def test_a_function_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "my_score.py").write_text(
        "def short(prompt, answer, reference):\n    return len(answer) < 8\n\ndef text(prompt, answer, reference):\n"
        "    return 'good'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    spec = AnswersSpec(metrics=["answer_score", "pass_at_k"], function="my_score:short", samples=2, temperature=0.7)
    row = AnswerJudge(spec).statistics([Answered("p", "a long answer", "r"), Answered("p", "short", "r")])
    assert answer_metrics(row[None]) == {"answer_score": 0.0, "pass_at_k": 1.0}
    with pytest.raises(SpecError, match="returned 'good', not a finite number"):
        AnswerJudge(AnswersSpec(metrics=["answer_score"], function="my_score:text")).statistics([Answered("", "", "")])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metrics": ["answer_score"]}, "needs a function"),
        ({"function": "a:b"}, "function is not used"),
        ({"json_schema": {}}, "json_schema is not used"),
        ({"samples": 4}, "only for pass_at_k"),
        ({"samples": 4, "metrics": ["pass_at_k"], "function": "a:b"}, "all samples are equal"),
        ({"metrics": []}, "at least 1 item"),
    ],
)
def test_what_cannot_be_meant_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        AnswersSpec(**values)


def test_a_schema_that_is_none_is_refused():
    with pytest.raises(SpecError, match="is not a JSON schema"):
        AnswerJudge(AnswersSpec(metrics=["json_valid"], json_schema={"type": "thing"}))
