"""Connections to targets: bounded, anonymous towards strangers, and nothing of ours leaks."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from monitors.pg import connect
from monitors.pg.connect import Address, default_require_auth, default_sslmode
from monitors.pg.errors import Unreachable, reason_of
from tests import peers
from tests.servers import Server


def address_of(server: Server, **changes: object) -> Address:
    known = {
        "host": server.host,
        "port": server.port,
        "user": "collector",
        "dbname": "postgres",
        "sslmode": "disable",
        "require_auth": "",
        "password": server.password,
    }
    return Address(**{**known, **changes})  # type: ignore[arg-type]


def open_reader(address: Address, **options: object) -> psycopg.Connection:
    known = {
        "purpose": "test",
        "statement_timeout_ms": 1000,
        "lock_timeout_ms": 500,
        "read_only": True,
    }
    return connect.open_target(address, **{**known, **options})  # type: ignore[arg-type]


def test_every_session_has_its_limits(embedded: Server) -> None:
    with open_reader(address_of(embedded), client_connection_check=True) as session:
        names = (
            "statement_timeout",
            "lock_timeout",
            "search_path",
            "default_transaction_read_only",
            "application_name",
            "idle_in_transaction_session_timeout",
            "client_connection_check_interval",
        )
        shown = ", ".join(f"current_setting('{name}')" for name in names)
        found = session.execute(f"SELECT {shown}".encode()).fetchone()

    assert found == ("1s", "500ms", '""', "on", "howdah:test", "30s", "1s")


def test_the_password_is_in_no_representation(embedded: Server) -> None:
    assert embedded.password not in repr(address_of(embedded))


def test_a_reader_cannot_write(embedded: Server) -> None:
    address = address_of(embedded, user="owner", dbname="shop")

    with open_reader(address) as session, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        session.execute("CREATE TABLE public.made (id int)")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"port": 1}, "Connection refused: no server listens there."),
        ({"password": "wrong"}, "Password authentication failed: check user and password."),
        ({"dbname": "nowhere"}, "The database does not exist on the server."),
        (
            {"sslmode": "require"},
            "The server does not offer TLS: enable it there, or choose a weaker sslmode.",
        ),
        ({"host": "does-not-exist.invalid"}, "does not resolve"),
    ],
)
def test_each_mistake_has_its_sentence(
    embedded: Server, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(Unreachable) as caught:
        open_reader(address_of(embedded, **changes))

    assert reason in str(caught.value)
    assert embedded.password not in str(caught.value)


class Rogue:
    """Something that accepts, asks for a clear-text password and keeps what it is sent."""

    def __init__(self, *, speaks: bool = True) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.received = b""
        self.speaks = speaks
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            peer.settimeout(2)
            try:
                self.received += peer.recv(4096)
                if self.speaks:
                    peer.sendall(b"R\x00\x00\x00\x08\x00\x00\x00\x03")
                else:
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                self.received += peer.recv(4096)
            except OSError:
                pass
            finally:
                peer.close()


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    found = Rogue()
    yield found
    found.listener.close()


def test_a_rogue_server_gets_no_password_and_nothing_of_our_environment(
    embedded: Server, rogue: Rogue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    canary = "canary-of-the-process"
    (tmp_path / ".pgpass").write_text(f"*:*:*:*:{canary}\n")
    (tmp_path / ".pgpass").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGPASSWORD", canary)
    monkeypatch.setenv("PGUSER", canary)
    monkeypatch.setenv("PGSERVICE", canary)

    for password in (embedded.password, None):
        with pytest.raises(Unreachable) as caught:
            open_reader(address_of(embedded, port=rogue.port, password=password))
        assert "require_auth" in str(caught.value) or "password" in str(caught.value)

    assert rogue.received
    assert canary.encode() not in rogue.received
    assert embedded.password.encode() not in rogue.received
    assert "PGPASSWORD" not in os.environ


def test_something_that_is_no_postgresql_is_called_so(embedded: Server) -> None:
    web = Rogue(speaks=False)
    try:
        with pytest.raises(Unreachable) as caught:
            open_reader(address_of(embedded, port=web.port))
    finally:
        web.listener.close()

    assert str(caught.value) == "What answers there does not speak PostgreSQL's protocol."


def test_a_database_name_is_never_a_connection_string(embedded: Server, rogue: Rogue) -> None:
    name = f"host=127.0.0.1 port={rogue.port} dbname=postgres"

    with pytest.raises(Unreachable) as caught:
        open_reader(address_of(embedded, dbname=name))

    assert str(caught.value) == "The database does not exist on the server."
    assert rogue.received == b""


def test_what_drops_our_settings_is_refused_and_set_to_nothing(server: Server) -> None:
    """One session for all clients would give them to everybody, PGlite's socket for one."""
    between = peers.Forgetful(server.port)
    began = server.log_size()
    try:
        with pytest.raises(Unreachable) as caught:
            open_reader(address_of(server, port=between.port))
    finally:
        between.close()

    assert str(caught.value).startswith(
        "What answers there did not keep Howdah's settings (statement_timeout, lock_timeout,"
        " default_transaction_read_only and "
    )
    assert str(caught.value).endswith("Connect to the PostgreSQL server itself.")
    assert "set_config" not in server.log_text(since=began)


class SilentProxy:
    """Passes everything on until it is told to be silent; acknowledges all the while."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.silent = False
        self.upstream_port = port
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        client, _ = self.listener.accept()
        upstream = socket.create_connection(("127.0.0.1", self.upstream_port))
        other = {client: upstream, upstream: client}
        while True:
            for peer in select.select([client, upstream], [], [], 5)[0]:
                data = peer.recv(65536)
                if not data:
                    client.close()
                    upstream.close()
                    return
                if not self.silent:
                    other[peer].sendall(data)


def test_a_peer_that_falls_silent_frees_the_thread_at_the_deadline(embedded: Server) -> None:
    proxy = SilentProxy(embedded.port)
    session = open_reader(address_of(embedded, port=proxy.port), statement_timeout_ms=60000)
    proxy.silent = True
    began = time.monotonic()

    with pytest.raises(Unreachable) as caught, connect.deadline(session, 1):
        session.execute("SELECT 1")

    assert 0.9 < time.monotonic() - began < 2
    assert str(caught.value) == "The server did not answer within 1 s."
    proxy.listener.close()


def test_a_deadline_that_was_kept_leaves_the_connection_usable(embedded: Server) -> None:
    with open_reader(address_of(embedded)) as session:
        with connect.deadline(session, 0.3):
            session.execute("SELECT 1")
        time.sleep(0.4)  # past the deadline: the watchdog must have forgotten it

        assert session.execute("SELECT 1").fetchone() == (1,)


def test_loopback_needs_no_tls_and_all_else_the_strictest() -> None:
    assert default_sslmode("127.0.0.1") == "disable"
    assert default_sslmode("db.example.org") == "verify-full"
    assert default_require_auth("db.example.org", "require") == "scram-sha-256"
    assert default_require_auth("db.example.org", "verify-full") == "!password"
    assert default_require_auth("127.0.0.1", "disable") == "!password"


def test_a_reason_is_capped_and_ends_in_a_full_stop() -> None:
    reason = reason_of(psycopg.Error("x" * 5000))

    assert len(reason) <= 300
    assert reason.endswith(".")
