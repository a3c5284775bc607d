"""Normalize the Unicode form, white space and case of texts, so that texts with the same meaning become equal."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any


def make(params: dict[str, Any]) -> Callable[[str], str]:
    """Return the step for the parameters of `trainer.spec.steps.NormalizeSpec`."""
    form, whitespace, lowercase = params["unicode"], params["whitespace"], params["lowercase"]

    def step(text: str) -> str:
        if form != "none" and not text.isascii():
            text = unicodedata.normalize(form, text)
        if whitespace:
            text = " ".join(text.split())
        return text.lower() if lowercase else text

    return step
