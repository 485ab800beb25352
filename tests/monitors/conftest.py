"""People with roles, tables to maintain, and a shortcut through preview and request."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core.management import call_command
from psycopg import sql

from dashboard.embedded.postgres import Cluster
from tests import servers
from tests.conftest import missing
from tests.servers import Server

if TYPE_CHECKING:  # this file is read before Django is set up
    from django.contrib.auth.models import User

    from monitors.models import Action, Target


@pytest.fixture(params=servers.MAJORS, ids=str)
def own_server(request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, Server]]:
    """A server that the test may stop, crash, and overfill with statements; of each version."""
    try:
        programs = servers.fleet_programs(request.param)
    except servers.Missing as error:
        missing(str(error))
        raise
    usual = {
        "log_statement": "none",
        "restart_after_crash": "on",
        "pg_stat_statements.max": "100",
    }
    with (
        servers.home() as folder,
        servers.stoppable(request.param, programs, folder, **usual) as own,
    ):
        yield own


@pytest.fixture
def person(db: None) -> Callable[..., User]:
    """Make an account: person("dba"), person("viewer", target=…), person() without any right."""

    from django.contrib.auth.models import User  # noqa: PLC0415

    from monitors.models import Grant  # noqa: PLC0415

    def make(role: str = "", *, name: str = "", **scope: Any) -> User:
        user = User.objects.create_user(name or f"{role or 'stranger'}-{secrets.token_hex(3)}")
        if role:
            Grant.objects.create(user=user, role=role, **scope)
        return user

    return make


@pytest.fixture
def table(worker_id: str, eventually: Callable[..., None]) -> Iterator[Callable[..., str]]:
    """Make a table with dead rows in the database `shop`: table(server) -> public.name."""
    made: list[tuple[Server, str]] = []

    def make(server: Server, *, owner: str = "owner", dead: int = 100) -> str:
        name = f"dead_{worker_id}_{secrets.token_hex(4)}"
        with server.connect(user=owner, dbname="shop") as connection:
            connection.execute(
                sql.SQL(
                    "CREATE TABLE public.{} (id bigint) WITH (autovacuum_enabled = false)"
                ).format(sql.Identifier(name))
            )
            connection.execute(
                sql.SQL("INSERT INTO public.{} SELECT generate_series(1, 1000)").format(
                    sql.Identifier(name)
                )
            )
            connection.execute(
                sql.SQL("DELETE FROM public.{} WHERE id <= %s").format(sql.Identifier(name)), [dead]
            )
        made.append((server, name))
        with server.connect(dbname="shop") as connection:  # 14 tells its statistics late
            eventually(
                lambda: (
                    connection.execute(
                        "SELECT pg_stat_get_dead_tuples(%s::regclass)", [f"public.{name}"]
                    ).fetchone()
                    == (dead,)
                )
            )
        return f"public.{name}"

    yield make
    for server, name in made:
        with server.connect(dbname="shop") as connection:
            connection.execute(
                sql.SQL("DROP TABLE IF EXISTS public.{} CASCADE").format(sql.Identifier(name))
            )


Asked = Callable[..., "Action"]


@pytest.fixture
def previewed(db: None) -> Asked:
    """Preview as a worker does: previewed(user, target, "vacuum", table="public.t")."""
    from monitors.acting import ask as run, preview  # noqa: PLC0415
    from monitors.actions import ACTIONS  # noqa: PLC0415

    def make(user: User, target: Target, name: str, **arguments: str) -> Action:
        takes = {parameter.name for parameter in ACTIONS[name].parameters}
        where = {"database": "shop"} if "database" in takes else {}
        draft = run.preview(user, target, name, {**where, **arguments}, source="test")
        preview.preview_now(str(draft.pk))
        draft.refresh_from_db()
        return draft

    return make


@pytest.fixture
def requested(previewed: Asked) -> Asked:
    """Preview and request; the row waits for a worker."""
    from monitors.acting import ask as run  # noqa: PLC0415

    def make(user: User, target: Target, name: str, **arguments: str) -> Action:
        draft = previewed(user, target, name, **arguments)
        assert draft.preview["refused"] == ""
        return run.request(user, draft, source="test")

    return make


@pytest.fixture
def done(requested: Asked) -> Asked:
    """Preview, request and perform, in this process."""
    from monitors.acting import perform  # noqa: PLC0415

    def make(user: User, target: Target, name: str, **arguments: str) -> Action:
        row = requested(user, target, name, **arguments)
        perform.perform(str(row.pk))
        row.refresh_from_db()
        return row

    return make


def times_of(server: Server, pid: int) -> dict[str, str]:
    """Return a backend's pid and times as the server writes them, those that it has."""
    with server.connect() as connection:
        row = connection.execute(
            "SELECT pid::text, backend_start::text, query_start::text, xact_start::text,"
            " state_change::text FROM pg_stat_activity WHERE pid = %s",
            [pid],
        ).fetchone()
    assert row is not None
    names = ("pid", "backend_start", "query_start", "xact_start", "state_change")
    return {name: text for name, text in zip(names, row, strict=True) if text}


