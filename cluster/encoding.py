"""Letters outside ASCII on any terminal and in any locale.

raymill reads and writes the names and contents of files as UTF-8, whatever the locale. On the terminal, a letter that its
encoding does not have is shown as Python writes it: `gr\\xf6\\xdfe`. JSON has `\\u00f6` there, which every reader of JSON
turns back into the letter.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
from typing import IO, Any

from cluster.errors import SpecError

_REPLACE = "backslashreplace"


def use_utf8() -> None:
    """Start this command again in Python's UTF-8 mode if the locale would give files' names another encoding.

    A process cannot change the encoding of names later. The standard streams keep theirs: it is the terminal's.
    """
    if sys.flags.utf8_mode or _is_utf8(sys.getfilesystemencoding()) or not sys.executable:
        return
    os.environ["PYTHONUTF8"] = "1"  # for the processes that this command starts
    if "PYTHONIOENCODING" not in os.environ:
        os.environ["PYTHONIOENCODING"] = f"{stream_encoding(sys.stdout)}:{_REPLACE}"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def prepare_streams() -> None:
    """Let the standard streams of this process, and of those that it starts, show every text."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a test's stream may have none
        if reconfigure is not None:
            reconfigure(errors=_REPLACE)
    if not _is_utf8(stream_encoding(sys.stdout)):
        os.environ["PYTHONIOENCODING"] = f"{stream_encoding(sys.stdout)}:{_REPLACE}"


def open_text(descriptor: int, like: IO[str]) -> IO[str]:
    """Return a line-buffered text stream on a file descriptor, with the encoding of another stream."""
    return os.fdopen(descriptor, "w", buffering=1, encoding=stream_encoding(like), errors=_REPLACE)


def stream_encoding(stream: IO[str]) -> str:
    """Return the encoding of a text stream; UTF-8 of one that has none."""
    return getattr(stream, "encoding", None) or "utf-8"


def to_json(value: Any, stream: IO[str]) -> str:
    """Return a value as JSON on one line that `stream` can take: in ASCII if its encoding lacks a letter."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(stream_encoding(stream))
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def check_path(path: str) -> str:
    """Return a path. Raises `SpecError` if the locale has no letters for it, as may be without the command line."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise SpecError(
            f"{path!r} has the letter {error.object[error.start]!r}, which the encoding of this locale, "
            f"{error.encoding}, does not have",
            "set PYTHONUTF8=1 before Python starts, or use a UTF-8 locale: LC_ALL=C.UTF-8",
        ) from None
    return path


def _is_utf8(name: str) -> bool:
    return codecs.lookup(name).name == "utf-8"
