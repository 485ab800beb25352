"""The Locks page: roots with their queues, the one button, the past, exports, the command, and who blocked whom."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.history.window import Window
from monitors.models import HISTORY, Snapshot, Target
from monitors.rows import lock_edges, lock_history, locks
from monitors.rows.lock_edges import EdgeRow
from monitors.rows.lock_history import BlockerRow, DeadlockRow, ObjectRow
from monitors.rows.locks import RootRow
from tests.servers import Server
from tests.typed import assert_typed

PROBES = ["activity", "sessions", "locks"]
Session = psycopg.Connection[Any]


@pytest.fixture
def running(
    embedded: Server, live: Callable[..., Session], eventually: Callable[..., None]
) -> Iterator[Callable[..., int]]:
    """Run a statement in a new session until it waits for something: running("app", statement) -> its pid."""
    started: list[tuple[int, threading.Thread]] = []

    def start(name: str, statement: Any, event: str = "Lock") -> int:
        session = live(
            embedded, user="owner", dbname="shop", autocommit=False, application_name=name
        )

        def run() -> None:
            with suppress(psycopg.Error):
                session.execute(statement)

        thread, pid = threading.Thread(target=run), session.info.backend_pid
        started.append((pid, thread))
        thread.start()
        there = (
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND %s IN (wait_event_type, wait_event)"
        )
        with embedded.connect() as eye:
            eventually(lambda: eye.execute(there, [pid, event]).fetchone())
        return pid

    yield start
    with embedded.connect() as superuser:
        for pid, _ in started:
            superuser.execute("SELECT pg_terminate_backend(%s)", [pid])
    for _, thread in started:
        thread.join()


@pytest.fixture
def holder(embedded: Server, live: Callable[..., Session], junk: str) -> Session:
    """A session that idles in a transaction after it changed all rows of `junk`."""
    one = live(
        embedded, user="owner", dbname="shop", autocommit=False, application_name="<b>billing</b>"
    )
    one.execute(sql.SQL("UPDATE {} SET id = id + 4711").format(sql.Identifier(junk)))
    return one


@pytest.fixture
def queue(holder: Session, running: Callable[..., int], junk: str) -> list[int]:
    """Three sessions that wait for one row of it: their pids, in the order of the queue."""
    statement = sql.SQL("UPDATE {} SET id = 42 WHERE id = 3000").format(sql.Identifier(junk))
    return [running(f"web-{number}", statement) for number in range(3)]


@pytest.fixture
def shown(shop: Target, browse: Callable[[str], Any]) -> Callable[..., str]:
    """A function from a query to the page's text: shown("?at=…", "viewer"), else as a dba sees it."""

    def get(query: str = "", name: str = "dba") -> str:
        response = browse(name).get(reverse("locks", args=[shop.name]) + query)
        assert response.status_code == 200
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


