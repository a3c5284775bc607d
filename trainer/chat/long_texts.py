"""Long texts in parts, each of which is a row of its own.

A part that is followed by another one ends with NUL, which no text of a user holds: nothing ends there, so no
end-of-text token is learned after it.
"""

from __future__ import annotations

from trainer.chat.tokenizer import SegmentTokenizer

GOES_ON = "\0"
# A part ends at a line end, else at a space, in its last eighth; else wherever it is full.
_LAST_SHARE = 8


def split_text(tokenizer: SegmentTokenizer, text: str, n_tokens: int) -> list[str]:
    """Return a text in parts of at most `n_tokens` tokens each; all but the last one end with `GOES_ON`."""
    parts = _cut(tokenizer, text, n_tokens)
    return [part + GOES_ON for part in parts[:-1]] + parts[-1:]


def whole_part(text: str) -> tuple[str, bool]:
    """Return a text without its mark, and whether it ends there."""
    return text.removesuffix(GOES_ON), not text.endswith(GOES_ON)


def _cut(tokenizer: SegmentTokenizer, text: str, n_tokens: int) -> list[str]:
    starts = tokenizer.starts(text)
    parts: list[str] = []
    first, begin = 0, 0
    while len(starts) - first > n_tokens:
        end = _border(text, starts, first, first + n_tokens)
        parts.append(text[begin : starts[end]])
        first, begin = end, starts[end]
    parts.append(text[begin:])
    if len(parts) == 1:
        return parts
    # A part by itself may have more tokens than inside the text, because nothing is merged across its borders.
    return [
        smaller
        for part in parts
        for smaller in ([part] if len(tokenizer.starts(part)) <= n_tokens else _halve(tokenizer, part, n_tokens))
    ]


def _border(text: str, starts: list[int], first: int, limit: int) -> int:
    """Return the token before which a part ends that begins with token `first` and may end before token `limit`."""
    earliest = max(first + 1, limit - (limit - first) // _LAST_SHARE)
    candidates = [token for token in range(limit, earliest - 1, -1) if starts[token] > starts[first]]
    for token in candidates:
        if text[starts[token] - 1] == "\n":
            return token
    for token in candidates:
        if text[starts[token]].isspace():
            return token
    return candidates[0] if candidates else limit


def _halve(tokenizer: SegmentTokenizer, text: str, n_tokens: int) -> list[str]:
    middle = max(1, len(text) // 2)
    return [part for half in (text[:middle], text[middle:]) for part in _cut(tokenizer, half, n_tokens)]
