"""Replace personal data by its kind in brackets, for example [EMAIL].

The model never sees the personal data, neither in training nor in requests, and the model's folder does not hold it.
Prepared shards and quarantine.parquet do hold it: they contain the raw rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# Kind -> a character that every match contains, and the pattern. Each repeat is bounded or followed by a character that
# it cannot match itself, and no text matches in two ways, so that no pattern takes more than linear time.
_KNOWN = {
    "email": ("@", r"(?<![\w.+-])[\w.+-]+@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"),
    "card": (r"\d", r"(?<!\d)\d(?:[ \u00a0-]?\d){12,}"),
    "phone": ("[+0]", r"(?<![\w+])(?:\+|00)[1-9](?:\)?[ ./-]{0,3}\(?\d){6,14}(?!\d)"),
    "ip": (
        r"\.",
        r"(?<!\d)(?<!\d\.)(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\d)(?!\.\d)",
    ),
    "url": ("[:.]", r"(?i)\b(?:https?://|www\.)[^\s<>\"']+"),
}
# In this order, an e-mail address in a URL counts as a URL, and a card number that looks like a phone number as a card.
_ORDER = ("url", "email", "card", "ip", "phone")

_GROUP = re.compile(r"\d+")
_CARD_DIGITS = range(13, 20)


def make(params: dict[str, Any]) -> Callable[[str], str]:
    """Return the step for the parameters of `trainer.spec.steps.RedactSpec`."""
    known = [_compile_known(kind) for kind in _ORDER if kind in params["kinds"]]
    custom = [(re.compile(pattern), f"[{name.upper()}]") for name, pattern in sorted(params["patterns"].items())]

    def step(text: str) -> str:
        for pattern, name in custom:
            text = pattern.sub(name, text)
        for may_match, substitute, replacement in known:
            if may_match(text):
                text = substitute(replacement, text)
        return text

    return step


def _compile_known(kind: str) -> tuple[Callable[[str], Any], Callable[..., str], Any]:
    hint, pattern = _KNOWN[kind]
    return re.compile(hint).search, re.compile(pattern).sub, _replace_cards if kind == "card" else f"[{kind.upper()}]"


def _replace_cards(match: re.Match[str]) -> str:
    """Return a run of digit groups with its card numbers replaced.

    A card number has 13 to 19 digits in whole groups, with a valid check digit. Numbers that overlap are replaced
    together, because the remaining part of one could belong to the real number.
    """
    run = match.group()
    groups = [group.span() for group in _GROUP.finditer(run)]
    digits_before = [0]  # the number of digits before each group
    for start, end in groups:
        digits_before.append(digits_before[-1] + end - start)
    is_card = _check_digit_test([int(character) for character in run if character.isdigit()])
    cards: list[list[int]] = []  # first and last group of each card
    for first in range(len(groups)):
        last = _last_group_of_card(first, digits_before, is_card)
        if cards and first <= cards[-1][1]:
            cards[-1][1] = max(cards[-1][1], last)
        elif last >= 0:
            cards.append([first, last])
    parts, start = [], 0
    for first, last in cards:
        parts += [run[start : groups[first][0]], "[CARD]"]
        start = groups[last][1]
    return "".join(parts) + run[start:]


def _last_group_of_card(first: int, digits_before: list[int], is_card: Callable[[int, int], bool]) -> int:
    """Return the last group of the longest card number that begins with the group `first`, or -1."""
    longest, group = -1, first
    while group + 1 < len(digits_before):
        digits = digits_before[group + 1] - digits_before[first]
        if digits >= _CARD_DIGITS.stop:
            break
        if digits in _CARD_DIGITS and is_card(digits_before[first], digits_before[group + 1]):
            longest = group
        group += 1
    return longest


def _check_digit_test(digits: list[int]) -> Callable[[int, int], bool]:
    """Return the function that tells whether the digits from a start to an end have a valid check digit (Luhn).

    The function looks up sums that are computed once.
    """
    # Every second digit from the right is doubled, so each digit is summed in both ways.
    sums: tuple[list[int], list[int]] = ([0], [0])
    for index, digit in enumerate(digits):
        doubled = digit * 2 - 9 * (digit > 4)
        sums[index % 2].append(sums[index % 2][-1] + digit)
        sums[1 - index % 2].append(sums[1 - index % 2][-1] + doubled)
    return lambda start, end: (sums[(end - 1) % 2][end] - sums[(end - 1) % 2][start]) % 10 == 0
