"""The address of the Ray cluster to join: who gives it, and what is wrong with it."""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from cluster.errors import ResourceError, first_line
from cluster.ray_internals import HEAD_QUESTION
from cluster.ray_token import is_refusal, sent_token, token_error

#: The address that asks for a Ray on this machine.
LOCAL = "local"
#: The address of a Ray that runs on this machine, wherever it listens.
AUTO = "auto"
#: The variable that gives the address if nothing else does. Ray sets it inside a Ray job.
VARIABLE = "RAY_ADDRESS"
#: The option of commands that take a model instead of a spec.
OPTION = "--address"

_CLIENT = "ray://"
_CONNECT_WITHIN_S = 5
_HEAD_PORT = 6379
_GOOD, _NO_GRPC, _REFUSED = "good", "no gRPC", "refused"


class RayAddress(NamedTuple):
    """An address and where it stands."""

    value: str
    source: str
    """`cluster.address`, `--address` or `RAY_ADDRESS`."""

    def check(self) -> None:
        """Raise `ResourceError` within seconds if this is no address of a cluster, if nothing listens there, or if it
        refuses the token of this process.

        Ray itself would try for half a minute.
        """
        if self.value == AUTO:
            return
        host, port = self._host_and_port()
        try:
            with socket.create_connection((host, port), timeout=_CONNECT_WITHIN_S):
                pass
        except (OSError, UnicodeError) as error:
            raise self.no_answer(error) from error
        answer = _ask_grpc(host, port)
        if answer == _NO_GRPC:
            raise self._no_address(f"what listens there is no Ray; a head's port is usually {_HEAD_PORT}")
        if answer == _REFUSED:
            raise token_error(str(self))

    def no_answer(self, error: BaseException) -> ResourceError:
        """Return the error of a cluster that does not answer, or that refuses this process."""
        if is_refusal(error):
            return token_error(str(self))
        return ResourceError(f"{self} does not answer: {first_line(error)}", f"start its head, or {self._remedy}")

    def _host_and_port(self) -> tuple[str, int]:
        scheme, separator, rest = self.value.rpartition("://")
        if scheme in ("http", "https"):
            raise ResourceError(
                f"{self} is the address of Ray's dashboard, which `raymill submit` takes; a cluster is joined at host:port "
                "or ray://host:port",
                f"use `raymill submit`, or {self._remedy}",
            )
        if separator and scheme != "ray":
            raise self._no_address(f"Ray has no addresses that begin with {scheme}://")
        host, _, port = rest.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise self._no_address("a host and a port from 1 to 65535 are needed, for example head:6379")
        return host.removeprefix("[").removesuffix("]"), int(port)

    def _no_address(self, reason: str) -> ResourceError:
        return ResourceError(f"{self} is no address of a Ray cluster: {reason}", self._remedy)

    @property
    def _remedy(self) -> str:
        """What to do to use another address, or none."""
        if self.source == VARIABLE:
            return (
                f"unset the environment variable {VARIABLE} to run on this machine; to join a cluster, set it to "
                f"{AUTO}, host:port or {_CLIENT}host:port"
            )
        return f"change `{self.source}` to {AUTO}, host:port or {_CLIENT}host:port, or remove it to run on this machine"

    def __str__(self) -> str:
        return f"{self.source}={self.value!r}"


def find_address(address: str | None, source: str = "cluster.address") -> RayAddress | None:
    """Return the cluster to join: at `address`, which `source` gives, else at RAY_ADDRESS. None for this machine."""
    if address:
        cluster = RayAddress(address.strip(), source)
    else:
        cluster = RayAddress(os.environ.get(VARIABLE, "").strip(), VARIABLE)
    return None if cluster.value in ("", LOCAL) else cluster


def _ask_grpc(host: str, port: int) -> str:
    """Return whether a server answers in gRPC, as a head does, and takes the token of this process.

    What cannot be found out counts as a good answer.
    """
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return _GOOD
    try:
        import grpc
    except ImportError:
        return _GOOD
    token = sent_token()
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_WITHIN_S)
            channel.unary_unary(HEAD_QUESTION)(b"", timeout=_CONNECT_WITHIN_S, metadata=metadata)
        except grpc.FutureTimeoutError:
            return _NO_GRPC
        except grpc.RpcError as error:
            return _REFUSED if error.code() is grpc.StatusCode.UNAUTHENTICATED else _GOOD
    return _GOOD
