"""The race's proxy counts every byte that passes through it, both ways."""

from __future__ import annotations

import socket
import threading

from benchmarks.sync.race.proxies import CountingProxy


def test_a_proxy_counts_what_passes_and_changes_nothing() -> None:
    question, answer = b"q" * 300_000, b"HTTP/1.0 308 Resume Incomplete\r\n\r\n" + b"a" * 500_000
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            received = b""
            while len(received) < len(question):
                received += connection.recv(65536)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    with server, CountingProxy(server.getsockname()[1]) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            client.sendall(question)
            received = b""
            while len(received) < len(answer):
                received += client.recv(65536)
        assert received == answer
        assert (proxy.sent_bytes, proxy.received_bytes) == (len(question), len(answer))
        proxy.restart_count()
        assert (proxy.sent_bytes, proxy.received_bytes) == (0, 0)
