"""Compile glob patterns for paths that are not on a local disk."""

from __future__ import annotations

import re


def compile_glob(parts: list[str]) -> re.Pattern[str]:
    """Return a regular expression for whole paths that matches what `glob` matches.

    `parts` are the names between the pattern's slashes. `*` and `?` stay within a name and do not match the dot of a
    hidden name; `**` matches any number of folders.
    """
    pieces = []
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        if part == "**":
            pieces.append(r"(?:(?!\.)[^/]+/)*" + (r"(?!\.)[^/]+" if is_last else ""))
            continue
        text = r"(?!\.)" if part[:1] in "*?[" and part else ""
        for token in re.findall(r"\[!?\]?[^\]]*\]|.", part, re.DOTALL):
            if token in ("*", "?"):
                text += "[^/]*" if token == "*" else "[^/]"
            elif len(token) > 1:
                inner = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
                text += "[" + ("^/" + inner[1:] if inner.startswith("!") else inner.replace("^", r"\^")) + "]"
            else:
                text += re.escape(token)
        pieces.append(text + ("" if is_last else "/"))
    try:
        return re.compile("".join(pieces))
    except re.error:  # a range such as [z-a], which matches nothing in `glob`
        return re.compile(r"(?!)")
