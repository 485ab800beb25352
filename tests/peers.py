"""Peers that misbehave on purpose: silent, deaf, resetting, or cutting in the middle."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

RESET = struct.pack("ii", 1, 0)


class Peer:
    """A listener on a loopback port that treats each connection in its own thread."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError):  # ValueError: closed while it was waited for
            self.serve(client)

    def serve(self, client: socket.socket) -> None:
        """Do what this kind of peer does; by default never say a word."""
        while client.recv(65536):
            pass

    def close(self) -> None:
        """End it and every connection."""
        self.listener.close()
        for client in self.open:
            client.close()


class Resetting(Peer):
    """Resets each connection after the first bytes."""

    def serve(self, client: socket.socket) -> None:
        client.recv(1024)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()


class Talking(Peer):
    """Answers whatever is said first with words of another protocol."""

    def __init__(self, words: bytes) -> None:
        self.words = words
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        client.recv(1024)
        client.sendall(self.words)
        client.close()


class Imitation(Peer):
    """Lets everybody in as a PostgreSQL of some version would, then never answers a query."""

    def __init__(self, version: str) -> None:
        self.version = version
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        (length,) = struct.unpack("!i", client.recv(4))
        client.recv(length - 4)
        client.sendall(
            message(b"R", struct.pack("!i", 0))  # you are who you say
            + message(b"S", b"server_version\0" + self.version.encode() + b"\0")
            + message(b"S", b"client_encoding\0UTF8\0")
            + message(b"K", struct.pack("!ii", 1, 1))
            + message(b"Z", b"I")  # ready
        )
        super().serve(client)


def message(kind: bytes, content: bytes) -> bytes:
    """Return a message of PostgreSQL's protocol."""
    return kind + struct.pack("!i", len(content) + 4) + content


class Proxy(Peer):
    """Passes everything to a server until so many bytes came back, then says no more.

    It goes on acknowledging, which defeats timeouts of the network.
    """

    def __init__(self, port: int, *, after: int) -> None:
        self.upstream_port = port
        self.after = after
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        self.pass_on(client)

    def pass_on(self, client: socket.socket, first: bytes = b"") -> None:
        """Connect the client with the server, which is sent `first` before anything."""
        upstream = socket.create_connection(("127.0.0.1", self.upstream_port))
        self.open.append(upstream)
        upstream.sendall(first)
        left = self.after
        while True:
            for peer in select.select([client, upstream], [], [])[0]:
                data = peer.recv(65536)
                if not data:
                    client.close()
                    upstream.close()
                    return
                if peer is client:
                    upstream.sendall(data)
                elif left > 0:
                    client.sendall(data[:left])
                    left -= len(data)


class Forgetful(Proxy):
    """Passes everything to a server but the `options` that a client starts with."""

    def __init__(self, port: int) -> None:
        super().__init__(port, after=2**31)

    def serve(self, client: socket.socket) -> None:
        (length,) = struct.unpack("!i", client.recv(4, socket.MSG_WAITALL))
        start = client.recv(length - 4, socket.MSG_WAITALL)
        version, pairs = start[:4], start[4:].rstrip(b"\0").split(b"\0")
        kept = [pair for pair in zip(pairs[::2], pairs[1::2], strict=True) if pair[0] != b"options"]
        content = version + b"".join(b"\0".join(pair) + b"\0" for pair in kept) + b"\0"
        self.pass_on(client, struct.pack("!i", len(content) + 4) + content)


@contextmanager
def dropping() -> Iterator[int]:
    """A port whose SYNs are dropped: the queue of a listener that accepts nobody is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    waiting = []
    for _ in range(8):
        client = socket.socket()
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.connect(("127.0.0.1", port))
        waiting.append(client)
    try:
        yield port
    finally:
        listener.close()
        for client in waiting:
            client.close()
