"""What the server counts of waits for locks, where it does, and that nothing is made up where it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows.lock_history import WAIT_COLUMNS, WaitRow, waits_of
from tests.servers import Server, waits
from tests.typed import assert_typed

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


@pytest.mark.pg(">=19")
def test_a_wait_beyond_deadlock_timeout_is_counted_once_it_got_its_lock(
    server: Server,
    watch: Callable[..., Target],
    live: Callable[..., psycopg.Connection[Any]],
    background: Callable[..., Any],
    eventually: Callable[..., None],
) -> None:
    target = watch(server)
    take_now(target, ["lock_stats"])
    target.refresh_from_db()
    holder, waiter = (live(server, dbname="shop", autocommit=False) for _ in range(2))
    waiter.execute("SET deadlock_timeout = '1ms'")
    holder.execute("SELECT pg_advisory_xact_lock(4711)")
    thread = background(waiter, "SELECT pg_advisory_xact_lock(4711), pg_stat_force_next_flush()")
    with server.connect() as eye:
        eventually(lambda: waits(eye, waiter.info.backend_pid))
        since = "SELECT clock_timestamp() > waitstart + interval '50 ms' FROM pg_locks WHERE NOT granted"
        eventually(lambda: eye.execute(since).fetchone() == (True,))
    holder.rollback()
    thread.join()
    waiter.rollback()

    def counted() -> list[WaitRow]:
        take_now(target, ["lock_stats"])
        return waits_of(target, Window.last("1h", timezone.now())) or []

    eventually(counted)
    [row] = counted()
    assert_typed(row, WaitRow)
    assert tuple(row) == WAIT_COLUMNS
    assert (row["locktype"], row["waits"]) == ("advisory", 1)
    assert row["wait_time"] is not None
    assert 50 <= row["wait_time"] < 60_000  # milliseconds
    assert row["mean_wait_ms"] == row["wait_time"]


@pytest.mark.pg("<19")
def test_before_19_no_row_is_read_and_none_is_told(
    server: Server, watch: Callable[..., Target]
) -> None:
    target = watch(server)

    [result] = take_now(target, ["lock_stats"])
    target.refresh_from_db()

    assert (result.state, result.rows, read_latest("lock_stats", target.pk)) == ("ok", 0, [])
    assert waits_of(target, Window.last("1h", timezone.now())) is None
