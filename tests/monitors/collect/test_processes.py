"""What a backend's process uses, of a server on this machine, and of no other process."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.test import Client

from monitors.collect import leases, live, processes, rounds
from monitors.collect.processes import Used, rates, read_used
from monitors.collect.sessions import SESSIONS
from monitors.models import Target
from monitors.rows.backends import epoch_us
from tests.servers import Server

START = datetime(2026, 3, 1, tzinfo=UTC)


def used(at: float, cpu: float, reads: int | None = 0) -> dict[processes.Key, Used]:
    return {(7, START): Used(at, cpu, 4096, reads, None)}


@pytest.mark.parametrize(
    ("now", "before", "cpu", "reads"),
    [
        (used(2, 1.5, 300), used(0, 0.5, 100), 50.0, 100.0),
        (used(2, 1.5), {}, None, None),
        (used(99, 1.5), used(0, 0.5), None, None),  # too long ago
        (used(2, 1.5, None), used(0, 0.5), 50.0, None),  # not told
    ],
)
def test_rates_are_differences_of_two_readings_that_are_near(
    now: dict[processes.Key, Used],
    before: dict[processes.Key, Used],
    cpu: float | None,
    reads: float | None,
) -> None:
    [found] = rates(now, before).values()

    assert found == {
        "cpu_pct": cpu,
        "anon_bytes": 4096,
        "read_bytes_per_second": reads,
        "write_bytes_per_second": None,
    }


def start_of(session: psycopg.Connection[Any]) -> tuple[int, datetime]:
    """Return what names a session's backend."""
    [(pid, start)] = session.execute(
        "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    ).fetchall()
    return pid, start


def test_only_the_very_process_of_a_backend_on_this_machine_counts(embedded: Server) -> None:
    with embedded.connect() as session:
        pid, start = start_of(session)
        mine = (os.getpid(), datetime.now(UTC))

        found = read_used([(pid, start), mine], "127.0.0.1")
        later = read_used([(pid, start + timedelta(seconds=5))], "127.0.0.1")
        elsewhere = read_used([(pid, start)], "192.0.2.1")

    assert set(found) == {(pid, start)}
    assert (found[pid, start].anon_bytes or 0) > 100_000
    assert later == elsewhere == {}


@pytest.mark.django_db
def test_who_looks_sees_how_busy_the_process_of_a_backend_is(
    embedded: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    eventually: Callable[..., None],
) -> None:
    target = watch(embedded, name="busy")
    leases.make_leases()
    client = Client()
    client.force_login(person("viewer"))
    with embedded.connect() as session:
        pid, start = start_of(session)
        session.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000)")

        def is_busy() -> bool:
            live.watch(target.pk)
            rounds.read_live(target.pk)
            found = live.activity(target.pk)
            mine = found.used.get(live.text_key((pid, start)), {}) if found else {}
            return (mine.get("cpu_pct") or 0) > 5

        try:
            eventually(is_busy, seconds=30)
            html = client.get(f"/targets/busy/backends/{pid}-{epoch_us(start)}/").content.decode()
            listed = client.get("/targets/busy/activity/").content.decode()
        finally:
            SESSIONS.forget(set())
            session.cancel_safe()
            while session.pgconn.get_result() is not None:
                pass

    assert "of one processor" in html
    assert "its own, without shared buffers" in html
    assert "sort=-cpu_pct" in listed
