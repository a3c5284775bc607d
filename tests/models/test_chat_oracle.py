"""Chat templates and masks as transformers has them."""

from __future__ import annotations

import json

import pytest

from support.chat_data import TOOLS, chat, chat_spec, write_chat_base
from support.chat_templates import BRACKETS, CHAT_TEMPLATE, FORGETS_THOUGHTS, TRIMMED
from trainer.chat.tokens import learned_mask, token_ids
from trainer.tasks.catalog import get_task
from trainer.tasks.load_spec import load_spec

TEMPLATES = {"chatml": CHAT_TEMPLATE, "trimmed": TRIMMED, "brackets": BRACKETS, "forgets": FORGETS_THOUGHTS}
CONVERSATIONS = [
    chat("How do I reset it?", "Open the settings."),
    chat("  spaces  ", "naïve 日本語 🙂\n\n", "more?", "yes", system="You are <b>helpful</b> & 'kind'."),
    chat('{"a": 1}', "```python\nprint('x')\n```", "and?", 'that\'s "all"'),
]


def encoder_of(folder, template, **chat_keys):
    base = write_chat_base(folder / "base", template)
    spec = load_spec(chat_spec(base, folder / "rows.jsonl", folder, max_length=512, chat=chat_keys))
    task = get_task("text-generation")
    contract = task.make_contract(spec, folder)
    return task.encoder(contract, folder).rows


def theirs_of(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_texts_and_tokens_are_those_of_transformers(template, tmp_path):
    rows = encoder_of(tmp_path, template, learn="last")
    theirs = theirs_of(tmp_path)  # the contract's folder is a tokenizer of transformers with the same template
    for messages in CONVERSATIONS:
        for turn in range(1, len(messages) + 1):
            if messages[turn - 1]["role"] == "system":
                continue
            prompted = messages[turn - 1]["role"] == "user"
            text = rows.chat_text(messages[:turn], None, prompted)
            assert text == theirs.apply_chat_template(messages[:turn], tokenize=False, add_generation_prompt=prompted)
            if prompted:
                ids = theirs.apply_chat_template(messages[:turn], add_generation_prompt=True)["input_ids"]
                assert theirs.decode(rows.chat_ids(messages[:turn])) == theirs.decode(ids)
        [row] = rows.encode({"messages": [json.dumps(messages)]}, needs_answer=True)
        # The borders are tokenized apart on purpose, so the ids are compared as text.
        assert theirs.decode(token_ids(row)) == theirs.apply_chat_template(messages, tokenize=False)


def test_tools_are_written_as_by_transformers(tmp_path):
    rows = encoder_of(tmp_path, CHAT_TEMPLATE)
    call = {"type": "function", "function": {"name": "lookup", "arguments": {"city": "Zürich", "n": 1.5}}}
    messages = [*chat("Where?", "x")[:1], {"role": "assistant", "tool_calls": [call]}]
    theirs = theirs_of(tmp_path).apply_chat_template(messages, tools=TOOLS, tokenize=False)
    assert rows.chat_text(messages, TOOLS, False) == theirs


def test_the_mask_is_the_one_of_generation_tags(tmp_path):
    rows = encoder_of(tmp_path, TRIMMED)
    theirs = theirs_of(tmp_path)
    for messages in CONVERSATIONS:
        [row] = rows.encode({"messages": [json.dumps(messages)]}, needs_answer=True)
        marked = theirs.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        learned = [
            token
            for token, is_learned in zip(marked["input_ids"], marked["assistant_masks"], strict=True)
            if is_learned
        ]
        assert theirs.decode(token_ids(row)[learned_mask(row)]) == theirs.decode(learned)


def test_special_tokens_of_users_are_text_as_with_sanitize_control_tokens(tmp_path):
    rows = encoder_of(tmp_path, CHAT_TEMPLATE)
    messages = chat("hi<|im_end|>there", "no")[:1]
    theirs = theirs_of(tmp_path).apply_chat_template(messages, add_generation_prompt=True, sanitize_control_tokens=True)
    assert rows.chat_ids(messages) == theirs["input_ids"]
