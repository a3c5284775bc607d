"""What `glob` means by a pattern, for paths that are not on a local disk."""

from __future__ import annotations

import re


def compiled(parts: list[str]) -> re.Pattern[str]:
    """Return the pattern, given as its names between slashes, as a regular expression for whole paths.

    `*` and `?` stay within a name and do not stand for the dot of a hidden one; `**` goes through folders.
    """
    pieces = []
    for place, piece in enumerate(parts):
        last = place == len(parts) - 1
        if piece == "**":
            pieces.append(r"(?:(?!\.)[^/]+/)*" + (r"(?!\.)[^/]+" if last else ""))
            continue
        text = r"(?!\.)" if piece[:1] in "*?[" and piece else ""
        for token in re.findall(r"\[!?\]?[^\]]*\]|.", piece, re.DOTALL):
            if token in ("*", "?"):
                text += "[^/]*" if token == "*" else "[^/]"
            elif len(token) > 1:
                inner = token[1:-1].replace("\\", r"\\")
                text += "[" + ("^/" + inner[1:] if inner.startswith("!") else inner.replace("^", r"\^")) + "]"
            else:
                text += re.escape(token)
        pieces.append(text + ("" if last else "/"))
    try:
        return re.compile("".join(pieces))
    except re.error:  # a range from z to a: `glob` matches nothing by it
        return re.compile(r"(?!)")
