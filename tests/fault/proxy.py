"""Between the parts and PostgreSQL: passes everything on, but for the answer to one chosen COMMIT."""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

SOCKET = ".s.PGSQL.5432"
CHUNK_BYTES = 1 << 16


class Proxy:
    """A unix socket before the server's own.

    Attributes:
        cut: the chosen COMMIT has been carried out, the server said so, and the connection was closed instead.
    """

    def __init__(self, folder: Path, server: Path) -> None:
        """Listens in `folder`; `server`: the folder of the server's socket."""
        self.cut = threading.Event()
        self._server = str(server / SOCKET)
        self._chosen: re.Pattern[bytes] | None = None
        self._choice = threading.Lock()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / SOCKET))
        self._listening.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, statement: str) -> None:
        """The answer to the COMMIT of the next transaction that has this in a statement, or in its values, is lost."""
        self.cut.clear()
        self._chosen = re.compile(statement.encode(), re.DOTALL)

    def close(self) -> None:
        """No connection any more; those that are open end with their server's."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def chooses(self, said: bytes) -> bool:
        """Whether this is the transaction whose answer is lost: true once."""
        with self._choice:
            found = self._chosen is not None and self._chosen.search(said) is not None
            if found:
                self._chosen = None
            return found

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(self._server)
                except OSError:  # it is being restarted
                    client.close()
                    continue
                _Connection(self, client, server)


class _Connection:
    """One client's connection: two threads, one for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._lost = False
        for target in (self._ask, self._answer):
            threading.Thread(target=target, daemon=True).start()

    def _ask(self) -> None:
        """Reads along what the client says since its last BEGIN."""
        statements: dict[bytes, bytes] = {}
        said = b""
        with contextlib.suppress(OSError):
            for kind, body in self._messages():
                if kind == b"P":  # a statement by name, to be used again
                    name, statement, _ = body.split(b"\0", 2)
                    statements[name] = statement
                elif kind == b"B":  # the values for it
                    said += statements.get(body.split(b"\0", 2)[1], b"") + body
                elif kind == b"Q":
                    said = body if body.startswith(b"BEGIN") else said + body
                    self._lost = body.startswith(b"COMMIT") and self._proxy.chooses(said)
                self._server.sendall(kind + struct.pack("!I", len(body) + 4) + body)
        self._close()

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        """Kind and body of each; the first one of a connection has no kind."""
        with self._client.makefile("rb") as stream:
            kind = b""
            while len(length := stream.read(4)) == 4:
                yield kind, stream.read(struct.unpack("!I", length)[0] - 4)
                if not (kind := stream.read(1)):
                    return

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := self._server.recv(CHUNK_BYTES):
                if self._lost:
                    if b"COMMIT\0" in chunk:  # CommandComplete: it is done
                        self._proxy.cut.set()
                    break
                self._client.sendall(chunk)
        self._close()

    def _close(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
