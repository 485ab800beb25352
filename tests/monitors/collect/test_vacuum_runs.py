"""The record of every vacuum and analyze, from real servers."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import TypeVar

import psycopg
import pytest
from django.db import connection as history
from django.utils import timezone

from monitors.acting import perform
from monitors.collect import run_facts, vacuum_runs
from monitors.collect.rewrites import REWRITES
from monitors.collect.rounds import take_now
from monitors.findings import keep
from monitors.models import HISTORY, Action, FindingRecord, Target, VacuumRun
from tests import servers

Known = TypeVar("Known")


def known(value: Known | None) -> Known:
    """Return what must be known."""
    assert value is not None
    return value


pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


@pytest.fixture
def recorded(server, watch, table, eventually):
    """A watched table with 100 dead rows that was read once: (target, its name, its runs)."""
    name = table(server)
    target = watch(server, operator_user="operator")
    take_now(target)

    def runs(**fields):
        take_now(target, ["tables"])
        relname = name.removeprefix("public.")
        return list(VacuumRun.objects.filter(relname=relname, **fields).order_by("kind"))

    return target, name, runs


@pytest.fixture
def ran(server, eventually):
    """Run a statement and wait until the server's statistics show it: ran("VACUUM …", counter)."""

    def run(statement, name, counter, times=1):
        with server.connect(dbname="shop") as session:
            reached = session.execute(
                f"SELECT pg_stat_get_{counter}(%s::regclass)", [name]
            ).fetchone()[0]
            for _ in range(times):
                session.execute(statement)
            eventually(
                lambda: (
                    session.execute(
                        f"SELECT pg_stat_get_{counter}(%s::regclass)", [name]
                    ).fetchone()[0]
                    >= reached + times
                )
            )

    return run


def test_a_vacuum_by_hand_is_recorded_with_its_end(server, recorded, ran):
    _target, name, runs = recorded
    before = timezone.now()
    ran(f"VACUUM {name}", name, "vacuum_count")

    [run] = runs()

    assert (run.kind, run.count, run.exactness, run.by) == ("vacuum", 1, "timed", "")
    assert before - timedelta(seconds=5) <= run.ended_at <= timezone.now() + timedelta(seconds=5)
    assert (run.n_dead_before, run.n_dead_after) == (100, 0)
    assert run.wraparound is False
    assert run.action_id is None
    if server.major >= 18:
        assert run.seconds >= 0
        assert run.started_at <= run.ended_at
    else:
        assert run.seconds is run.started_at is None
    assert run.size_after > 0


def test_an_analyze_and_a_vacuum_are_two_runs(recorded, ran):
    _target, name, runs = recorded
    ran(f"VACUUM (ANALYZE) {name}", name, "analyze_count")

    assert [run.kind for run in runs()] == ["analyze", "vacuum"]


def test_nothing_is_recorded_where_nothing_ran(recorded, server):
    _target, name, runs = recorded
    with server.connect(user="owner", dbname="shop") as session:
        session.execute(f"INSERT INTO {name} VALUES (1)")

    assert runs() == []


def test_three_between_two_snapshots_are_counted_and_the_last_is_timed(server, recorded, ran):
    _target, name, runs = recorded
    ran(f"VACUUM {name}", name, "vacuum_count", times=3)

    [run] = runs()

    assert (run.count, run.exactness) == (3, "counted")
    assert run.started_at is None
    assert run.after_at < run.ended_at
    if server.major >= 18:
        assert run.seconds >= 0  # of all three together


def test_counters_that_are_reset_are_no_run(server, recorded, ran, eventually):
    _target, name, runs = recorded
    ran(f"VACUUM {name}", name, "vacuum_count")
    assert len(runs()) == 1
    with server.connect(dbname="shop") as session:
        session.execute("SELECT pg_stat_reset_single_table_counters(%s::regclass)", [name])
        eventually(
            lambda: session.execute(
                "SELECT pg_stat_get_vacuum_count(%s::regclass) = 0", [name]
            ).fetchone()[0]
        )

    assert len(runs()) == 1
    ran(f"VACUUM {name}", name, "vacuum_count")
    later = runs()
    assert [run.count for run in later] == [1, 1]
    assert later[0].ended_at != later[1].ended_at


