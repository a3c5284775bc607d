"""Errors of the OpenAI API: a request that cannot be used, with the name of the parameter."""

from __future__ import annotations

from cluster.errors import RequestError


class ParameterError(RequestError):
    """A parameter of a request that cannot be used. `param` is its name, as OpenAI's clients show it."""

    def __init__(self, param: str | None, message: str, code: str = "invalid_value", status: int = 400) -> None:
        super().__init__(status, code, message)
        self.param = param


def unsupported(param: str, reason: str) -> ParameterError:
    """Return the error for a parameter of OpenAI's API that this endpoint does not have."""
    return ParameterError(
        param, f"'{param}' is not supported by this endpoint: {reason}; leave it out", "unsupported_parameter"
    )
