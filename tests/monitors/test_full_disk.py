"""A disk is full, the history's or the target's: nothing is half, what can't be audited isn't done."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.cache import cache
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone

from dashboard.embedded import processes
from monitors import room, tasks
from monitors.acting import ask
from monitors.collect.rounds import take_now
from monitors.history import partitions
from monitors.models import HISTORY, Action, AuditEntry, Lease, ProbeState, Target
from tests import servers
from tests.people import browser_of, person as somebody
from tests.servers import Server

pytestmark = pytest.mark.django_db(transaction=True)

CANCEL = {
    "pid": "4711",
    "backend_start": "2026-01-01 00:00:00.000001+00",
    "query_start": "2026-01-01 00:00:01.000001+00",
}


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of a megabyte that belongs to the account of the server."""
    account = processes.unprivileged()
    if account is None:
        pytest.skip("Only root may mount a small file system.")
    with servers.home() as home:
        folder = home / "disk"
        folder.mkdir()
        options = f"size=1m,mode=0700,uid={account.uid},gid={account.gid}"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False
        )
        if mounted.returncode:
            pytest.skip("No right to mount a small file system here.")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)
            folder.rmdir()


@pytest.fixture
def fill(embedded: Server, disk: Path) -> Iterator[Callable[..., None]]:
    """Move emptied tables of the history to the small disk and fill it: fill("table", …); fill() frees it."""
    moved: list[str] = []
    with embedded.connect(dbname=connection.settings_dict["NAME"]) as admin:
        admin.execute(f"CREATE TABLESPACE tiny LOCATION '{disk}'")

        def move(*tables: str) -> None:
            admin.execute("DROP TABLE IF EXISTS filler")
            if not tables:
                return
            for table in tables:
                admin.execute(f"TRUNCATE {table}")  # else a page of it may have room left
                admin.execute(f"ALTER TABLE {table} SET TABLESPACE tiny")
                moved.append(table)
            admin.execute("CREATE TABLE filler (t text) TABLESPACE tiny")
            admin.execute("ALTER TABLE filler ALTER t SET STORAGE PLAIN")
            with suppress(psycopg.errors.DiskFull):
                while True:
                    admin.execute("INSERT INTO filler VALUES (repeat('x', 7000))")

        try:
            yield move
        finally:
            move()
            for table in moved:
                admin.execute(f"ALTER TABLE {table} SET TABLESPACE pg_default")
            admin.execute("DROP TABLESPACE tiny")


def test_what_cant_be_audited_is_not_asked_for_and_the_page_says_why(
    fill: Callable[..., None], embedded: Server, watch: Callable[..., Target]
) -> None:
    target = watch(embedded, operator_user="operator")
    operator = somebody("full-operator", "operator")
    browser = browser_of(operator)
    browser.raise_request_exception = False
    address = f"/targets/{target.name}/actions/cancel_backend/"
    fill("monitors_auditentry")

    with pytest.raises(OperationalError, match="No space left on device"):
        ask.ask(operator, target, "cancel_backend", CANCEL, source="test")
    answer = browser.post(address, CANCEL)

    assert (answer.status_code, answer["Retry-After"]) == (503, "10")
    assert "has no room left" in answer.content.decode()
    assert not Action.objects.exists()
    fill()
    assert browser.post(address, CANCEL).status_code == 302
    assert (Action.objects.count(), AuditEntry.objects.count()) == (1, 1)


def test_a_snapshot_that_finds_no_room_leaves_nothing_half_and_the_next_is_whole(
    fill: Callable[..., None], embedded: Server, watch: Callable[..., Target]
) -> None:
    target = watch(embedded)
    take_now(target, ["sessions"])
    model = HISTORY["sessions"].samples
    today = partitions.partition_name(model._meta.db_table, "day", timezone.now())
    before = stored(target)
    with embedded.connect() as busy:  # so that there is something new to write
        busy.execute("BEGIN")
        busy.execute("SELECT 1")
        fill(f'"{today}"')

        with pytest.raises(OperationalError, match="No space left on device"):
            take_now(target, ["sessions"])

        assert stored(target) == before
        fill()
        assert {result.state for result in take_now(target, ["sessions"])} == {"ok"}
    sequence, rows = stored(target)
    assert (sequence, rows != before[1]) == (before[0] + 1, True)


def test_a_full_disk_is_not_ready_and_says_so_until_there_is_room(
    fill: Callable[..., None], embedded: Server, watch: Callable[..., Target]
) -> None:
    target = watch(embedded)
    take_now(target, ["sessions"])
    today = partitions.partition_name("monitors_snapshot", "day", timezone.now())
    lease = Lease.objects.create(target=target, kind="fast", claim=uuid.uuid4())
    assert "room" not in reasons_of(Client())
    fill(f'"{today}"')

    failed = tasks.snapshot.apply(args=[target.pk, "fast", str(lease.claim)])

    assert failed.failed()
    told = reasons_of(Client())
    assert "no room left on its disk" in told["room"]
    cache.delete(room.KEY)  # what time does
    assert "room" not in reasons_of(Client())


def test_a_page_that_finds_no_room_says_so_to_who_asks_for_health(
    fill: Callable[..., None], embedded: Server, watch: Callable[..., Target]
) -> None:
    target = watch(embedded, operator_user="operator")
    browser = browser_of(somebody("full-ready", "operator"))
    browser.raise_request_exception = False
    fill("monitors_auditentry")

    browser.post(f"/targets/{target.name}/actions/cancel_backend/", CANCEL)

    assert "no room left on its disk" in reasons_of(Client())["room"]


def reasons_of(client: Client) -> dict[str, str]:
    """Return why the chain is not ready: no worker runs in tests, and there may be more."""
    answer = client.get("/healthz/ready")
    assert answer.status_code == 503
    reasons: dict[str, str] = answer.json()["reasons"]
    return reasons


@pytest.fixture(autouse=True)
def room_again() -> Iterator[None]:
    """What a test says of a full disk is no other test's."""
    cache.delete(room.KEY)
    yield
    cache.delete(room.KEY)


def test_a_target_without_room_is_read_and_a_rewrite_fails_in_its_words(
    disk: Path,
    embedded: Server,
    watch: Callable[..., Target],
    person: Callable[..., Any],
    done: Callable[..., Action],
) -> None:
    target = watch(embedded, operator_user="operator")
    with embedded.connect(dbname="shop") as admin:
        admin.execute(f"CREATE TABLESPACE full_of_it LOCATION '{disk}'")
        try:
            admin.execute(
                "CREATE TABLE crowded TABLESPACE full_of_it AS"
                " SELECT n, repeat('x', 500) AS t FROM generate_series(1, 1200) AS n"
            )

            row = done(person("dba"), target, "vacuum_full", table="public.crowded")

            assert (row.state, "No space left on device" in row.outcome) == ("failed", True)
            assert {result.state for result in take_now(target, ["databases", "tables"])} == {"ok"}
            assert admin.execute("SELECT count(*) FROM crowded").fetchone() == (1200,)
        finally:
            admin.execute("DROP TABLE IF EXISTS crowded")
            admin.execute("DROP TABLESPACE full_of_it")


def stored(target: Target) -> tuple[int, list[dict[str, Any]]]:
    """Return how many snapshots of sessions were stored, and what is known now."""
    state = ProbeState.objects.get(target=target, probe="sessions")
    latest = HISTORY["sessions"].latest._default_manager.filter(target_id=target.pk)
    return state.sequence, list(latest.order_by("pk").values())