def test_a_dropped_table_keeps_its_runs_under_its_name(server, recorded, ran):
    _target, name, runs = recorded
    ran(f"VACUUM {name}", name, "vacuum_count")
    assert len(runs()) == 1
    with server.connect(dbname="shop") as session:
        session.execute(f"DROP TABLE {name}")

    assert [run.kind for run in runs()] == ["vacuum"]


def test_what_a_person_did_through_howdah_bears_the_name(recorded, person, done):
    target, name, runs = recorded
    user = person("operator", name="vera")

    action = done(user, target, "vacuum", table=name, analyze="true")

    assert action.state == "succeeded"
    analyzed, vacuumed = runs()
    assert [(run.kind, run.by, run.action_id) for run in (analyzed, vacuumed)] == [
        ("analyze", "vera", action.pk),
        ("vacuum", "vera", action.pk),
    ]
    assert 0 < known(vacuumed.seconds) < 60  # on every version, not only where the server tells it
    assert known(vacuumed.started_at) < vacuumed.ended_at


def test_a_toast_table_has_runs_of_its_own(server, watch, ran):
    with server.connect(dbname="shop") as session:
        session.execute("DROP TABLE IF EXISTS toasted_runs")
        session.execute("CREATE TABLE toasted_runs (id int, body text)")
        session.execute("ALTER TABLE toasted_runs ALTER body SET STORAGE EXTERNAL")
        session.execute("VACUUM toasted_runs")
        session.execute("VACUUM toasted_runs")
        target = watch(server)
        take_now(target)
        session.execute(
            "INSERT INTO toasted_runs SELECT g, repeat('x', 9000) FROM generate_series(1, 40) AS g"
        )
        session.execute("DELETE FROM toasted_runs WHERE id < 20")
        [(toast,)] = session.execute(
            "SELECT reltoastrelid::bigint FROM pg_class WHERE oid = 'toasted_runs'::regclass"
        ).fetchall()
    ran("VACUUM toasted_runs", "toasted_runs", "vacuum_count")
    take_now(target, ["tables"])
    with server.connect(dbname="shop") as session:
        session.execute("DROP TABLE toasted_runs")

    [run] = VacuumRun.objects.filter(relid=toast)

    # It was vacuumed twice while it was empty and unread: those are not counted.
    assert (run.kind, run.relkind, run.count) == ("vacuum", "t", 1)


def test_what_fails_costs_a_line_in_the_log_and_no_snapshot(recorded, ran, monkeypatch, caplog):
    target, name, _runs = recorded
    ran(f"VACUUM {name}", name, "vacuum_count")
    monkeypatch.setattr(vacuum_runs, "COUNTED", ("no_such_kind",))

    [result] = take_now(target, ["tables"])

    assert result.state == "ok"
    assert "not recorded" in caplog.text
    assert not VacuumRun.objects.exists()


@pytest.fixture
def slowly(server):
    """Vacuum a table so slowly that it can be looked at: slowly(table, "VACUUM") -> stop."""
    with ExitStack() as sessions:

        def start(statement):
            session = sessions.enter_context(server.connect(dbname="shop", user="owner"))
            session.execute("SET vacuum_cost_delay = 20")
            session.execute("SET vacuum_cost_limit = 20")

            def run():
                with suppress(psycopg.Error):
                    session.execute(statement)

            thread = threading.Thread(target=run)
            sessions.callback(thread.join)
            thread.start()
            return thread

        yield start


