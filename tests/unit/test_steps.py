"""Cleaning steps: what each does, their order, and the source of custom functions."""

import sys
import time

import pytest

from cluster.errors import ModelError, SpecError
from trainer.contract.contract import Contract
from trainer.steps.cleaner import Cleaner, contract_steps
from trainer.tasks.load_spec import load_spec


def contract_of(step_list, folder):
    spec = load_spec({"name": "a", "data": {"train": "t.csv", "steps": step_list}, "model": {"base": "x/y"}})
    cleaning, files = contract_steps(spec.data, folder)
    return Contract(task="text-classification", columns={}, steps=cleaning, fitted={}, files=files)


@pytest.mark.parametrize(
    ("step_list", "text", "expected"),
    [
        (["normalize"], "  Cafe\u0301 \t au\n lait ", "Café au lait"),
        ([{"normalize": {"unicode": "NFKC", "lowercase": True}}], "ﬁnd Ｘ", "find x"),
        ([{"normalize": {"unicode": "none", "whitespace": False}}], " e\u0301 ", " e\u0301 "),
        (["strip_html"], "<p>Hello <b>wor</b>ld</p><p>again</p>", "Hello world again"),
        (["strip_html"], "a &lt; b &amp; c", "a < b & c"),
        (["strip_html"], "x<script>var a = 1 < 2</script><style>p{}</style><!-- no -->y", "x y"),
        (["strip_html"], "1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        (["strip_html"], "<td>one</td><td>two</td>", "one two"),
        (["redact"], "write to Jo.Doe+x@mail.example.co.uk!", "write to [EMAIL]!"),
        (["redact"], "card 4111 1111 1111 1111 please", "card [CARD] please"),
        (["redact"], "wrong check digit: 4111 1111 1111 1112", "wrong check digit: 4111 1111 1111 1112"),
        ([{"redact": {"kinds": ["phone", "ip", "url"]}}], "+49 (0)30 1234567 10.0.0.1 https://a.b/c?d=e",
         "[PHONE] [IP] [URL]"),
        ([{"redact": {"kinds": [], "patterns": {"order": "ORD-[0-9]+"}}}], "ORD-17 is late", "[ORDER] is late"),
        (["strip_html", "normalize", "redact"], "<i> a@b.de </i>", "[EMAIL]"),
        ([{"normalize": {"lowercase": True}}, "redact"], "A@B.DE", "[EMAIL]"),
        (["redact", {"normalize": {"lowercase": True}}], "A@B.DE", "[email]"),
    ],
)  # fmt: skip
def test_what_steps_do(tmp_path, step_list, text, expected):
    assert Cleaner(contract_of(step_list, tmp_path))([text]) == ([expected], [None])


def test_what_is_empty_after_cleaning_is_refused(tmp_path):
    texts, reasons = Cleaner(contract_of(["strip_html"], tmp_path))(["<br><br>", "fine", "<p>&#8203;</p>"])
    assert texts == ["<br><br>", "fine", "<p>&#8203;</p>"]
    assert reasons == ["empty after cleaning", None, "empty after cleaning"]


@pytest.mark.slow
def test_cleaning_a_hundred_thousand_short_texts_takes_about_a_second(tmp_path):
    cleaner = Cleaner(contract_of(["strip_html", "normalize", "redact"], tmp_path))
    texts = [f"hello, why was my card payment of {n} pounds declined yesterday in the shop?" for n in range(100_000)]
    begin = time.process_time()
    assert cleaner(texts) == (texts, [None] * len(texts))
    assert time.process_time() - begin < 3.0  # takes 0.5 s on a machine with 2 idle cores


def test_no_text_takes_more_than_linear_time(tmp_path):
    every = {"redact": {"kinds": ["email", "card", "phone", "ip", "url"]}}
    cleaner = Cleaner(contract_of(["strip_html", "normalize", every], tmp_path))
    for text in (
        "a" * 100_000,
        "1 " * 50_000,
        "a@" * 50_000,
        "<" * 100_000,
        "a." * 50_000 + "@",
        "+1 " * 30_000,
        "&#" * 50_000,
    ):
        cleaner([text])  # a quadratic step would exceed the time limit of the test


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_steps.py").write_text(
        "def clean(text):\n    return None if 'secret' in text else text.upper()\n\n\n"
        "def fail(text):\n    return 1 / 0\n\n\ndef wrong(text):\n    return 7\n"
    )
    yield tmp_path / "my_steps.py"
    sys.modules.pop("my_steps", None)
    sys.path.remove(str(tmp_path))


def test_a_custom_function(own_module, tmp_path):
    (tmp_path / "model").mkdir()
    contract = contract_of(["my_steps:clean"], tmp_path / "model")
    assert Cleaner(contract)(["abc", "a secret"]) == (["ABC", "a secret"], [None, "refused by my_steps:clean"])
    assert (tmp_path / "model" / "step_my_steps.py").read_text() == own_module.read_text()
    assert "step_my_steps.py" in contract.files
    own_module.write_text(own_module.read_text() + "# changed\n")
    with pytest.raises(ModelError, match="is not the source of my_steps:clean"):
        Cleaner(contract)


def test_a_function_that_fails_gives_the_row_a_reason(own_module, tmp_path):
    for name, reason in (
        ("fail", "my_steps:fail raised ZeroDivisionError: 'division by zero'"),
        ("wrong", "my_steps:wrong returned int, not a text"),
    ):
        assert Cleaner(contract_of([f"my_steps:{name}"], tmp_path))(["a"]) == (["a"], [reason])


@pytest.mark.parametrize(
    ("path", "message"),
    [("no_such_module:clean", "no module 'no_such_module'"), ("my_steps:nothing", "no 'nothing'")],
)
def test_a_function_that_is_missing(own_module, tmp_path, path, message):
    with pytest.raises(SpecError, match=message):
        contract_of([path], tmp_path)


def test_parameters_and_order_are_part_of_the_fingerprint(tmp_path):
    prints = {
        contract_of(step_list, tmp_path).fingerprint
        for step_list in (
            [],
            ["normalize"],
            [{"normalize": {"lowercase": True}}],
            ["normalize", "strip_html"],
            ["strip_html", "normalize"],
            [{"redact": {"patterns": {"a": "b"}}}],
        )
    }
    assert len(prints) == 6
    assert contract_of(["normalize", "deduplicate"], tmp_path) == contract_of(["normalize"], tmp_path)
