"""A database that is dropped takes its tables along; one made under its name is another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest
from django.utils import timezone
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.findings import judge, keep
from monitors.history.gauges import read_gauges
from monitors.history.window import Window
from monitors.models import HISTORY, Database, FindingRecord
from monitors.rows import bloat, due, findings, tables as table_rows, vacuuming
from tests.servers import Server

pytestmark = pytest.mark.django_db

PER_DATABASE = ["databases", "tables", "indexes", "bloat"]


@pytest.fixture
def fleeting(server: Server, worker_id: str) -> Iterator[str]:
    """The name of a database that holds a table with dead rows, made anew by `make`."""
    name = f"fleeting_{worker_id}"
    yield name
    drop(server, name)


def drop(server: Server, name: str) -> None:
    with server.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def make(server: Server, name: str, dead: int) -> None:
    """Make the database with a table of so many dead rows."""
    drop(server, name)
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("GRANT pg_monitor TO collector"))
    with server.connect(dbname=name) as connection:
        connection.execute("CREATE TABLE fled (id int)")
        connection.execute(f"INSERT INTO fled SELECT generate_series(1, {dead + 10})")
        connection.execute(f"DELETE FROM fled WHERE id <= {dead}")


def dead_rows(target) -> float:
    """Return the last point of the chart of all dead rows, -1 where it has none."""
    window = Window.last("1h", timezone.now())
    last = read_gauges("tables", target.pk, window, ["n_dead_tup"]).values["n_dead_tup"][-1]
    return -1 if last is None else last


def shown(target, at=None) -> set[str]:
    """Return where the table `fled` is named."""
    target = type(target).objects.get(pk=target.pk)
    now = timezone.now()
    end = at or now
    window = Window(end - timedelta(hours=1), end, is_live=at is None)
    tables = table_rows.tables_of(target, window, (), {})
    places: dict[str, Sequence[str | None]] = {
        "vacuum": [row["relname"] for row in tables],
        "bloat": [row["relname"] for row in bloat.bloat_of(target, window, {})],
        "queue": [row["relname"] for row in vacuuming.state_of(target, at).queue],
        "findings": [one.object_name for one in judge.find(target, at)],
    }
    if at is None:
        names = {row["relid"]: row["relname"] for row in tables}
        places["due"] = [names.get(one.relid, "fled") for one in due.due_tables(target)]
    return {
        place for place, names in places.items() if any("fled" in (name or "") for name in names)
    }


def test_tables_of_a_dropped_database_are_gone_with_it(server, watch, fleeting, eventually):
    target = watch(server, include=[fleeting, "shop"])
    make(server, fleeting, 5000)
    eventually(lambda: take_now(target, PER_DATABASE) and dead_rows(target) >= 5000, seconds=30)
    assert shown(target) >= {"vacuum", "queue", "due", "bloat", "findings"}
    before = timezone.now()
    count = dead_rows(target)
    drop(server, fleeting)

    take_now(target, PER_DATABASE)

    assert shown(target) == set()
    assert dead_rows(target) <= count - 5000
    database = Database.objects.get(target=target, datname=fleeting)
    assert database.gone_at is not None
    for name in PER_DATABASE[1:]:
        rows = HISTORY[name].latest._default_manager.filter(database_id=database.pk, gone_at=None)
        assert not rows.exists(), name
    assert shown(target, before) >= {"vacuum", "queue", "bloat", "findings"}


def test_findings_of_a_dropped_database_end_when_it_is_seen_to_be_gone(
    server, watch, fleeting, eventually
):
    target = watch(server, include=[fleeting, "shop"])
    make(server, fleeting, 5000)
    eventually(lambda: take_now(target, PER_DATABASE) and dead_rows(target) >= 5000, seconds=30)
    keep.keep(target.pk, PER_DATABASE)
    mine = FindingRecord.objects.filter(target=target, object_name__contains="fled")
    opened = mine.filter(resolved_at=None, opened_at__isnull=False)
    assert opened.exists()
    before = timezone.now()
    drop(server, fleeting)

    take_now(target, ["databases"])
    keep.keep(target.pk, ["databases"])

    assert not opened.exists()
    gone_at = Database.objects.get(target=target, datname=fleeting).gone_at
    assert set(mine.values_list("resolved_at", flat=True)) == {gone_at}
    assert findings.find_opened().filter(findings.in_state("open", before), pk__in=mine).exists()


def test_a_database_that_is_made_again_is_another_one(server, watch, fleeting, eventually):
    target = watch(server, include=[fleeting])
    make(server, fleeting, 5000)
    eventually(lambda: take_now(target, PER_DATABASE) and dead_rows(target) == 5000, seconds=30)
    former = Database.objects.get(target=target, datname=fleeting)
    make(server, fleeting, 300)

    take_now(target, ["tables"])  # before the list of databases was due again
    take_now(target, ["tables"])

    latest = HISTORY["tables"].latest._default_manager.filter(target_id=target.pk)
    assert not latest.filter(database_id=former.pk, gone_at=None).exists()
    former.refresh_from_db()
    assert former.gone_at is not None
    again = Database.objects.get(target=target, datname=fleeting, gone_at=None)
    assert again.datid != former.datid
    eventually(lambda: take_now(target, ["tables"]) and dead_rows(target) == 300, seconds=30)
    fled = latest.filter(database_id=again.pk, relname="fled")
    assert list(fled.values_list("n_dead_tup", flat=True)) == [300]


@pytest.mark.parametrize("server", [18], indirect=True, ids=str)
def test_a_database_that_is_no_longer_watched_leaves_the_lists(server, watch, fleeting, eventually):
    target = watch(server, include=[fleeting])
    make(server, fleeting, 5000)
    eventually(lambda: take_now(target, PER_DATABASE) and dead_rows(target) == 5000, seconds=30)
    before = timezone.now()
    keep.keep(target.pk, PER_DATABASE)
    assert FindingRecord.objects.filter(target=target, resolved_at=None).exists()
    target.include = ["shop"]
    target.save()

    take_now(target, PER_DATABASE)
    keep.keep(target.pk, ["databases"])

    assert shown(target) == set()
    assert not FindingRecord.objects.filter(
        target=target, database__included=False, resolved_at=None
    )
    assert shown(target, before) >= {"vacuum", "queue", "bloat", "findings"}