def test_progress_adds_start_role_phases_and_passes(server, watch, slowly, eventually):
    with server.connect(dbname="shop", user="owner") as session:
        session.execute("DROP TABLE IF EXISTS watched_run")
        session.execute(
            "CREATE TABLE watched_run WITH (autovacuum_enabled = off) AS"
            " SELECT g AS id FROM generate_series(1, 60000) AS g"
        )
        session.execute("CREATE INDEX ON watched_run (id)")
        session.execute("DELETE FROM watched_run WHERE id % 2 = 0")
        [(relid,)] = session.execute("SELECT 'watched_run'::regclass::oid::bigint").fetchall()
    target = watch(server)
    take_now(target)
    thread = slowly("VACUUM watched_run")
    progress = HISTORY["progress"].samples._default_manager.filter(relid=relid)

    def over():
        take_now(target, ["progress"])
        return not thread.is_alive() and progress.exists()

    eventually(over, seconds=60)
    with server.connect(dbname="shop") as session:
        eventually(
            lambda: session.execute(
                "SELECT pg_stat_get_vacuum_count('watched_run'::regclass) = 1"
            ).fetchone()[0]
        )
        take_now(target, ["tables"])
        session.execute("DROP TABLE watched_run")

    [run] = VacuumRun.objects.filter(relid=relid)

    assert (run.by, run.exactness, run.start_is_estimate) == ("owner", "timed", False)
    assert run.passes in {0, 1}
    assert "scanning heap" in run.phases
    assert 0 < known(run.seconds) < 60
    assert sum(run.phases.values()) <= known(run.seconds) + 1
    samples = list(progress.order_by("taken_at").values())
    assert samples[0]["heap_blks_total"] > 100
    if server.major < 17:
        assert samples[0]["max_dead_tuples"] > 0
        assert samples[0]["max_dead_tuple_bytes"] is None
    else:
        assert samples[0]["max_dead_tuple_bytes"] > 0
        assert samples[0]["max_dead_tuples"] is None


@pytest.mark.parametrize(
    ("command", "kind", "statement"),
    [
        ("VACUUM FULL", "vacuum_full", "VACUUM FULL"),
        pytest.param("REPACK", "repack", "REPACK", marks=pytest.mark.pg(">=19")),
        pytest.param("REPACK", "repack", "REPACK (CONCURRENTLY)", marks=pytest.mark.pg(">=19")),
    ],
)
def test_a_rewrite_is_recorded_when_it_was_seen_to_run(  # noqa: PLR0917 - fixtures
    server, watch, eventually, live, command, kind, statement
):
    with server.connect(dbname="shop", user="owner") as session:
        session.execute("DROP TABLE IF EXISTS rewritten_run")
        session.execute(
            "CREATE TABLE rewritten_run AS SELECT g AS id FROM generate_series(1, 10) AS g"
        )
        session.execute("ALTER TABLE rewritten_run ADD PRIMARY KEY (id)")
        # The index of an expression that takes its time keeps the rewrite where it can be seen.
        session.execute(
            "CREATE OR REPLACE FUNCTION take_time(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql"
            " AS 'BEGIN PERFORM pg_sleep(0.2); RETURN id; END'"
        )
        session.execute("CREATE INDEX ON rewritten_run (take_time(id))")
        [(relid,)] = session.execute("SELECT 'rewritten_run'::regclass::oid::bigint").fetchall()
    target = watch(server)
    take_now(target)
    rewriting = live(server, dbname="shop", user="owner")
    thread = threading.Thread(target=lambda: rewriting.execute(f"{statement} rewritten_run"))
    thread.start()
    progress = HISTORY["progress"].samples._default_manager.filter(relid=relid)

    def over():
        take_now(target, ["progress"])
        return not thread.is_alive() and progress.filter(command=command).exists()

    eventually(over, seconds=30)
    thread.join()
    take_now(target, ["progress"])
    with server.connect(dbname="shop") as session:
        session.execute("DROP TABLE rewritten_run")
        session.execute("DROP FUNCTION take_time")

    [run] = VacuumRun.objects.filter(relid=relid)

    assert (run.kind, run.exactness, run.by) == (kind, "seen", "owner")
    assert known(run.started_at) < known(run.after_at) < run.ended_at


def begin(row):
    """Perform an action beside the test; gives the thread."""

    def work():
        perform.perform(str(row.pk))
        history.close()  # this thread's, to our own database

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.fixture
def slow_to_rewrite(server, table):
    """A table whose rewrite takes two seconds: an index of an expression keeps it busy."""
    name = table(server, dead=990)
    with server.connect(dbname="shop", user="owner") as session:
        session.execute(f"ALTER TABLE {name} ADD CONSTRAINT rewritten_id PRIMARY KEY (id)")
        session.execute(
            "CREATE OR REPLACE FUNCTION slow_id(id bigint) RETURNS bigint IMMUTABLE"
            " LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN id; END'"
        )
        session.execute(f"CREATE INDEX ON {name} (slow_id(id))")
    yield name
    with server.connect(dbname="shop", user="owner") as session:
        session.execute("DROP FUNCTION slow_id CASCADE")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_watched", [False, True], ids=["tables-first", "watched"])
