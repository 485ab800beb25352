"""The proof of the history: a workload whose totals are known, through all that resets counters.

On a server of its own of each version: a reset, a clean restart, a crash and an eviction. The
pages must show exactly what was run.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.embedded.postgres import Cluster
from monitors.collect.rounds import take_now
from monitors.history.counters import read_totals
from monitors.history.latest import read_latest
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.models import Grant, Target
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet, pytest.mark.slow]

FLOOD = 400  # distinct statements; the server below remembers 100


class Workload:
    """What is run, and how often it was."""

    def __init__(self, server: Server, target: Target, eventually: Callable[..., None]) -> None:
        self.server, self.target, self.eventually = server, target, eventually
        self.calls = self.inserted = 0
        self.since_reset = 0  # rows that the server's own counter should have

    def run(self, times: int) -> None:
        """Call the statement, insert a row each time, and store a snapshot of it."""
        with self.server.connect(dbname="shop") as session:
            for _ in range(times):
                session.execute("UPDATE known SET n = n + 1 WHERE id = 1")
                session.execute("INSERT INTO known (id) VALUES (2)")
            self.calls += times
            self.inserted += times
            self.since_reset += times
            self.eventually(lambda: self.told(session) == self.since_reset, seconds=20)
            self.snap()

    def told(self, session: psycopg.Connection[Any]) -> int:
        """Return the rows that the server has counted; it tells them late."""
        session.execute("SELECT pg_stat_clear_snapshot()")
        row = session.execute(
            "SELECT pg_stat_get_tuples_inserted('public.known'::regclass)"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def snap(self) -> None:
        """Take the snapshots and see that each is good."""
        results = take_now(self.target, ["databases", "statements", "tables"])
        assert {result.state for result in results} == {"ok"}, results

    def shown(self, client: Client) -> int:
        """Return the calls that the Queries page has."""
        address = f"/targets/{self.target.name}/queries/?format=json&q=known"
        rows = json.loads(client.get(address).getvalue())
        return sum(row["calls"] for row in rows if row["query"].startswith("UPDATE known"))

    def written(self) -> int:
        """Return the rows that went into the table by the history's differences."""
        rows = read_totals("tables", self.target.pk, an_hour())
        known = {
            row["relid"]
            for row in read_latest("tables", self.target.pk)
            if row["relname"] == "known"
        }
        return sum(row["n_tup_ins"] for row in rows if row["relid"] in known)


def an_hour() -> Window:
    now = timezone.now()
    return Window(now - timedelta(hours=1), now + timedelta(seconds=1), is_live=True)


def is_back(server: Server) -> bool:
    try:
        server.connect().close()
    except psycopg.OperationalError:
        return False
    return True


def test_pages_show_exactly_what_was_run(
    own_server: tuple[Cluster, Server],
    watch: Callable[..., Target],
    eventually: Callable[..., None],
    client: Client,
) -> None:
    cluster, server = own_server
    target = watch(server, name="known")
    viewer = User.objects.create_user("viewer")
    Grant.objects.create(user=viewer, role="viewer")
    client.force_login(viewer)
    with server.connect(dbname="shop") as session:
        session.execute("CREATE TABLE known (id bigint, n bigint NOT NULL DEFAULT 0)")
        session.execute("SELECT pg_stat_statements_reset()")
    work = Workload(server, target, eventually)
    work.snap()

    work.run(40)
    with server.connect(dbname="shop") as session:
        session.execute("SELECT pg_stat_statements_reset(), pg_stat_reset()")
    work.since_reset = 0
    work.run(7)
    cluster.stop()
    cluster.start(server.port)
    cluster.wait()
    work.run(5)
    with server.connect(dbname="shop") as session:
        os.kill(session.info.backend_pid, signal.SIGKILL)
    time.sleep(0.2)  # until the postmaster has seen it
    eventually(lambda: is_back(server), seconds=30)
    work.since_reset = 0
    work.run(3)
    with server.connect(dbname="shop") as session:
        for number in range(FLOOD):
            session.execute("SELECT 1" + "".join("+-"[number >> bit & 1] + "1" for bit in range(9)))
    work.run(2)

    assert work.shown(client) == work.calls == 57
    assert work.written() == work.inserted == 57
    kinds = {mark["kind"] for mark in read_marks(target.pk, an_hour())}
    assert {"reset", "restart", "crash"} <= kinds
