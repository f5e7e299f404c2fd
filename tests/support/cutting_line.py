"""A line between a client and API replicas that breaks at chosen places of what the client sends."""

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence

_PIECE_BYTES = 2**16


class CuttingLine:
    """Forwards TCP to `target`. When the client has sent `cuts[n]` bytes in all, its connection is reset, and
    `on_cut(n)` may change the target before the next one is taken."""

    def __init__(self, target: tuple[str, int], cuts: Sequence[int], on_cut: Callable[[int], None]) -> None:
        self.target = target
        self.cuts_made = 0
        self._cuts = sorted(cuts)
        self._on_cut = on_cut
        self._sent = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        """Where clients send to."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "CuttingLine":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        try:
            with self._lock:  # who comes while a replica starts again waits
                target = self.target
            server = socket.create_connection(target, timeout=120)
        except OSError:
            client.close()
            return
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while piece := client.recv(_PIECE_BYTES):
                with self._lock:
                    self._sent += len(piece)
                    beyond = self._sent - self._cuts[self.cuts_made] if self.cuts_made < len(self._cuts) else -1
                    if beyond >= 0:
                        server.sendall(piece[: len(piece) - beyond])
                        self._cut(client, server)
                        return
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)
        back.join()
        client.close()
        server.close()

    def _cut(self, client: socket.socket, server: socket.socket) -> None:
        _reset(client)
        _reset(server)
        number, self.cuts_made = self.cuts_made, self.cuts_made + 1
        self._on_cut(number)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