@pytest.mark.parametrize(
    ("action", "given"),
    [
        ("vacuum_full", {}),
        ("cluster", {"using": "rewritten_id"}),
        pytest.param("repack", {}, marks=pytest.mark.pg(">=19")),
    ],
)
def test_a_rewrite_through_howdah_has_its_action_its_seconds_and_both_sizes(  # noqa: PLR0917 - fixtures
    server, watch, person, requested, eventually, slow_to_rewrite, action, given, is_watched
):
    target = watch(server, operator_user="operator")
    take_now(target)
    row = requested(person("dba"), target, action, table=slow_to_rewrite, **given)

    thread = begin(row)
    progress = HISTORY["progress"].samples._default_manager.filter(command__in=REWRITES)

    def is_seen():
        take_now(target, ["progress"])
        return progress.exists() and not (is_watched and thread.is_alive())

    eventually(is_seen, seconds=60)
    thread.join()
    row.refresh_from_db()
    assert row.state == "succeeded", row.outcome
    if not is_watched:  # as if the next look came some seconds later
        Action.objects.filter(pk=row.pk).update(finished_at=row.finished_at - 1.5 * run_facts.SLACK)
    take_now(target, ["progress"])
    take_now(target, ["tables"])

    [run] = VacuumRun.objects.filter(relname=slow_to_rewrite.removeprefix("public."))

    assert (run.kind, run.action_id, run.by) == (action, row.pk, row.asked_by_name)
    assert 0 < known(run.seconds) < 60
    assert run.phases
    assert known(run.size_after) < known(run.size_before)
    assert (run.size_before, run.size_after) == (row.before["size_bytes"], row.after["size_bytes"])
    assert run.n_dead_before == 990


@pytest.mark.parametrize(
    "statement",
    ["VACUUM FULL", pytest.param("REPACK (CONCURRENTLY)", marks=pytest.mark.pg(">=19"))],
)
def test_a_rewrite_that_changed_no_file_is_not_recorded(
    server, watch, eventually, live, slow_to_rewrite, statement
):
    target = watch(server)
    take_now(target)
    rewriting = live(server, dbname="shop", user="owner")

    def work():
        with suppress(psycopg.errors.QueryCanceled):
            rewriting.execute(f"{statement} {slow_to_rewrite}")

    thread = threading.Thread(target=work)
    thread.start()
    progress = HISTORY["progress"].samples._default_manager.filter(command__in=REWRITES)

    def is_seen():
        take_now(target, ["progress"])
        return progress.exists()

    eventually(is_seen, seconds=30)
    rewriting.cancel()
    thread.join()
    take_now(target, ["progress"])
    runs = VacuumRun.objects.filter(relname=slow_to_rewrite.removeprefix("public."))
    assert runs.count() == 1  # what became of it is not known yet

    take_now(target, ["tables"])

    assert not runs.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "told-late"])
def test_a_rewrite_of_ours_that_failed_is_not_the_one_that_worked(  # noqa: PLR0917 - fixtures
    server, watch, person, requested, eventually, slow_to_rewrite, is_told
):
    target = watch(server, operator_user="operator")
    take_now(target)
    row = requested(person("dba"), target, "vacuum_full", table=slow_to_rewrite)

    thread = begin(row)
    progress = HISTORY["progress"].samples._default_manager.filter(command__in=REWRITES)

    def is_seen():
        take_now(target, ["progress"])
        return progress.exists()

    eventually(is_seen, seconds=30)
    pid = progress.values_list("pid", flat=True).latest("taken_at")
    with server.connect() as session:
        session.execute("SELECT pg_cancel_backend(%s)", [pid])
    thread.join()
    row.refresh_from_db()
    assert row.state == "failed", row.outcome
    if not is_told:  # the worker says so a little later than the snapshot sees its end
        Action.objects.filter(pk=row.pk).update(state="running", finished_at=None)
    take_now(target, ["progress"])
    runs = VacuumRun.objects.filter(relname=slow_to_rewrite.removeprefix("public."))
    assert runs.exists() != is_told
    Action.objects.filter(pk=row.pk).update(state="failed", finished_at=row.finished_at)
    with server.connect(dbname="shop", user="owner") as session:
        session.execute(f"VACUUM FULL {slow_to_rewrite}")

    take_now(target, ["tables"])

    [run] = runs
    assert (run.kind, run.action_id, run.by, run.phases) == ("rewrite", None, "", {})


