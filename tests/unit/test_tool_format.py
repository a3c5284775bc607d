"""The format of tool calls, taken from chat templates; grammars that hold answers to it, and what is read from them."""

import json

import llguidance
import pytest

from serve.generation.tool_format import find_tool_format
from serve.openai.errors import ParameterError
from serve.openai.grammar import json_grammar, tool_grammar
from serve.openai.tool_parser import ToolParser, parse_calls
from support.tiny_causal import CHAT_TEMPLATE
from trainer.chat.template import ChatTemplate

LLAMA = (
    "{% for m in messages %}{% if m.role == 'tool' or m.tool_calls %}"
    "{% if m.tool_calls|length != 1 %}{{ raise_exception('only one call') }}{% endif %}"
    "<|start|>assistant<|end|>\n\n"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}<|eot|>'
    "{% else %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content }}<|eot|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
MISTRAL = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% elif m.tool_calls %}[CALLS] ["
    '{% for c in m.tool_calls %}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]</s>{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"], "additionalProperties": False}  # fmt: skip
TOOLS = [("get_weather", CITY), ("get_time", None)]
ARGUMENTS = '{"city": "Pa{r\\"is", "days": 3}'


def form_of(template, ends):
    compiled = ChatTemplate(template, {})
    return find_tool_format(
        lambda messages, tools, begins: compiled.render(messages, tools, add_generation_prompt=begins), ends
    )


FORMS = {
    "hermes": form_of(CHAT_TEMPLATE, ["<|im_end|>"]),
    "llama": form_of(LLAMA, ["<|eot|>"]),
    "mistral": form_of(MISTRAL, ["</s>"]),
}


def test_formats_of_templates():
    hermes, llama, mistral = FORMS.values()
    assert hermes.before == '<tool_call>\n{"name": "' and hermes.after == "}\n</tool_call>"
    assert hermes.trigger == "<tool_call>" and hermes.separators == (", ", ": ")
    assert llama.middle == '", "parameters": ' and llama.between is None and llama.trigger == ""
    assert mistral.between == '}, {"name": "' and mistral.after == "}]" and mistral.trigger == "[CALLS]"
    assert form_of(PLAIN, []) is None


@pytest.mark.parametrize("name", FORMS)
def test_calls_are_read_whole_and_letter_by_letter(name):
    form = FORMS[name]
    calls = [("get_weather", ARGUMENTS), ("get_time", "{}")][: 1 if form.between is None else 2]
    text = ("I look. " if form.trigger else "") + form.write(calls)
    content, whole = parse_calls(text, form)
    assert [(call["name"], call["arguments"]) for call in whole] == calls
    assert content == ("I look." if form.trigger else "")
    parser = ToolParser(form)
    parts = [parser.add(letter) for letter in text] + [parser.finish()]
    pieces = [delta for part in parts for delta in part.calls]
    assert "".join(part.content for part in parts) == content
    assert "".join(piece.arguments for piece in pieces) == "".join(arguments for _, arguments in calls)
    assert [piece.name for piece in pieces if piece.name] == [name for name, _ in calls]


@pytest.mark.parametrize("text", ["Hello <tool", "a < b\n", '{"name": "x"}', "<tool_cal is no call"])
def test_text_that_is_no_call_stays_content(text):
    parser = ToolParser(FORMS["hermes"])
    parts = [parser.add(letter) for letter in text] + [parser.finish()]
    assert "".join(part.content for part in parts) == text and parser.n_calls == 0


def accepts(grammar, text):
    tokenizer = llguidance.LLTokenizer("byte")
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
    return (not text or matcher.consume_tokens(tokenizer.tokenize_str(text))) and matcher.is_accepting()


@pytest.mark.parametrize("name", FORMS)
def test_grammars_take_calls_that_parse_and_nothing_else(name):
    form = FORMS[name]
    call = form.write([("get_weather", ARGUMENTS)])
    free, must = (tool_grammar(TOOLS, form, required=required, several=True) for required in (False, True))
    assert accepts(free, call) and accepts(must, call) and accepts(free, "Hello.") and not accepts(must, "Hello.")
    for wrong in (call.replace("days", "dys"), call.replace("get_weather", "nope"), call.replace("3}", '"3"}')):
        assert not accepts(free, wrong) and not accepts(must, wrong)
    two = form.write([("get_weather", ARGUMENTS), ("get_time", "{}")])
    one_only = tool_grammar(TOOLS, form, required=True, several=False)
    assert accepts(must, two) is (form.between is not None) and not accepts(one_only, two)
    if not form.trigger:  # the beginning of a call is that of any object
        with pytest.raises(ParameterError, match="tool_choice"):
            tool_grammar(TOOLS, form, required=False, several=True, content_schema={"type": "object"})
        return
    with_json = tool_grammar(TOOLS, form, required=False, several=True, content_schema={"type": "object"})
    assert accepts(with_json, call) and accepts(with_json, json.dumps({"a": 1})) and not accepts(with_json, "Hello.")


def test_schemas_hold_json():
    grammar = json_grammar(CITY, "response_format")
    assert accepts(grammar, ARGUMENTS) and not accepts(grammar, '{"days": 3}') and not accepts(grammar, "Hello.")
    assert accepts(json_grammar(None, "response_format"), '{"any": [1, null]}')
