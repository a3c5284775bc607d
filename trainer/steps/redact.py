"""What must not be learned, replaced by its name in brackets.

What it promises: the model does not learn it, is not asked with it, and the model's folder does not hold it. Prepared
shards and quarantine.parquet hold the rows as they came.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# Kind -> a character that it cannot be without, and itself. Each repeat is bounded or followed by what it cannot take
# itself, and no text can be read by it in two ways, so that none takes more than linear time.
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
# In this order: an address inside a link, or a card number that looks like a telephone, gets the wider name.
_ORDER = ("url", "email", "card", "ip", "phone")

_GROUP = re.compile(r"\d+")
_CARD_DIGITS = range(13, 20)


def make(params: dict[str, Any]) -> Callable[[str], str]:
    """Return the step for the parameters of `trainer.spec.run.Redact`."""
    known = [_known(kind) for kind in _ORDER if kind in params["kinds"]]
    own = [(re.compile(pattern), f"[{name.upper()}]") for name, pattern in sorted(params["patterns"].items())]

    def step(text: str) -> str:
        for pattern, name in own:
            text = pattern.sub(name, text)
        for may_be_in, replace, by in known:
            if may_be_in(text):
                text = replace(by, text)
        return text

    return step


def _known(kind: str) -> tuple[Callable[[str], Any], Callable[..., str], Any]:
    hint, pattern = _KNOWN[kind]
    return re.compile(hint).search, re.compile(pattern).sub, _without_cards if kind == "card" else f"[{kind.upper()}]"


def _without_cards(match: re.Match[str]) -> str:
    """Replace the card numbers in a run of digit groups: neighbouring groups of 13 to 19 digits with a right check digit.

    Numbers that overlap are replaced as one, lest the shorter half of the real one stays.
    """
    run = match.group()
    groups = [found.span() for found in _GROUP.finditer(run)]
    before = [0]  # how many digits stand before each group
    for start, end in groups:
        before.append(before[-1] + end - start)
    is_card = _luhn([int(character) for character in run if character.isdigit()])
    cards: list[list[int]] = []  # first and last group of each
    for first in range(len(groups)):
        last = _longest_card(first, before, is_card)
        if cards and first <= cards[-1][1]:
            cards[-1][1] = max(cards[-1][1], last)
        elif last >= 0:
            cards.append([first, last])
    parts, kept = [], 0
    for first, last in cards:
        parts += [run[kept : groups[first][0]], "[CARD]"]
        kept = groups[last][1]
    return "".join(parts) + run[kept:]


def _longest_card(at: int, before: list[int], is_card: Callable[[int, int], bool]) -> int:
    """Return the last group of the longest card that begins with group `at`, or -1."""
    found, end = -1, at
    while end + 1 < len(before) and (digits := before[end + 1] - before[at]) < _CARD_DIGITS.stop:
        if digits in _CARD_DIGITS and is_card(before[at], before[end + 1]):
            found = end
        end += 1
    return found


def _luhn(digits: list[int]) -> Callable[[int, int], bool]:
    """Return whether the digits from one place up to another have a right check digit, by sums made once."""
    # Every second digit from the right is doubled, so there are two ways to begin.
    sums: tuple[list[int], list[int]] = ([0], [0])
    for place, digit in enumerate(digits):
        doubled = digit * 2 - 9 * (digit > 4)
        sums[place % 2].append(sums[place % 2][-1] + digit)
        sums[1 - place % 2].append(sums[1 - place % 2][-1] + doubled)
    return lambda start, end: (sums[(end - 1) % 2][end] - sums[(end - 1) % 2][start]) % 10 == 0