def test_two_rewrites_of_ours_one_after_the_other_are_two(recorded, server, person, done):
    target, name, runs = recorded
    relname = name.removeprefix("public.")
    with server.connect(dbname="shop", user="owner") as session:
        session.execute(f"CREATE INDEX {relname}_i ON {name} (id)")
    runs()

    full = done(person("dba"), target, "vacuum_full", table=name)
    cluster = done(person("dba"), target, "cluster", table=name, using=f"{relname}_i")

    assert (full.state, cluster.state) == ("succeeded", "succeeded")
    kept = runs(kind__in=REWRITES.values())
    assert [(run.kind, run.action_id) for run in kept] == [
        ("cluster", cluster.pk),
        ("vacuum_full", full.pk),
    ]


@pytest.mark.parametrize(
    "statement", ["VACUUM FULL {}", "CLUSTER {} USING {}_id", "ALTER TABLE {} ALTER id TYPE bigint"]
)
def test_dead_rows_that_a_rewrite_took_away_are_none(server, watch, eventually, statement):
    with server.connect(dbname="shop", user="owner") as session:
        session.execute("DROP TABLE IF EXISTS anew")
        session.execute("CREATE TABLE anew (id int)")
        session.execute("INSERT INTO anew SELECT generate_series(1, 5000)")
        session.execute("CREATE INDEX anew_id ON anew (id)")
        session.execute("ANALYZE anew")
        session.execute("DELETE FROM anew WHERE id <= 3000")
    target = watch(server)
    take_now(target, ["databases", "activity", "progress"])

    def dead():
        take_now(target, ["tables"])
        row = latest().values("n_dead_tup", "rewritten_dead_tup").get()
        return row["n_dead_tup"], row["rewritten_dead_tup"]

    def latest():
        return HISTORY["tables"].latest._default_manager.filter(relname="anew", gone_at=None)

    eventually(lambda: dead() == (3000, None), seconds=30)
    keep.keep(target.pk, {"tables"})
    record = FindingRecord.objects.get(target=target, advisor="dead_tuples")
    with server.connect(dbname="shop", user="owner") as session:
        session.execute(statement.format("anew", "anew"))
        [(said,)] = session.execute("SELECT pg_stat_get_dead_tuples('anew'::regclass)")

    assert dead() == ((0, 3000) if said else (0, None))
    keep.keep(target.pk, {"tables"})
    record.refresh_from_db()
    assert record.resolved_at is not None
    [run] = VacuumRun.objects.filter(relname="anew", kind="rewrite")
    assert (run.n_dead_before, run.n_dead_after) == (3000, 0)

    with server.connect(dbname="shop", user="owner") as session:
        session.execute("DELETE FROM anew WHERE id <= 4000")
    eventually(lambda: dead() == (1000, 3000 if said else None), seconds=30)
    with server.connect(dbname="shop", user="owner") as session:
        session.execute("VACUUM anew")
    eventually(lambda: dead() == (0, None), seconds=30)
    with server.connect(dbname="shop", user="owner") as session:
        session.execute("TRUNCATE anew")
    with server.connect(dbname="shop") as session:  # 14 tells it later than the new file
        told = "SELECT pg_stat_get_live_tuples('anew'::regclass)"
        eventually(lambda: list(session.execute(told)) == [(0,)])
    assert dead() == (0, None)
    assert VacuumRun.objects.filter(relname="anew", kind="rewrite").count() == 1
    with server.connect(dbname="shop", user="owner") as session:
        session.execute("DROP TABLE anew")


