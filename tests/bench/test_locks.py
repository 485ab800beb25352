"""200 sessions queued on one row: who is the root, how many are behind it, how long they wait, and what that costs.

.venv/bin/python -m pytest -m bench -s tests/bench/test_locks.py
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import psycopg
import pytest
from django.test import Client
from django.utils import timezone

from dashboard.embedded.processes import wait_until
from monitors.collect.rounds import take_now
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows.locks import read_locks
from monitors.rules.lock_graph import find_roots
from tests import servers
from tests.people import browser_of, person
from tests.servers import Server

pytestmark = [pytest.mark.bench, pytest.mark.django_db]

WAITERS = 200
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
TRULY = """
SELECT sum(extract(epoch FROM %s - waitstart)) FROM pg_locks WHERE NOT granted
"""


@pytest.fixture(params=servers.MAJORS, ids=str)
def crowded(request: pytest.FixtureRequest) -> Iterator[tuple[Server, int]]:
    """A server of which 200 sessions wait for one row, and the pid that holds it."""
    with ExitStack() as stack:
        home = stack.enter_context(servers.home())
        programs = servers.fleet_programs(request.param)
        settings = {"max_connections": "260", "log_statement": "none"}
        server = stack.enter_context(servers.running(request.param, programs, home, **settings))
        eye = stack.enter_context(server.connect(dbname="shop"))
        eye.execute("CREATE TABLE stock AS SELECT 1 AS id, 0 AS v")
        holder = server.connect(dbname="shop", autocommit=False)
        holder.execute("UPDATE stock SET v = 1")
        sessions = [server.connect(dbname="shop") for _ in range(WAITERS)]
        threads = [threading.Thread(target=update, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        assert wait_until(lambda: eye.execute(WAITING).fetchone() == (WAITERS,), seconds=60)
        yield server, holder.info.backend_pid
        eye.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        for thread in threads:
            thread.join()
        for session in (holder, *sessions):
            session.close()


def update(session: psycopg.Connection[Any]) -> None:
    with suppress(psycopg.Error):
        session.execute("UPDATE stock SET v = v + 1")


def test_200_sessions_on_one_row(
    crowded: tuple[Server, int], watch: Callable[..., Target], client: Client
) -> None:
    server, pid = crowded
    target = watch(server)
    take_now(target, ["databases", "tables", "activity", "sessions"])
    results = [take_now(target, ["locks"])[0] for _ in range(5)]
    browser = browser_of(person("dba", "dba", target=target))

    began = time.perf_counter()
    found = read_locks(target, Window.last("1h", timezone.now()))
    rows_ms = (time.perf_counter() - began) * 1000
    began = time.perf_counter()
    text = browser.get("/targets/shop-1/locks/").content.decode()
    page_ms = (time.perf_counter() - began) * 1000

    assert {result.error for result in results} == {""}
    [root] = found.roots
    assert (root["root_pid"], root["blocked"], root["released"]) == (pid, WAITERS, WAITERS)
    with server.connect() as eye:
        row = eye.execute(TRULY, [found.read_at]).fetchone()
        every = eye.execute(
            "SELECT pid, pg_blocking_pids(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchall()
    assert row is not None
    assert root["waited_seconds"] == pytest.approx(float(row[0]))
    [whole] = find_roots({pid: dict.fromkeys(blockers) for pid, blockers in every})
    assert (whole.node, len(whole.victims), len(whole.released)) == (pid, WAITERS, WAITERS)
    assert f'Blocks <span class="strong">{WAITERS}</span>' in text
    target_ms = sorted(result.target_ms for result in results)
    print(
        f"\n{server.major}: {sum(len(blockers) for _, blockers in every)} edges, {results[0].rows} kept;"
        f" statement {target_ms[0]:.0f} to {target_ms[-1]:.0f} ms, rows {rows_ms:.0f} ms, page {page_ms:.0f} ms"
    )
    assert target_ms[2] < 1000
    assert rows_ms < 1000
