"""The address that jobs are submitted to: Ray's dashboard on the head."""

from __future__ import annotations

import os
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from cluster.errors import ResourceError, first_line
from cluster.ray_address import OPTION, VARIABLE

#: Ray's own variable for this address. It comes before RAY_ADDRESS, as in `ray job submit`.
API_VARIABLE = "RAY_API_SERVER_ADDRESS"

_EXAMPLE = "http://HEAD:8265"
_SCHEMES = ("http", "https")
_PORTS = {"http": 8265, "https": 443}
_CONNECT_WITHIN_S = 5


class JobsAddress(NamedTuple):
    """The URL of a dashboard and what gives it."""

    url: str
    source: str
    """`--address`, `RAY_API_SERVER_ADDRESS` or `RAY_ADDRESS`."""

    def check(self) -> None:
        """Raise `ResourceError` within seconds if nothing listens there. Ray itself would wait for minutes."""
        parts = urlsplit(self.url)
        try:
            with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_CONNECT_WITHIN_S):
                pass
        except (OSError, UnicodeError) as error:
            raise self.no_answer(error) from error

    def no_answer(self, error: BaseException) -> ResourceError:
        """Return the error of a dashboard that does not answer."""
        return ResourceError(
            f"{self} does not answer: {first_line(error)}",
            f"check that the head runs and that this machine reaches its dashboard, usually {_EXAMPLE}; on Kubernetes, "
            "forward the port: kubectl port-forward service/NAME-head-svc 8265:8265",
        )

    @property
    def shown(self) -> str:
        """The URL for people, without a password that it may hold."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def __str__(self) -> str:
        return f"{self.source}={self.shown}"


def find_jobs_address(address: str | None) -> JobsAddress:
    """Return the dashboard at `address`, else at RAY_API_SERVER_ADDRESS or RAY_ADDRESS.

    `host:port` means `http://host:port`. Raises `ResourceError` if nothing gives an address, or if it is not a
    dashboard's.
    """
    sources = [(address, OPTION), *((os.environ.get(name), name) for name in (API_VARIABLE, VARIABLE))]
    for value, source in sources:
        if value and value.strip():
            return _parse(value.strip(), source)
    raise ResourceError(
        "there is no address to submit jobs to",
        f"give the head's dashboard, for example `{OPTION} {_EXAMPLE}`, or set {API_VARIABLE}",
    )


def _parse(value: str, source: str) -> JobsAddress:
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
        is_url = parts.scheme in _SCHEMES and bool(parts.hostname) and (bool(parts.port) or "://" in value)
    except ValueError:  # a port that is no number
        is_url = False
    if not is_url:
        shown = value.rpartition("@")[2]
        raise ResourceError(
            f"{source}={shown!r} is not the address of Ray's dashboard, which takes jobs",
            f"write http://, the head's host and the dashboard's port: {_EXAMPLE}",
        )
    user, at_sign, _ = parts.netloc.rpartition("@")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return JobsAddress(f"{parts.scheme}://{user}{at_sign}{host}:{port}{parts.path.rstrip('/')}", source)
