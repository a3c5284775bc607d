"""The data report of text generation: what is learned, in color; tokens and steps; leaks; any text escaped."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.support.chat_data import chat, chat_spec, write_chat_base, write_jsonl
from trainer.data.prepare.prepare import prepare_rows
from trainer.report.data_facts import UsableRows
from trainer.report.data_reports import data_report_of
from trainer.report.token_facts import TokenRows, describe_steps
from trainer.report.token_page import collect_facts, list_findings, write_page
from trainer.tasks.catalog import get_task
from trainer.tasks.load_spec import load_spec

ATTACK = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    base = write_chat_base(folder / "base")
    long = "the order with the number that was sent to the wrong house on the hill last week "
    rows = [{"messages": chat(f"{number}: where is {long}{ATTACK}?", f"Here {number}.")} for number in range(40)]
    test = [
        {"messages": chat(f"5: where is {long}{ATTACK}!?", "Here 5.")},
        {"messages": chat("Something else", "Yes.")},
    ]
    spec = load_spec(
        {
            **chat_spec(
                base,
                write_jsonl(folder / "train.jsonl", rows),
                folder,
                test=str(write_jsonl(folder / "test.jsonl", test)),
                max_length=400,
            ),
            "train": {"tokens_per_step": 512},
        }
    )
    prepared = prepare_rows(spec, lambda progress: None, folder / "quarantine.parquet", with_ray=False)
    facts = collect_facts(prepared, spec, lambda progress: None)
    write_page(folder / "data.html", facts, title="chats", prepared=prepared)
    return facts, (folder / "data.html").read_text(encoding="utf-8")


def test_learned_tokens_are_marked_and_texts_are_escaped(report):
    _, page = report
    assert ATTACK not in page
    assert re.search(
        r'<span class="learned">Here \d+\.</span><span class="learned special">&lt;\|im_end\|&gt;</span>', page
    )
    assert re.search(r'<span class=" special">&lt;\|im_start\|&gt;</span>assistant\n<span class="learned">', page)


def test_tokens_and_steps_are_counted(report):
    facts, page = report
    train = facts.tokens[0]
    assert train["rows"] == len(facts.rows.rows_of("train"))
    assert 0 < train["learned"] < train["tokens"]
    [chosen] = [entry for entry in facts.steps if entry["is_chosen"]]
    assert chosen["tokens_per_step"] == 512
    assert chosen["steps"] == round(train["tokens"] / 512)
    assert facts.summary()["learned_tokens"]["train"] == train["learned"]
    assert 'tr class="best"' in page


def test_a_near_duplicate_of_a_training_row_is_found(report):
    facts, _ = report
    leak = next(leak for leak in facts.leaks if (leak["source"], leak["part"]) == ("train", "test"))
    assert leak["case"] + leak["near"] == 1
    assert any("also in train" in finding.text or "near-duplicate" in finding.text for finding in list_findings(facts))


def test_steps_are_as_equal_as_rows_allow():
    lengths = np.array([100] * 50, np.int64)
    rows = UsableRows([""] * 50, [""] * 50, np.zeros(50, np.int8), lengths)
    entry = describe_steps(TokenRows(rows, lengths // 2, lengths), seed=0, chosen=1000)[0]
    assert (entry["steps"], entry["rows"], entry["smallest"], entry["largest"]) == (5, 10.0, 1.0, 1.0)
    assert (entry["fewest_learned"], entry["most_learned"]) == (500, 500)


def test_tasks_without_texts_have_no_data_report():
    assert data_report_of(get_task("text-generation")) is not None
    assert data_report_of(get_task("text-classification")) is not None
    assert data_report_of(get_task("image-classification")) is data_report_of(get_task("text-regression")) is None


def test_rows_that_were_cut_are_counted(tmp_path):
    base = write_chat_base(tmp_path / "base")
    rows = [{"messages": chat(f"question {number} " * (30 if number % 4 else 1), "Yes.")} for number in range(40)]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    spec = load_spec(chat_spec(base, train, tmp_path, max_length=64, chat={"overlong": "truncate_left"}))
    prepared = prepare_rows(spec, lambda progress: None, tmp_path / "quarantine.parquet", with_ray=False)
    facts = collect_facts(prepared, spec, lambda progress: None)
    assert sum(facts.summary()["at_limit"].values()) == 30
    assert any("nearly all of them were cut" in finding.text for finding in list_findings(facts))
