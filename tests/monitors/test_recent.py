"""The last hours of a real server, as the advisors that need them are given them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from monitors import findings, recent, thresholds
from monitors.history import partitions
from monitors.models import HISTORY, FindingRecord, Fleet, Snapshot
from monitors.samples import Change
from monitors.snapshot import take_now

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(server):
    with server.connect(dbname="shop") as connection:
        yield connection


def names_of(target):
    return dict(target.database_set.filter(included=True).values_list("pk", "datname"))


@pytest.mark.fleet
def test_it_sums_a_days_updates_and_names_the_indexes(
    server, session, watch, worker_id, eventually
):
    target, name = watch(server), f"cold_{worker_id}"
    session.execute(f"DROP TABLE IF EXISTS {name}")
    session.execute(f"CREATE TABLE {name} (id integer, state integer) WITH (fillfactor = 100)")
    session.execute(f"CREATE INDEX {name}_state ON {name} (state)")
    session.execute(f"INSERT INTO {name} SELECT n, 0 FROM generate_series(1, 12000) AS n")
    take_now(target)
    session.execute(f"UPDATE {name} SET state = id")
    updates = f"SELECT pg_stat_get_tuples_updated('{name}'::regclass)"
    eventually(lambda: session.execute(updates).fetchone() == (12_000,))

    take_now(target)
    findings.keep(target.pk, {"tables"})
    session.execute(f"DROP TABLE {name}")

    row = FindingRecord.objects.get(advisor="hot_ratio_low", object_name=f"public.{name}")
    assert row.title == f"Of 12,000 updates of public.{name} in shop in the last day 0 % were HOT."
    assert row.opened_at is not None
    if server.major >= 16:  # the indexed column changed, and no page had room
        assert "fillfactor = 90" in row.why
    else:
        assert f"({name}_state)" in row.why


@pytest.mark.fleet
def test_it_finds_a_table_that_only_grows_and_dates_its_forced_vacuum(
    server, session, watch, worker_id, eventually
):
    target, name = watch(server), f"log_{worker_id}"
    thresholds.change("a", "test", Fleet(pk=1), {("insert_only_unfrozen", "min_bytes"): 100_000})
    session.execute(f"DROP TABLE IF EXISTS {name}")
    session.execute(f"CREATE TABLE {name} (id integer) WITH (autovacuum_enabled = off)")
    session.execute(f"INSERT INTO {name} SELECT generate_series(1, 10000)")
    session.execute(f"ANALYZE {name}")  # relpages
    inserted = f"SELECT pg_stat_get_tuples_inserted('{name}'::regclass)"
    eventually(lambda: session.execute(inserted).fetchone() == (10_000,))
    take_now(target)
    samples = HISTORY["databases"].samples._default_manager.filter(target_id=target.pk)
    hour_ago = samples.values()[0]
    samples.create(
        **{
            **hour_ago,
            "taken_at": hour_ago["taken_at"] - timedelta(hours=1),
            "next_xid": hour_ago["next_xid"] - 36_000,
        }
    )

    findings.keep(target.pk, {"tables"})
    session.execute(f"DROP TABLE {name}")

    row = FindingRecord.objects.get(advisor="insert_only_unfrozen", object_name=f"public.{name}")
    assert row.hurts_at is not None
    days = (row.hurts_at - timezone.now()) / timedelta(days=1)
    assert days == pytest.approx(200_000_000 / 10 / 86400, rel=0.02)
    assert (row.action, row.arguments["freeze"]) == ("vacuum", "true")


@pytest.mark.parametrize("server", [14, 16], indirect=True, ids=str)
def test_it_finds_a_vacuum_that_read_its_indexes_more_than_once(
    *, server, session, watch, worker_id, eventually, live, background
):
    target, name = watch(server), f"passes_{worker_id}"
    session.execute(f"DROP TABLE IF EXISTS {name}")
    session.execute(f"CREATE TABLE {name} (id integer) WITH (autovacuum_enabled = off)")
    session.execute(f"INSERT INTO {name} SELECT generate_series(1, 600000)")
    session.execute(f"CREATE INDEX ON {name} (id)")
    session.execute(f"DELETE FROM {name}")
    take_now(target, ["databases", "tables"])
    vacuum = live(server, dbname="shop", autocommit=True)
    vacuum.execute("SET maintenance_work_mem = '1MB'")  # 174,762 dead rows
    vacuum.execute("SET vacuum_cost_delay = '5ms'")
    vacuum.execute("SET vacuum_cost_limit = 300")
    background(vacuum, f"VACUUM {name}")

    def seen():
        take_now(target, ["progress"])
        return recent.passes(target, timezone.now())

    eventually(seen, seconds=60)
    findings.keep(target.pk, {"tables"})

    [row] = recent.passes(target, timezone.now())
    assert (row["datname"], row["passes"] >= 2, row["autovacuum"]) == ("shop", True, False)
    record = FindingRecord.objects.get(advisor="multi_pass_vacuum")
    assert record.object_name == f"public.{name}"
    assert "raise maintenance_work_mem, up to the 1 GB" in record.why


@pytest.mark.parametrize("server", [18], indirect=True, ids=str)
def test_it_counts_the_workers_of_each_reading_by_what_changed(server, watch):
    target, now = watch(server), timezone.now()
    partitions.make_ahead(now)
    samples = HISTORY["progress"].samples._default_manager
    changes = [  # minutes ago, pid, how
        (20, 1, Change.APPEARED),  # before the window, still there
        (12, 2, Change.APPEARED),
        (10, 2, Change.CHANGED),
        (8, 1, Change.GONE),
        (6, 3, Change.APPEARED),
        (4, 2, Change.GONE),
    ]
    for minutes, pid, change in changes:
        samples.create(
            target_id=target.pk,
            database_id=0,
            pid=pid,
            command="VACUUM",
            taken_at=now - timedelta(minutes=minutes),
            target_at=now - timedelta(minutes=minutes),
            change=change,
            autovacuum=True,
        )
        if change == Change.APPEARED:
            HISTORY["progress"].latest._default_manager.create(
                target_id=target.pk,
                database_id=0,
                pid=pid,
                command="VACUUM",
                since_at=now - timedelta(minutes=minutes),
                changed_at=now - timedelta(minutes=minutes),
                autovacuum=True,
            )
    samples.create(
        target_id=target.pk, database_id=0, pid=4, command="VACUUM", autovacuum=False,
        taken_at=now - timedelta(minutes=9), target_at=now, change=Change.APPEARED,
    )  # fmt: skip
    for minutes, state in (
        (16, "ok"),
        (14, "ok"),
        (11, "ok"),
        (9, "failed"),
        (7, "ok"),
        (5, "ok"),
        (3, "ok"),
    ):
        Snapshot.objects.create(
            target_id=target.pk,
            database_id=0,
            probe="progress",
            taken_at=now - timedelta(minutes=minutes),
            state=state,
            interval_seconds=120,
        )

    assert recent.workers(target, now) == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("server", [18], indirect=True, ids=str)
def test_a_rate_over_a_few_minutes_is_none(server, watch):
    target = watch(server)
    assert recent.xids(target, timezone.now()) == (None, None)

    take_now(target, ["databases"])

    next_xid, rate = recent.xids(target, timezone.now())
    assert next_xid
    assert rate is None
