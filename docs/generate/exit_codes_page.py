"""docs/reference/exit-codes.md, from the table of errors in cluster/errors.py."""

from __future__ import annotations

import inspect

from cluster.errors import OUTCOMES
from docs.generate.markdown import code, generated_page, one_line, table

_CODES = [
    ["0", "success"],
    ["1", "a bug in raymill or in a library that it uses; `--debug` shows the traceback"],
    ["2", "you need to change something; the message says what, and how"],
    ["130", "you stopped it with Ctrl-C or SIGTERM; every process that it started has ended"],
]
_INTRODUCTION = """
A command ends with one of four exit codes. An error of code 2 has two lines: the problem, with the value and the rule that
it breaks, and after `fix:` what to change. With `--json` the error is `{"error": "..."}` on stdout.
"""


def build_page() -> str:
    """Return the page."""
    rows = []
    for cls, outcome in OUTCOMES.items():
        about = (
            one_line((inspect.getdoc(cls) or "").split("\n\n")[0])
            if cls.__module__ == "cluster.errors"
            else _PYTHON[cls]
        )
        rows.append([code(cls.__name__), str(outcome.exit_code), str(outcome.http_status), code(outcome.label), about])
    errors = "## Errors in Python\n\n" + (
        "`raymill.run` and the other functions raise these, from `cluster.errors`. A class comes before its base "
        "classes, and the first class that matches counts. The HTTP status and the label of metrics are for errors "
        "that occur while a request is answered.\n\n"
        + table(["error", "exit code", "HTTP status", "label", "meaning"], rows)
    )
    return generated_page(
        "Exit codes", "cluster/errors.py", _INTRODUCTION + "\n" + table(["exit code", "meaning"], _CODES), errors
    )


_PYTHON: dict[type[BaseException], str] = {
    KeyboardInterrupt: "The user stopped the command.",
    TimeoutError: "Something did not answer in time.",
    BaseException: "Anything else is a bug.",
}