@pytest.mark.parametrize(
    ("statement", "runs"),
    [
        ("VACUUM FULL {}", 1),
        ("ALTER TABLE {} ALTER id TYPE bigint", 1),
        ("ALTER TABLE {} SET UNLOGGED", 1),
        ("TRUNCATE {}", 0),
    ],
)
def test_a_rewrite_is_recorded_though_no_live_rows_are_counted(
    server, watch, eventually, statement, runs
):
    """As after a crash, which loses the counters of all tables."""
    with server.connect(dbname="shop", user="owner") as session:
        session.execute("CREATE TABLE uncounted (id int, body text)")  # with a TOAST table
        session.execute("INSERT INTO uncounted SELECT g, 'x' FROM generate_series(1, 5000) AS g")
        session.execute("CREATE INDEX uncounted_id ON uncounted (id)")
    with server.connect(dbname="shop") as session:
        live = "SELECT pg_stat_get_live_tuples('uncounted'::regclass)"
        eventually(lambda: list(session.execute(live)) == [(5000,)])  # 14's collector has all
        session.execute("SELECT pg_stat_reset_single_table_counters('uncounted'::regclass)")
        eventually(lambda: list(session.execute(live)) == [(0,)])
    target = watch(server)
    take_now(target)
    with server.connect(dbname="shop", user="owner") as session:
        session.execute(statement.format("uncounted"))

    take_now(target, ["tables"])

    assert VacuumRun.objects.filter(relname="uncounted", kind="rewrite").count() == runs


def test_what_is_older_than_a_year_is_forgotten(recorded, ran):
    _target, name, runs = recorded
    ran(f"VACUUM {name}", name, "vacuum_count")
    assert len(runs()) == 1

    vacuum_runs.prune(timezone.now() + timedelta(days=364))
    assert VacuumRun.objects.exists()

    vacuum_runs.prune(timezone.now() + timedelta(days=366))
    assert not VacuumRun.objects.exists()


def test_runs_go_with_their_target(recorded, ran):
    from monitors.targets import remove  # noqa: PLC0415

    target, name, runs = recorded
    ran(f"VACUUM {name}", name, "vacuum_count")
    assert len(runs()) == 1
    Target.objects.filter(pk=target.pk).update(deleting_at=timezone.now())

    remove.delete_target(target.pk)

    assert not VacuumRun.objects.exists()


def test_an_autovacuum_is_recorded_with_its_samples(monkeypatch, watch, eventually):
    """On a server of its own whose autovacuum comes each second."""
    major = servers.MAJORS[-1]
    try:
        programs = servers.fleet_programs(major)
    except servers.Missing as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    monkeypatch.setitem(servers.SETTINGS, "autovacuum_naptime", "1s")
    with ExitStack() as stack:
        folder = stack.enter_context(servers.home())
        server = stack.enter_context(servers.running(major, programs, folder))
        session = stack.enter_context(server.connect(dbname="shop"))
        session.execute(
            "CREATE TABLE restless_run (id int) WITH (autovacuum_enabled = off,"
            " autovacuum_vacuum_cost_delay = 20, autovacuum_vacuum_cost_limit = 20)"
        )
        session.execute("INSERT INTO restless_run SELECT generate_series(1, 60000)")
        session.execute("DELETE FROM restless_run WHERE id % 2 = 0")
        eventually(
            lambda: known(
                session.execute(
                    "SELECT pg_stat_get_dead_tuples('restless_run'::regclass) = 30000"
                ).fetchone()
            )[0]
        )
        target = watch(server)
        take_now(target)
        session.execute("ALTER TABLE restless_run SET (autovacuum_enabled = on)")

        def ended():
            take_now(target, ["progress"])
            return known(
                session.execute(
                    "SELECT pg_stat_get_autovacuum_count('restless_run'::regclass) > 0"
                ).fetchone()
            )[0]

        eventually(ended, seconds=60)
        take_now(target, ["tables"])

    [run] = VacuumRun.objects.filter(relname="restless_run", kind="autovacuum")

    assert (run.by, run.wraparound, run.count) == ("autovacuum", False, 1)
    assert known(run.started_at) < run.ended_at
    assert known(run.seconds) > 0.1
    assert "scanning heap" in run.phases
    assert (run.n_dead_before, run.n_dead_after) == (30000, 0)
