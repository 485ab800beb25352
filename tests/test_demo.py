"""The demonstration: its troubles are there at once, come back, and stay small."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg import sql

from dashboard.embedded import demo
from dashboard.embedded.processes import ROOT
from tests.servers import Server

Ask = Callable[..., Any]
PROGRAM = """
from dashboard.embedded import demo
demo.SHOP, demo.BILLING, demo.PAUSE_SECONDS = {shop!r}, {billing!r}, 1
demo.main()
"""


@pytest.fixture(scope="module")
def names(embedded: Server, worker_id: str) -> Iterator[tuple[str, str]]:
    """The two databases, of this worker alone."""
    made = (f"demo_shop_{worker_id}", f"demo_billing_{worker_id}")
    with embedded.connect() as session:
        for name in made:
            session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield made
        for name in made:
            session.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def workload(embedded: Server, names: tuple[str, str]) -> Iterator[None]:
    """The workload as a process of its own, which mends itself after a second."""
    environment = {
        "PGHOST": embedded.host,
        "PGPORT": str(embedded.port),
        "PGUSER": "postgres",
        "PGPASSWORD": embedded.password,
    }
    program = PROGRAM.format(shop=names[0], billing=names[1])
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment)
    yield
    assert process.poll() is None, "the workload ended"
    process.kill()
    process.wait()


@pytest.fixture
def ask(embedded: Server, names: tuple[str, str], workload: None) -> Iterator[Ask]:
    """Ask the shop for one value: ask(query, …)."""
    with embedded.connect(dbname=names[0]) as session:

        def value(query: str, *parameters: object) -> Any:
            row = session.execute(query.encode(), parameters or None).fetchone()
            return row[0] if row else None

        yield value


def waiting(ask: Ask, names: tuple[str, str]) -> int:
    """How many sessions wait behind the one that is idle in transaction."""
    count: int = ask(
        """SELECT count(*) FROM pg_stat_activity
            WHERE datname = %s AND wait_event_type = 'Lock'""",
        names[1],
    )
    return count


def pid_of(ask: Ask, names: tuple[str, str], application: str, state: str) -> int | None:
    """The backend of one of billing's applications, None where there is none."""
    pid: int | None = ask(
        """SELECT pid FROM pg_stat_activity
            WHERE datname = %s AND application_name = %s AND state = %s""",
        names[1],
        application,
        state,
    )
    return pid


def test_dead_rows_are_there_from_the_start_and_grow(
    ask: Ask, eventually: Callable[..., None]
) -> None:
    dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'sessions'"
    eventually(lambda: (ask(dead) or 0) >= demo.DEAD_AT_START, seconds=30)
    before = ask(dead)

    eventually(lambda: ask(dead) > before)


def test_a_table_and_its_index_are_bloated(ask: Ask, eventually: Callable[..., None]) -> None:
    eventually(
        lambda: ask("SELECT last_vacuum FROM pg_stat_user_tables WHERE relname = 'events'"),
        seconds=30,
    )
    bytes_a_row = ask(
        """SELECT pg_relation_size('public.events') / (SELECT count(*) FROM public.events)"""
    )

    assert bytes_a_row > 500  # a row is some 150 bytes


def test_the_lock_queue_comes_back_when_its_root_is_terminated(
    ask: Ask, names: tuple[str, str], eventually: Callable[..., None]
) -> None:
    eventually(lambda: waiting(ask, names) == len(demo.QUEUE), seconds=30)
    root = pid_of(ask, names, "billing-api", "idle in transaction")
    ask("SELECT pg_terminate_backend(%s)", root)

    eventually(lambda: pid_of(ask, names, "billing-api", "idle in transaction") not in {root, None})
    eventually(lambda: waiting(ask, names) == len(demo.QUEUE), seconds=30)


def test_a_waiter_that_was_cancelled_comes_back(
    ask: Ask, names: tuple[str, str], eventually: Callable[..., None]
) -> None:
    eventually(lambda: waiting(ask, names) == len(demo.QUEUE), seconds=30)
    waiter = pid_of(ask, names, "migrations", "active")
    ask("SELECT pg_cancel_backend(%s)", waiter)

    eventually(lambda: pid_of(ask, names, "migrations", "active") not in {waiter, None}, seconds=30)


def test_the_report_comes_back_when_it_is_cancelled(
    ask: Ask, names: tuple[str, str], eventually: Callable[..., None]
) -> None:
    eventually(lambda: pid_of(ask, names, "reports", "active"), seconds=30)
    report = pid_of(ask, names, "reports", "active")
    ask("SELECT pg_cancel_backend(%s)", report)

    eventually(lambda: pid_of(ask, names, "reports", "active") not in {report, None})


def test_many_dead_rows_are_rewritten_so_that_the_disk_stays_free(
    embedded: Server,
    names: tuple[str, str],
    ask: Ask,
    eventually: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'sessions'"
    eventually(lambda: (ask(dead) or 0) >= demo.DEAD_AT_START, seconds=30)
    monkeypatch.setattr(demo, "DEAD_AT_MOST", 1)
    with embedded.connect(dbname=names[0], application_name="rewrite") as session:
        filenode = ask("SELECT pg_relation_filenode('public.sessions')")
        demo.rewrite_sessions(session)

    live = "SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'sessions'"
    assert ask("SELECT pg_relation_filenode('public.sessions')") != filenode
    assert ask("SELECT count(*) FROM public.sessions") == demo.SESSIONS
    assert ask(live) == demo.SESSIONS
    assert ask(dead) < demo.DEAD_AT_START * 1.5
