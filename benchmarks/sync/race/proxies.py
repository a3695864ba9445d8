"""A TCP proxy that counts what passes through it, so that nobody has to be believed about the bytes they send."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

_READ_BYTES = 256 * 2**10
# Google's client for Go asks for this instead of the status 308, and the emulator does not know of it.
_NO_308_ASKED = b"x-guploader-no-308"
_STATUS_308 = b"HTTP/1.0 308 "
_INSTEAD = b"HTTP/1.0 200 OK\r\nX-Http-Status-Code-Override: 308\r\nX-Was: "


class CountingProxy:
    """A port on loopback whose connections go on to another one; counts the bytes of TCP payload both ways.

    What is counted are all bytes of the conversation, headers of requests and answers among them.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._guard = threading.Lock()
        self.sent_bytes = self.received_bytes = 0
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def restart_count(self) -> None:
        """Begin again at zero."""
        with self._guard:
            self.sent_bytes = self.received_bytes = 0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target_port))
            no_308 = threading.Event()
            for near, far, pump in ((client, server, self._pump_up), (server, client, self._pump_down)):
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=pump, args=(near, far, no_308), daemon=True).start()

    def _pump_up(self, near: socket.socket, far: socket.socket, no_308: threading.Event) -> None:
        buffer = bytearray(_READ_BYTES)
        with contextlib.suppress(OSError):
            while count := near.recv_into(buffer):
                with self._guard:
                    self.sent_bytes += count
                if not no_308.is_set() and _NO_308_ASKED in bytes(buffer[:4096]).lower():
                    no_308.set()
                far.sendall(memoryview(buffer)[:count])
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_WR)

    def _pump_down(self, near: socket.socket, far: socket.socket, no_308: threading.Event) -> None:
        buffer = bytearray(_READ_BYTES)
        with contextlib.suppress(OSError):
            while count := near.recv_into(buffer):
                with self._guard:
                    self.received_bytes += count
                answer = memoryview(buffer)[:count]
                if no_308.is_set() and buffer.startswith(_STATUS_308):
                    far.sendall(_INSTEAD)
                    answer = answer[len(_STATUS_308) :]
                far.sendall(answer)
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_WR)
