"""Redaction: what it finds among other digits and signs, what it leaves, and that its time is linear in the text."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.timing import best_cpu_seconds
from trainer.steps import redact

CARD = "4111 1111 1111 1111"
KINDS = ["email", "card", "phone", "ip", "url"]


def step(*kinds, **patterns):
    return redact.make({"kinds": list(kinds), "patterns": patterns})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"pay {CARD} 12/27", "pay [CARD] 12/27"),
        (f"order 7 {CARD}", "order 7 [CARD]"),
        ("4111111111111111 123", "[CARD] 123"),
        (f"{CARD}-", "[CARD]-"),
        (f"-{CARD}", "-[CARD]"),
        (f"{CARD} and 5500-0000-0000-0004, 3400 000000 00009.", "[CARD] and [CARD], [CARD]."),
        (f"{CARD}, {CARD}", "[CARD], [CARD]"),
        (f"{CARD} {CARD}", "[CARD]"),
        ("4\u00a0111 1111 1111 11 11", "[CARD]"),
        ("x4111111111111111y", "x[CARD]y"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("4111 1111 1111", "4111 1111 1111"),
        ("41111111111111111111111", "41111111111111111111111"),  # 23 digits are not a card number
        ("4222222222222", "[CARD]"),
        ("12345678901234 on 2024-05-03", "12345678901234 on 2024-05-03"),
    ],
)
def test_cards_among_other_digits(text, expected):
    assert step("card")(text) == expected


groups = st.lists(st.text("0123456789", min_size=1, max_size=7), max_size=5)


@given(groups, groups, st.sampled_from([CARD, CARD.replace(" ", "-"), "3400 000000 00009", "4222222222222"]))
def test_a_card_is_found_whatever_digits_are_beside_it(before, after, card):
    found = step("card")(" ".join([*before, card, *after]))
    assert "[CARD]" in found
    # The whole card number is gone: the digits that are left stood before or after it.
    left, _, right = found.partition("[CARD]")
    assert " ".join(before).startswith(left.strip()) and " ".join(after).endswith(right.rpartition("[CARD]")[2].strip())


@given(st.text("0123456789 -", max_size=60))
def test_every_run_of_groups_with_a_right_check_digit_is_replaced_and_nothing_else(text):
    """The implementation agrees with the rule written in plain Python."""
    import re

    spans = [(found.start(), found.end()) for found in re.finditer(r"\d+", text)]
    covered = set()
    for first in range(len(spans)):
        for last in range(first, len(spans)):
            part = text[spans[first][0] : spans[last][1]]
            digits = [int(character) for character in part if character.isdigit()]
            joined = all(b[0] - a[1] == 1 for a, b in zip(spans[first:last], spans[first + 1 : last + 1], strict=True))
            doubled = [d if at % 2 == 0 else d * 2 - 9 * (d > 4) for at, d in enumerate(reversed(digits))]
            if joined and 13 <= len(digits) <= 19 and sum(doubled) % 10 == 0:
                covered |= set(range(spans[first][0], spans[last][1]))
    kept = "".join(character for at, character in enumerate(text) if at not in covered)
    assert step("card")(text).replace("[CARD]", "") == kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call +49 (0)30 1234567!", "call [PHONE]!"),
        ("0049-30-1234567, (+1 212 555 0100)", "[PHONE], ([PHONE])"),
        ("+44 20 7946 0958 or +442079460958", "[PHONE] or [PHONE]"),
        ("+" + "1" * 40, "+" + "1" * 40),
        ("2 + 2 = 4, +5 %, 1+1234567", "2 + 2 = 4, +5 %, 1+1234567"),
        ("at 10.0.0.1. Or 10.0.0.1", "at [IP]. Or [IP]"),
        ("1.2.3.4.5 and 256.1.1.1", "1.2.3.4.5 and 256.1.1.1"),
        ("HTTPS://A.B/c Www.x.de http://" + "a" * 5000, "[URL] [URL] [URL]"),
        ("jo@müller.de, " + "a" * 80 + "@b.de, no@where", "[EMAIL], [EMAIL], no@where"),
    ],
)
def test_the_other_kinds(text, expected):
    assert step(*KINDS)(text) == expected


def test_patterns_of_the_users_come_first():
    assert step("card", order="ORD [0-9 ]+")(f"{CARD}, ORD {CARD}") == "[CARD], [ORDER]"


PIECES = [
    "+", "+1", "+1 ", "+" + "1" * 40, "+1(", "+1)(", "+1 - ", "00", "001", "1 ", "1-", "12 ", "4111 1111 1111 1111 ", "1" * 18 + " ",
    "a@", "a@b.", "a.", "@", "a-", "1.", "10.0.", "1.1.1.1.", "www.", "http://", ":", "http", "٤ ", "0",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("piece", [*PIECES, ""])
def test_no_text_takes_more_than_linear_time(piece):
    redacted = step(*KINDS)
    texts = [piece * (100_000 // len(piece)), piece * (100_000 // len(piece)) + "x"] if piece else []
    for text in [*texts, "+" * 100_000 + "1" * 40, ("+" * 1000 + "1" * 40) * 100, "a" * 100_000 + "@"]:
        assert best_cpu_seconds(partial(redacted, text), 0.5) < 0.5


@given(st.text())
def test_it_never_raises(text):
    step(*KINDS)(text)