def command(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    call_command("locks", "shop-1", *arguments)
    return capsys.readouterr().out


def test_a_root_has_its_queue_its_counts_and_one_button_and_the_past_has_none(
    shop: Target,
    shown: Callable[..., str],
    holder: Session,
    queue: list[int],
    junk: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pid, name = holder.info.backend_pid, junk.replace('"', "&quot;&quot;")
    take_now(shop, PROBES)

    text = shown()
    assert f"Terminate {pid}, releases 3…" in text
    assert f"Cancel {pid}" not in text
    assert 'name="state_change"' in text
    assert "&lt;b&gt;billing" in text
    assert "<b>billing" not in text
    assert "UPDATE &quot;Odd" in text.replace('<span class="k">', "").replace("</span>", "")
    assert f"of public.&quot;{name}&quot;, changed by transaction" in text
    assert f"queued behind {queue[1]}" in text
    assert f"queued behind {queue[0]}" not in text
    assert "blocks 3 backends" in text  # the verdict
    assert "actions/terminate_backend/" not in shown("", "viewer")
    assert "does not include terminate_backend" in shown("", "viewer")

    [root] = json.loads(shown("?format=json"))
    assert tuple(root) == locks.COLUMNS
    assert (root["root_pid"], root["blocked"], root["released"]) == (pid, 3, 3)
    assert (root["way_out"], root["action"], root["state"]) == (
        "terminate", "terminate_backend", "idle in transaction",
    )  # fmt: skip
    edges = json.loads(shown("?format=json&of=edges"))
    by_pid = {edge["pid"]: edge["waited_seconds"] for edge in edges}
    assert root["waited_seconds"] == pytest.approx(sum(by_pid.values()))
    assert root["longest_seconds"] == max(by_pid.values())
    assert {(edge["pid"], edge["blocker_pid"], edge["hard"]) for edge in edges} == {
        (queue[0], pid, True),
        (queue[1], queue[0], True),
        (queue[2], queue[0], True),
        (queue[2], queue[1], False),
    }
    assert {edge["lock_database"] for edge in edges} == {"shop"}
    assert len(list(csv.DictReader(io.StringIO(shown("?format=csv&of=edges"))))) == 4
    [said] = json.loads(command("--json", capsys=capsys))
    [seen] = json.loads(shown("?format=json", "viewer"))
    assert root["query"].endswith("SET id = id + 4711")
    assert said["query"] == seen["query"] == root["query"].replace("4711", "?")
    assert len(json.loads(command("--json", "--edges", capsys=capsys))) == 4
    assert command(capsys=capsys).startswith(f"{pid} <b>billing</b> owner shop  blocks 3, ")

    then = timezone.now()
    holder.rollback()
    take_now(shop, PROBES)
    assert pid not in {row["root_pid"] for row in json.loads(shown("?format=json"))}
    past = shown(f"?at={then:%Y-%m-%dT%H:%M:%S.%f}Z")
    assert f'<span class="strong">{pid}</span>' in past
    assert f"Terminate {pid}" not in past
    [root_then] = json.loads(shown(f"?at={then:%Y-%m-%dT%H:%M:%S.%f}Z&format=json"))
    assert (root_then["root_pid"], root_then["waited_seconds"]) == (pid, root["waited_seconds"])


def test_a_running_root_is_cancelled_and_rows_are_of_their_types(
    shop: Target, shown: Callable[..., str], running: Callable[..., int], junk: str
) -> None:
    lock = sql.SQL("LOCK TABLE {}").format(sql.Identifier(junk))
    root = running("report", lock + sql.SQL("; SELECT pg_sleep(60)"), "PgSleep")
    waiter = running("late", lock + sql.SQL(" IN SHARE MODE"))
    take_now(shop, PROBES)

    text = " ".join(shown("", "operator").split())

    assert f"Cancel {root}, releases 1" in text
    assert f'name="pid" value="{root}"' in text
    found = locks.read_locks(shop, Window.last("1h", timezone.now()))
    [row], [edge] = found.roots, found.edges
    assert_typed(row, RootRow)
    assert_typed(edge, EdgeRow)
    assert (tuple(row), tuple(edge)) == (locks.COLUMNS, lock_edges.COLUMNS)
    assert (edge["pid"], edge["blocker_mode"]) == (waiter, "AccessExclusiveLock")


def test_the_history_tells_who_blocked_whom_for_how_long_and_at_what(
    shop: Target, shown: Callable[..., str], queue: list[int], holder: Session, junk: str
) -> None:
    for _ in range(3):
        take_now(shop, PROBES)
    holder.rollback()

    [row] = json.loads(shown("?format=json&of=history"))
    [there] = json.loads(shown("?format=json&of=objects"))

    at = list(Snapshot.objects.filter(probe="locks", rows__gt=0).values_list("taken_at", flat=True))
    assert len(at) == 3
    assert (row["application_name"], row["samples"], row["most_blocked"]) == (
        "<b>billing</b>",
        3,
        3,
    )
    assert row["query"].startswith('UPDATE "Odd')
    assert row["waited_seconds"] > 3 * (max(at) - min(at)).total_seconds()
    assert row["waited_seconds"] < 3 * (timezone.now() - min(at)).total_seconds()
    assert there["object"] == 'public."{}"'.format(junk.replace('"', '""'))
    assert (there["locktypes"], there["most_blocked"]) == (["transactionid", "tuple"], 3)
    assert there["waited_seconds"] == pytest.approx(row["waited_seconds"], rel=0.5)
    found = lock_history.history_of(shop, Window.last("1h", timezone.now()))
    assert_typed(found.blockers[0], BlockerRow)
    assert_typed(found.objects[0], ObjectRow)
    assert "somebody waited at 3 snapshots of this window" in " ".join(shown().split())
    later = Window(max(at) + timedelta(microseconds=1), timezone.now(), is_live=True)
    assert lock_history.history_of(shop, later).blockers == []


def test_more_than_is_looked_at_is_sampled_and_more_than_is_read_is_said(
    shop: Target, queue: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        take_now(shop, PROBES)
    window = Window.last("1h", timezone.now())
    whole = lock_history.history_of(shop, window)

    monkeypatch.setattr(lock_history, "MOST_MOMENTS", 2)
    half = lock_history.history_of(shop, window)
    monkeypatch.setattr(lock_history, "MOST_ROWS", 1)
    late = lock_history.history_of(shop, window)

    assert (half.moments, half.every, half.blockers[0]["samples"]) == (4, 2, 2)
    assert half.blockers[0]["waited_seconds"] == pytest.approx(whole.blockers[0]["waited_seconds"])
    assert whole.since is None
    assert late.since is not None


def test_deadlocks_are_counted_by_database(
    shop: Target,
    shown: Callable[..., str],
    embedded: Server,
    running: Callable[..., int],
    live: Callable[..., Session],
    eventually: Callable[..., None],
) -> None:
    assert "No deadlock was counted" in shown()
    one = live(embedded, dbname="shop", autocommit=False)  # deadlock_timeout is a superuser's
    lock = sql.SQL("SELECT pg_advisory_xact_lock(4712)")
    one.execute("SELECT pg_advisory_xact_lock(4711)")
    running("other", lock + sql.SQL("; SELECT pg_advisory_xact_lock(4711)"))
    one.execute("SET deadlock_timeout = '1ms'")
    with pytest.raises(psycopg.errors.DeadlockDetected):
        one.execute(lock)
    one.close()

    def counted() -> list[DeadlockRow]:
        take_now(shop, ["databases"])
        return lock_history.deadlocks_of(shop, Window.last("1h", timezone.now()))

    eventually(lambda: counted() == [{"datname": "shop", "deadlocks": 1}])
    assert_typed(counted()[0], DeadlockRow)
    assert "No deadlock was counted" not in shown()


def test_before_it_was_read_it_says_so_and_not_that_nobody_waits(
    embedded: Server,
    watch: Callable[..., Target],
    db: None,
    shown: Callable[..., str],
    shop: Target,
) -> None:
    HISTORY["locks"].latest._default_manager.all().delete()
    shop.probestate_set.filter(probe="locks").delete()

    text = shown()

    assert "Nobody waits" not in text
    assert "Good." not in text
