"""The last hours of a real server, as the advisors that need them are given them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from monitors.advisor import Rate
from monitors.collect.rounds import take_now
from monitors.findings import judge, keep, recent, thresholds
from monitors.history import partitions
from monitors.models import HISTORY, FindingRecord, Fleet, Snapshot
from monitors.models.history import Change

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
    keep.keep(target.pk, {"tables"})
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

    keep.keep(target.pk, {"tables"})
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
    keep.keep(target.pk, {"tables"})

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


# How fast things grow


def an_hour_passes(target, hours=1):
    """Make what was read of a target so many hours older, as if it had been read then."""
    partitions.make_ahead(timezone.now() - timedelta(days=1))
    columns = {
        "monitors_tables_sample": ("taken_at",),
        "monitors_tables_latest": ("since_at", "changed_at"),
        "monitors_probestate": ("taken_at",),
    }
    with connection.cursor() as cursor:
        for table, names in columns.items():
            older = ", ".join(f"{name} = {name} - interval '{hours} hour'" for name in names)
            cursor.execute(f"UPDATE {table} SET {older} WHERE target_id = %s", [target.pk])


class Growing:
    """A table of 10,000 rows that autovacuum leaves alone; dead rows are made and vacuumed."""

    def __init__(self, session, name, eventually):
        self.session, self.name, self.eventually = session, name, eventually
        session.execute(f"DROP TABLE IF EXISTS {name}")
        session.execute(f"CREATE TABLE {name} (id integer) WITH (autovacuum_enabled = off)")
        session.execute(f"INSERT INTO {name} SELECT generate_series(1, 10000)")
        session.execute(f"ANALYZE {name}")
        self.gone = 0

    def kill(self, count, dead):
        """Let so many more rows die, and wait until the server says that so many are dead."""
        self.gone += count
        self.session.execute(f"DELETE FROM {self.name} WHERE id <= {self.gone}")
        self.dead_are(dead)

    def vacuum(self):
        """Take the dead rows away."""
        self.session.execute(f"VACUUM {self.name}")
        self.dead_are(0)

    def dead_are(self, count):
        """Wait until the server says so."""
        asked = f"SELECT pg_stat_get_dead_tuples('{self.name}'::regclass)"
        self.eventually(lambda: self.session.execute(asked).fetchone() == (count,))

    def row(self):
        """Return what is kept of it."""
        return FindingRecord.objects.get(
            advisor="autovacuum_disabled", object_name=f"public.{self.name}"
        )


@pytest.fixture
def table(session, worker_id, eventually):
    made = Growing(session, f"grows_{worker_id}", eventually)
    yield made
    session.execute(f"DROP TABLE {made.name}")


@pytest.mark.fleet
def test_the_date_comes_from_how_a_real_table_grew_between_its_vacuums(server, table, watch):
    target = watch(server)
    table.kill(300, 300)
    take_now(target, ["tables", "databases"])
    keep.keep(target.pk, {"tables"})
    first = table.row()
    an_hour_passes(target)
    table.kill(200, 500)
    take_now(target, ["tables", "databases"])
    an_hour_passes(target)
    table.vacuum()
    take_now(target, ["tables", "databases"])
    an_hour_passes(target)
    table.kill(400, 400)
    take_now(target, ["tables", "databases"])
    keep.keep(target.pk, {"tables"})

    # 200 + 400 dead rows in the two hours without a vacuum: 300 an hour. Autovacuum would
    # come beyond 50 + 0.2 * 10,000 (9,500 since the vacuum) dead rows.
    row = table.row()
    limit = next(value for label, value, _ in row.evidence if label.startswith("Autovacuum"))
    hours = (limit - 400) / 300
    assert first.hurts.endswith("; no date so far: needs an hour of history")
    assert (first.hurts_at, first.hurts_already) == (None, False)
    assert 1900 < limit <= 2050
    assert row.hurts.startswith(f"past {limit:,.0f} dead rows autovacuum would have come, at ")
    assert (row.hurts_at - timezone.now()) / timedelta(hours=1) == pytest.approx(hours, abs=0.05)
    [shown] = [one for one in judge.find(target) if one.relid == row.relid]
    assert (shown.hurts, shown.hurts_at) == (row.hurts, row.hurts_at)  # as the worker reckoned
    [past] = [one for one in judge.find(target, timezone.now()) if one.relid == row.relid]
    assert abs(past.hurts_at - row.hurts_at) < timedelta(minutes=3)  # reckoned from the history


@pytest.mark.parametrize("server", [18], indirect=True, ids=str)
def test_what_hurts_already_does_so_since_it_was_first_seen_to(server, table, watch):
    target = watch(server)
    table.kill(300, 300)
    take_now(target, ["databases", "tables"])
    keep.keep(target.pk, {"tables"})
    assert not table.row().hurts_already

    table.kill(2000, 2300)  # past its threshold
    take_now(target, ["databases", "tables"])
    keep.keep(target.pk, {"tables"})
    first = table.row()
    table.kill(100, 2400)
    take_now(target, ["databases", "tables"])
    keep.keep(target.pk, {"tables"})

    assert first.first_seen_at < first.hurts_at == first.seen_at
    again = table.row()
    assert (again.hurts_already, again.hurts_at) == (True, first.hurts_at)
    assert again.seen_at > first.seen_at


@pytest.mark.parametrize(
    ("backends", "steady"),
    [([60, 70, 80, 90], True), ([90, 60, 70, 80], False), ([70, 70, 70, 70], False)],
)
@pytest.mark.parametrize("server", [18], indirect=True, ids=str)
def test_connections_rise_only_where_no_quarter_of_the_hour_fell(server, watch, backends, steady):
    target, now = watch(server), timezone.now()
    partitions.make_ahead(now)
    partitions.make_ahead(now - timedelta(hours=1))
    for quarter, count in enumerate(backends):
        for minute in (1, 6, 11):
            moment = now - timedelta(minutes=60 - 15 * quarter - minute)
            HISTORY["sessions"].samples._default_manager.create(
                target_id=target.pk, database_id=0, state="idle", wait_event_type="",
                taken_at=moment, target_at=moment, change=Change.CHANGED, backends=count,
            )  # fmt: skip
            Snapshot.objects.create(
                target_id=target.pk, database_id=0, probe="sessions", taken_at=moment,
                state="ok", interval_seconds=300,
            )  # fmt: skip

    rate = recent.connections(target, now)

    assert rate.seconds == pytest.approx(55 * 60)
    if steady:
        assert rate.per_second == pytest.approx(40 / 3600, rel=0.1)
    else:
        assert rate == Rate(0.0, rate.seconds)
