"""A network between a client and a server that a test can break."""

from __future__ import annotations

import contextlib
import socket
import threading

_CHUNK_BYTES = 65_536


class Forwarder:
    """Forwards connections to a port on the loopback interface, while its network is up."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._sockets: set[socket.socket] = set()
        self._flows = threading.Event()  # cleared: bytes wait, as with a cable that is unplugged
        self._flows.set()
        self._is_down = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The address to give to the client."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Close all connections, and refuse new ones until `mend`."""
        self._is_down = True
        for connection in list(self._sockets):
            _close(connection)

    def freeze(self) -> None:
        """Hold all bytes back until `mend`; connections stay open."""
        self._flows.clear()

    def mend(self) -> None:
        """Let everything through again. Connections that were frozen stay silent: their other end has given up."""
        frozen = [] if self._flows.is_set() else list(self._sockets)
        self._is_down = False
        self._flows.set()
        for connection in frozen:
            self._sockets.discard(connection)

    def close(self) -> None:
        """End it."""
        self.cut()
        self._flows.set()
        _close(self._listener)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_down:
                    _close(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self._target_port))
                self._sockets |= {client, server}
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(_CHUNK_BYTES):
                self._flows.wait()
                if source not in self._sockets and not self._is_down:
                    return  # it was frozen: nothing more arrives, and nothing says so
                sink.sendall(content)
        if source in self._sockets:
            _close(source)
            _close(sink)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
