"""What must not be learned or stored, replaced by its name in brackets."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# Each repeat is bounded, so that no text takes more than linear time.
_KNOWN = {
    "email": r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",
    "card": r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])",
    "phone": r"(?<![\w+])(?:\+|00)[1-9]\d{0,2}(?:[ ./-]?\(?\d{1,4}\)?){2,6}(?!\d)",
    "ip": r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])",
    "url": r"\b(?:https?://|www\.)[^\s<>\"']{1,2000}",
}
# In this order: an address inside a link, or a card number that looks like a telephone, gets the wider name.
_ORDER = ("url", "email", "card", "ip", "phone")


def make(params: dict[str, Any]) -> Callable[[str], str]:
    """Return the step for the parameters of `trainer.spec.Redact`."""
    known = [(re.compile(_KNOWN[kind]), kind) for kind in _ORDER if kind in params["kinds"]]
    own = [(re.compile(pattern), name) for name, pattern in sorted(params["patterns"].items())]

    def step(text: str) -> str:
        for pattern, name in (*own, *known):
            text = pattern.sub(_card if name == "card" else f"[{name.upper()}]", text)
        return text

    return step


def _card(match: re.Match[str]) -> str:
    digits = [int(character) for character in match.group() if character.isdigit()]
    doubled = [digit if at % 2 == 0 else digit * 2 - 9 * (digit > 4) for at, digit in enumerate(reversed(digits))]
    return "[CARD]" if sum(doubled) % 10 == 0 else match.group()  # the Luhn check digit
