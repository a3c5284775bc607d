"""HTML to text: visible text stays, text that only looks like a tag stays too, and time is linear in the input."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.timing import best_cpu_seconds
from trainer.steps.strip_html import visible_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My header <head> is loose, please call me", "My header  is loose, please call me"),
        ("<style> and <script> are loose", "and  are loose"),
        ("a<head><title>t</title></head>b", "a b"),
        ("<HEAD\n>no</hEaD ><Script>no</SCRIPT>yes", "yes"),
        ("<title>Re: refund</title> please", "Re: refund please"),
        ("<header>seen</header>", "seen"),
        ("a<script/>b", "a b"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("I <3 you > me, </3", "I <3 you > me, </3"),
        ("a <b it's > don't", "a  don't"),
        ("if a <b then", "if a <b then"),
        ("<a title=\"x > y\" href='>'>link</a>", "link"),
        ("<a title = \n '>'>link</a>", "link"),
        ("<a title='never closed>link</a>", "link"),
        ("<!DOCTYPE html><?xml version='1.0'?>text", "text"),
        ("a<!-- <b> -- > -->b<!-->c<!---->d", "abcd"),
        ("a <!-- loose -> b", "a <!-- loose -> b"),
        ("a</>b", "ab"),
        ("one<br>two<br/>three<BR />four", "one two three four"),
        ("one <p> two", "one  two"),
        ("wo<b>r</b>d<my-own>x", "word x"),
        ("&lt;b&gt; &amp;amp; &eacute;&#233;&#xE9;&nbsp;x", "<b> &amp; ééé\u00a0x"),
        ("AT&T, R&D & co; &unknown; &#; &#x;", "AT&T, R&D & co; &unknown; &#; &#x;"),
        ("<p>a &lt;i&gt; b</p>", "a <i> b"),
        ("&#xD800;&#0;", "\ufffd\ufffd"),
        ("&#" + "1" * 5000 + ";", "&#" + "1" * 5000 + ";"),
        ("<", "<"),
        ("<!", "<!"),
        ("&", "&"),
    ],
)
def test_what_is_seen(text, expected):
    assert visible_text(text) == expected


SIZE = 60_000  # of a text; one that takes quadratic time takes seconds
HOSTILE = [
    "<", "<a ", "<a b='", "<a b='\"", '<a b="\'', "<a b='>' ", "<!--", "<!-- -- >", "</", "<script>", "<script ", "</script",
    "<head><style><template>", "&", "&#", "&#x1", "&#" + "9" * 40, "&a", "<a=", "<a = ", "='", "<a b=''", "<a<a<a", "<a\n",
    "<p>", "</p>x", "<?", "<!", "<b ='>", "<b =\">='", "<!-", "-->", "<noscript", "<title>", "</head", "<x='></script",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("tail", ["", ">", "'>", "\">'>", "-->", "</script>", "</head"])
def test_broken_tags_take_linear_time(tail):
    for piece in HOSTILE:
        for start in ("", tail + "<a " * 5):
            text = start + piece * (SIZE // len(piece)) + tail
            assert best_cpu_seconds(partial(visible_text, text), 0.25) < 0.25, piece


PIECES = [*"<>/!?-='\"&#;x1 a\n", "<script", "</script", "<!--", "-->", '="', "&lt"]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_it_never_raises_and_comes_to_an_end(text):
    found = visible_text(text)
    assert len(found) <= len(text) + text.count("<")  # a space for each tag at most
    found.encode()


@given(st.text().filter(lambda text: "<" not in text and "&" not in text))
def test_what_has_neither_tag_nor_entity_stays_as_it_is(text):
    assert visible_text(text) == text


@given(st.lists(st.text(st.characters(exclude_characters="<&", exclude_categories=["Cs"]), min_size=1)))
def test_no_word_outside_of_whole_tags_is_lost(words):
    found = visible_text("<p>".join(words) + "<br>")
    assert "".join(found.split()) == "".join("".join(words).split())
