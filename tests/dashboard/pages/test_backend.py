"""The page of one backend: now, then, and after it has gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.history import partitions
from monitors.history.latest import read_latest
from monitors.history.window import Window
from monitors.models import HISTORY, Action, Snapshot, Target
from monitors.rows import backend as backend_rows
from monitors.rows.backend import BlockedRow, SampleRow
from monitors.rows.backends import epoch_us, moment_text
from tests.people import browser_of, make_target, person
from tests.servers import Blocked, Server
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db
NOW = timezone.now().replace(microsecond=123456)
START = NOW - timedelta(hours=2, microseconds=7)


@pytest.fixture
def target():
    partitions.ensure_for(HISTORY["activity"].samples, NOW - timedelta(hours=1))
    partitions.ensure_for(HISTORY["activity"].samples, NOW)
    made = make_target()
    made.intervals = {"activity": 60}
    made.save()
    return made


@pytest.fixture
def dba(target):
    return browser_of(person("dba", "dba", target=target))


def read(target, minute):
    """Store that activity was read, so many minutes before now."""
    at = NOW - timedelta(minutes=minute)
    partitions.ensure_for(Snapshot, at)
    Snapshot.objects.create(
        target_id=target.pk, database_id=0, probe="activity", state="ok", taken_at=at, target_at=at,
        interval_seconds=60,
    )  # fmt: skip


def sample(target, pid, minute, *, change=0, start=START, **columns):
    """Store what a backend was found doing, so many minutes before now."""
    at = NOW - timedelta(minutes=minute)
    HISTORY["activity"].samples._default_manager.create(
        target_id=target.pk, database_id=0, pid=pid, backend_start=start, taken_at=at,
        target_at=at, change=change, **columns,
    )  # fmt: skip


def latest(target, pid, *, gone=None, start=START, **columns):
    """Store a backend as the history knows it last."""
    HISTORY["activity"].latest._default_manager.create(
        target_id=target.pk, database_id=0, pid=pid, backend_start=start, since_at=START,
        changed_at=NOW, gone_at=gone, **columns,
    )  # fmt: skip


def address(pid, start=START, query=""):
    return reverse("backend", args=["shop-1", pid, epoch_us(start)]) + query


def test_a_start_survives_its_address_to_the_microsecond(target, dba):
    start = datetime(2026, 3, 1, 12, 0, 0, 999999, tzinfo=UTC)
    latest(target, 7, start=start, backend_type="client backend")

    assert dba.get(address(7, start)).status_code == 200
    assert dba.get(address(7, start + timedelta(microseconds=1))).status_code == 404
    assert dba.get(address(8, start)).status_code == 404
    assert dba.get(f"/targets/shop-1/backends/7-{2**62}/").status_code == 404
    assert browser_of(person("stranger")).get(address(7, start)).status_code == 404


def test_one_that_has_gone_says_since_when_and_what_it_was(target, dba):
    for minute in range(30, 0, -1):
        read(target, minute)
    sample(target, 7, 20, state="active", query="SELECT ?", wait_event_type="IO")
    sample(target, 7, 15, state="idle in transaction", query="UPDATE t SET a = ?")
    sample(target, 7, 10, change=5)
    latest(target, 7, gone=NOW - timedelta(minutes=10), application_name="web-api")

    html = dba.get(address(7)).content.decode()
    rows = json.loads(dba.get(address(7, query="?format=json")).getvalue())

    assert "It has not been seen since" in html
    assert "web-api" in html
    assert "UPDATE" in html
    assert "actions/terminate_backend/" not in html
    assert [(row["state"], row["seconds"]) for row in rows] == [
        ("active", 300.0),
        ("idle in transaction", 300.0),
    ]


def test_what_was_not_read_is_counted_for_nothing_and_drawn_as_a_gap(target):
    for minute in [*range(50, 40, -1), *range(10, 0, -1)]:
        read(target, minute)
    sample(target, 7, 50, state="active")
    window = Window(NOW - timedelta(hours=1), NOW, is_live=True)

    [row] = backend_rows.course_of(target, window, 7, START).samples

    assert_typed(row, SampleRow)
    assert row["seconds"] == 18 * 60
    assert [round((end - begin).total_seconds() / 60) for begin, end in row["spans"]] == [9, 9]


def test_whom_it_blocked_is_told_and_not_what_another_one_of_its_pid_did(target, dba):
    latest(target, 7, gone=NOW - timedelta(minutes=5))
    waits = {"state": "active", "wait_event_type": "Lock", "wait_event": "relation"}
    began = NOW - timedelta(hours=3)
    sample(target, 8, 30, start=began, blocked_by=[7], application_name="worker", **waits)
    sample(target, 8, 25, start=began, state="idle")
    sample(target, 9, 3, start=began, blocked_by=[7], **waits)  # 7 is another one by then
    window = Window(NOW - timedelta(hours=1), NOW, is_live=True)

    [row] = backend_rows.blocked_by(target, window, 7, START, NOW - timedelta(minutes=5))

    assert_typed(row, BlockedRow)
    assert (row["pid"], row["until_at"]) == (8, NOW - timedelta(minutes=25))
    html = dba.get(address(7)).content.decode()
    assert address(8, began) in html
    assert address(9, began) not in html


def test_what_was_done_to_it_is_linked(target, dba):
    latest(target, 7)
    for start in (START, START - timedelta(days=1)):
        Action.objects.create(
            name="cancel_backend", target=target, target_name=target.name, state="succeeded",
            arguments={"pid": "7", "backend_start": moment_text(start)}, asked_by_name="joe",
            outcome=f"of {start.isoformat()}",
        )  # fmt: skip

    html = dba.get(address(7)).content.decode()

    assert f"of {START.isoformat()}" in html
    assert html.count("cancel_backend</a>") == 1


def test_a_blocked_pair_on_a_real_server_now_and_after_it_has_moved_on(
    embedded: Server, watch: Callable[..., Target], blocked: Callable[..., Blocked]
) -> None:
    target = watch(embedded, name="shop-1", operator_user="operator")
    client = browser_of(person("somebody", "dba", target=target))
    pair = blocked(embedded)
    take_now(target, ["activity", "horizon"])
    then = timezone.now().timestamp()
    seen = {row["pid"]: row["backend_start"] for row in read_latest("activity", target.pk)}
    root, waiter = (address(pid, seen[pid]) for pid in (pair.root_pid, pair.waiter_pid))

    html, other = (client.get(one).content.decode() for one in (root, waiter))
    list_then = backends_in(client, f"?at={then}&filter=all")
    pair.root.rollback()
    pair.waiter.cancel_safe()
    time_after = take_again(target)

    assert "actions/terminate_backend/" in html
    assert waiter in html
    assert root in other
    assert "It waits for a lock on a table" in other
    assert backends_in(client, f"?at={then}&filter=all") == list_then
    past = client.get(f"{root}?at={then}").content.decode()
    assert "actions/terminate_backend/" not in past
    assert waiter in past
    assert time_after > then
    assert "Whom it blocked" in client.get(root).content.decode()


def backends_in(client, query):
    """Return the backends of an Activity page with what each did and by whom it was blocked."""
    rows = json.loads(client.get(f"/targets/shop-1/activity/{query}&format=json").getvalue())
    return [
        (row["pid"], row["state"], row["query"], row["blocked_by"], row["blocking"]) for row in rows
    ]


def take_again(target: Target) -> float:
    """Read activity once more and return when."""
    take_now(target, ["activity"])
    return timezone.now().timestamp()