def wait_until_old(server: Server, pid: int) -> None:
    """Wait until a backend's statement began so long ago that it may be cancelled."""
    from monitors.pg.signals import YOUNG  # noqa: PLC0415

    with server.connect() as eye:
        while eye.execute(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
            " AND query_start > clock_timestamp() - %s::interval",
            [pid, YOUNG],
        ).fetchone():
            time.sleep(0.02)


@pytest.fixture
def active(server: Server) -> Callable[[int], dict[str, str]]:
    """The arguments that name a backend's statement, once it is old enough: active(pid)."""

    def read(pid: int) -> dict[str, str]:
        wait_until_old(server, pid)
        times = times_of(server, pid)
        return {name: times[name] for name in ("pid", "backend_start", "query_start")}

    return read


@pytest.fixture
def idle_in_transaction(server: Server) -> Callable[[int], dict[str, str]]:
    """The arguments that name a backend that idles in a transaction."""

    def read(pid: int) -> dict[str, str]:
        times = times_of(server, pid)
        return {
            name: times[name] for name in ("pid", "backend_start", "xact_start", "state_change")
        }

    return read


Session = psycopg.Connection[Any]


@pytest.fixture
def background(server: Server, live: Callable[..., Session]) -> Iterator[Callable[..., Any]]:
    """Run a statement in a thread: background(session, "SELECT …") -> thread.

    Ended before `live` closes the sessions: libpq does not survive a
    connection that is closed under a running statement.
    """
    started: list[tuple[Session, threading.Thread]] = []

    def start(session: Session, text: str) -> threading.Thread:
        def execute() -> None:
            with suppress(psycopg.Error):
                session.execute(text)

        thread = threading.Thread(target=execute, daemon=True)
        started.append((session, thread))
        thread.start()
        return thread

    yield start
    with server.connect() as superuser:
        for session, _ in started:
            superuser.execute("SELECT pg_terminate_backend(%s)", [session.info.backend_pid])
    for _, thread in started:
        thread.join(10)


@pytest.fixture
def sleeping(
    server: Server,
    live: Callable[..., Session],
    background: Callable[..., Any],
    eventually: Callable[..., None],
) -> Callable[..., Session]:
    """Start a session whose statement runs for a minute."""

    def start(**options: Any) -> Session:
        session = live(server, **{"user": "owner", "dbname": "shop", **options})
        pid = session.info.backend_pid
        background(session, "SELECT pg_sleep(60)")
        with server.connect() as connection:
            eventually(
                lambda: connection.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'",
                    [pid],
                ).fetchone()
            )
        return session

    return start


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command: said("job", "list") -> (exit status, standard output, errors)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = 0
        try:
            call_command(*arguments)
        except SystemExit as error:
            status = int(error.code or 0)
        captured = capsys.readouterr()
        return status, captured.out.strip(), captured.err.strip()

    return run


@pytest.fixture
def all_readable(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the collector read whatever tables other tests left: else bloat is blind for them."""
    name = "server" if "server" in request.fixturenames else "embedded"
    server: Server = request.getfixturevalue(name)
    with server.connect() as setup:
        setup.execute("GRANT pg_read_all_data TO collector")
        yield
        setup.execute("REVOKE pg_read_all_data FROM collector")
