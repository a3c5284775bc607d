"""Names as a tracker's service takes them, made of names that users give to columns and classes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable


def allowed_names(names: Iterable[str], refused: re.Pattern[str], max_length: int) -> dict[str, str]:
    """Return each name with `_` in place of the characters that a service refuses, at most `max_length` long.

    `price (EUR)` becomes `price _EUR_`. Slashes that do not separate two words become `_` too. Names that would be
    equal get a number. A name that the service takes stays as it is.
    """
    names = list(dict.fromkeys(names))
    allowed = {name: name for name in names if _clean(name, refused, max_length) == name}
    taken = set(allowed.values())
    for name in names:
        if name in allowed:
            continue
        clean = _clean(name, refused, max_length)
        number = 2
        unique = clean
        while unique in taken:
            unique = f"{clean[: max_length - len(str(number)) - 1]}_{number}"
            number += 1
        taken.add(unique)
        allowed[name] = unique
    return {name: allowed[name] for name in names}


def _clean(name: str, refused: re.Pattern[str], max_length: int) -> str:
    clean = refused.sub("_", name)[:max_length]
    # Services take a name with slashes for a path, and refuse `a//b` and `../a`.
    is_path = clean == posixpath.normpath(clean) and not clean.startswith(("/", "..")) and clean != "."
    return clean if is_path else re.sub(r"[/]|^\.+$|^\.\.", "_", clean) or "_"
