"""The errors raymill raises on purpose, and the one table from an error to its exit code, HTTP status and metric label.

Lives in `cluster` because every other package may import from here (`raymill` -> `tune`, `serve` -> `trainer` -> `cluster`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple


class RaymillError(Exception):
    """Something raymill itself got wrong, or a part it stands on failed: exit code 1."""


class UserError(RaymillError):
    """Something the user must change: exit code 2.

    `problem` states the value and the rule it breaks; `fix` says what to change.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\n  fix: {self.fix}"


class SpecError(UserError):
    """The spec, or a `--set` override, is wrong."""


class DataError(UserError):
    """The rows are not what the spec says they are."""


class ResourceError(UserError):
    """The cluster, the disk or a port cannot carry what was asked."""


class ModelError(UserError):
    """A model name, version, alias or file is unknown or damaged."""


class RequestError(RaymillError):
    """A request that a served model refuses. `status` is its HTTP status, `code` a stable word for clients, `headers` go with
    what the client is told."""

    def __init__(self, status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


class Outcome(NamedTuple):
    """What the outside sees of an error."""

    exit_code: int
    http_status: int
    label: str


def user_error_in(error: BaseException | None) -> UserError | None:
    """Return the user's own mistake somewhere in the chain of causes of an error that Ray wrapped, if there is one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # Ray wraps an error of a task in a class that is both its own and the error's: the message is the traceback then.
        if isinstance(error, UserError) and not isinstance(getattr(error, "cause", None), UserError):
            return error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return None


# First match wins: the narrow classes stand before the wide ones.
OUTCOMES: dict[type[BaseException], Outcome] = {
    SpecError: Outcome(2, 422, "spec"),
    DataError: Outcome(2, 422, "data"),
    ResourceError: Outcome(2, 503, "resources"),
    ModelError: Outcome(2, 404, "model"),
    UserError: Outcome(2, 422, "user"),
    KeyboardInterrupt: Outcome(130, 503, "interrupted"),
    TimeoutError: Outcome(1, 504, "timeout"),
    BaseException: Outcome(1, 500, "internal"),
}


def outcome(error: BaseException) -> Outcome:
    """Return how `error` is shown outside; a `RequestError` carries its own status."""
    if isinstance(error, RequestError):
        return Outcome(2, error.status, error.code)
    return next(found for kind, found in OUTCOMES.items() if isinstance(error, kind))


def first_line(error: BaseException, limit: int = 300) -> str:
    """Return the first line of an error's message, cut to `limit` characters; its type's name if it has no message."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:limit]


def nearest(word: str, known: Iterable[str], *, then: str = "") -> str:
    """Return "did you mean 'x'?" for the known word nearest to `word`, else the list of known words; and `then` after it."""
    found = _nearest(word, known)
    return f"{found}{'' if found.endswith('?') else '.'} {then}" if then else found


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else "there is none yet"
