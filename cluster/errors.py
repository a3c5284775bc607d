"""The errors that raymill raises on purpose, and the table of exit codes, HTTP statuses and metric labels for errors.

They are defined in `cluster` because every other package may import from it: `raymill` imports from `tune` and `serve`,
`tune` and `serve` import from `trainer`, and all of them import from `cluster`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple


class RaymillError(Exception):
    """A bug in raymill or in a library that it uses: exit code 1."""


class UserError(RaymillError):
    """An error that the user can correct: exit code 2.

    `problem` states the value and the rule it breaks; `fix` says what to change.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\n  fix: {self.fix}"


class SpecError(UserError):
    """The spec or a `--set` override is invalid."""


class DataError(UserError):
    """The rows do not match the spec."""


class ResourceError(UserError):
    """The cluster is too small or does not answer, the disk cannot be written, or a port is taken."""


class ModelError(UserError):
    """A model name, version, alias or file is unknown or damaged."""


class RequestError(RaymillError):
    """A request to an endpoint that is rejected.

    `status` is the response's HTTP status, `code` a stable word that clients can match, and `headers` are added to the
    response.
    """

    def __init__(self, status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


class ErrorOutcome(NamedTuple):
    """The exit code, HTTP status and metric label for an error."""

    exit_code: int
    http_status: int
    label: str


def user_error_in(error: BaseException | None) -> UserError | None:
    """Return the `UserError` in an error's chain of causes, where Ray may have wrapped it, or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        # Ray wraps the error of a task in a class that derives from RayTaskError and from the error's own class. Its
        # message is a traceback, so skip it and return its cause.
        if isinstance(error, UserError) and not isinstance(getattr(error, "cause", None), UserError):
            return error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return None


#: Class of error -> outcome. The first class that matches counts, so subclasses come before their base classes.
OUTCOMES: dict[type[BaseException], ErrorOutcome] = {
    SpecError: ErrorOutcome(2, 422, "spec"),
    DataError: ErrorOutcome(2, 422, "data"),
    ResourceError: ErrorOutcome(2, 503, "resources"),
    ModelError: ErrorOutcome(2, 404, "model"),
    UserError: ErrorOutcome(2, 422, "user"),
    KeyboardInterrupt: ErrorOutcome(130, 503, "interrupted"),
    TimeoutError: ErrorOutcome(1, 504, "timeout"),
    BaseException: ErrorOutcome(1, 500, "internal"),
}


def classify_error(error: BaseException) -> ErrorOutcome:
    """Return the outcome for `error`. A `RequestError` has its own status and label."""
    if isinstance(error, RequestError):
        return ErrorOutcome(2, error.status, error.code)
    return next(outcome for kind, outcome in OUTCOMES.items() if isinstance(error, kind))


def first_line(error: BaseException, limit: int = 300) -> str:
    """Return the first line of an error's message, cut to `limit` characters; the name of its type if it has none."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:limit]


def error_summary(error: BaseException, limit: int = 300) -> str:
    """Return the type of a library's error and the first line of its message, which is the problem of a `UserError`."""
    return f"{type(error).__name__}: {first_line(error, limit)}"


def suggest(word: str, known: Iterable[str], *, then: str = "") -> str:
    """Return "did you mean 'x'?" if a known word is close to `word`, else the list of known words. Append `then`."""
    hint = _suggest(word, known)
    return f"{hint}{'' if hint.endswith('?') else '.'} {then}" if then else hint


def _suggest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else "none exists yet"
