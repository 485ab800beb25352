"""Replays of what real servers did: a workload is recorded, then predicted from its counters."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from dashboard.embedded import processes
from dashboard.embedded.postgres import embedded_programs
from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.history.window import Window
from monitors.rows import replay
from monitors.rules import simulator
from tests import servers

SECONDS = 30
EAGER = "autovacuum_vacuum_scale_factor=0.02"
ROWS = 2000
TWINS = {"as_usual": "", "eager": f"WITH ({EAGER})"}

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


RESTLESS = {"autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "0"}


@pytest.fixture
def restless():
    """A server of its own whose autovacuum comes each second."""
    with (
        servers.home() as folder,
        servers.running(18, embedded_programs(), folder, **RESTLESS) as server,
    ):
        yield server


@pytest.fixture
def recorded(restless, watch):
    """A target whose two tables had the same rows written, under different parameters."""
    target = watch(restless, name="restless", intervals={"tables": 1})
    with restless.connect(user="owner", dbname="shop") as session:
        for name, options in TWINS.items():
            session.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY, n int) {options}")
            session.execute(f"INSERT INTO {name} SELECT g, 0 FROM generate_series(1, {ROWS}) g")
            session.execute(f"CREATE INDEX ON {name} (n)")  # so that no update is HOT
            session.execute(f"VACUUM ANALYZE {name}")
        end, due, number = time.monotonic() + SECONDS, 0.0, 0
        while time.monotonic() < end:
            number += 1
            for name in TWINS:
                session.execute(
                    f"UPDATE {name} SET n = n + 1 WHERE mod(id, 50) = %(part)s",
                    {"part": number % 50},
                )
            if time.monotonic() >= due:
                due = time.monotonic() + 1
                take_now(target, ["databases", "tables", "indexes", "settings"])
            time.sleep(0.1)
        take_now(target, ["tables"])
    target.refresh_from_db()
    return target


def test_it_predicts_what_ran_and_what_would_have_run(recorded, capsys):
    now = timezone.now()
    window = Window(now - timedelta(minutes=5), now, is_live=True)
    tables = {row["relname"]: row for row in read_latest("tables", recorded.pk)}

    usual = replay.replay(recorded, tables["as_usual"], window, {})
    eager = replay.replay(recorded, tables["eager"], window, {})
    tried = replay.replay(
        recorded, tables["as_usual"], window, replay.parse(dict([EAGER.split("=")]))
    )

    for one in (usual.proof, eager.proof):
        assert one.real >= 3
        assert one.met >= 0.9 * one.timed
        assert one.agrees
    real = tables["eager"]["autovacuum_count"]
    assert tried.tried is not None
    assert real > 1.3 * tables["as_usual"]["autovacuum_count"]
    assert len(tried.tried.vacuums) == pytest.approx(real, rel=0.25)
    assert tried.tried.usual_dead < usual.as_is.usual_dead

    call_command("simulate", "restless", database="shop", table="public.as_usual",
                 set=[EAGER], window="1h", best=True, json=True)  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert said["recall_pct"] == usual.proof.recall_pct
    assert said["tried"]["vacuums_a_day"] > said["as_is"]["vacuums_a_day"]
    assert not any(one["is_pressed"] for one in said["trade_off"])


SHAPES = {
    # An autovacuum in two seconds: where the machine is busy, what is due each second comes less often.
    "steady": (6000, "UPDATE steady SET n = n + 1 WHERE id %% 80 = %(part)s"),
    "burst": (2000, "UPDATE burst SET n = n + 1 WHERE id %% 4 = %(part)s %% 4 AND %(is_burst)s"),
    "inserts": (100, "INSERT INTO inserts SELECT %(part)s, 0 FROM generate_series(1, 50)"),
    "hot": (20, "UPDATE hot SET n = n + %(part)s + 1"),
    "cold": (40000, "DELETE FROM cold WHERE id = %(part)s"),
}
"""Workloads: {table: (rows at the start, what is done to it ten times a second)}."""
SHAPED_SECONDS = 40
LOOKS = 4.0  # seconds between two snapshots: several autovacuums end in between


@pytest.fixture(params=[14, 18])
def shaped(request, watch):
    """A target whose tables were written to in different shapes, and how often its server vacuumed each."""
    programs = servers.fleet_programs(request.param)
    with (
        servers.home() as folder,
        servers.running(request.param, programs, folder, **RESTLESS) as server,
    ):
        target = watch(server, name="shaped", intervals={"tables": 4, "indexes": 4})
        with server.connect(dbname="shop") as session:
            switch(session, "off")
            make_tables(session)
            switch(session, "on")
            take_now(target, ["databases", "tables", "indexes", "settings"])
            write(session, target)
            assert processes.wait_until(lambda: looked_while_quiet(session, target), seconds=30)
            counted = counts(session)
    target.refresh_from_db()
    return target, counted


def make_tables(session):
    """Make a table of each shape, vacuumed, on which no update is HOT."""
    for name, (rows, _) in SHAPES.items():
        session.execute(f"CREATE TABLE {name} (id bigint, n int)")
        session.execute(f"INSERT INTO {name} SELECT g, 0 FROM generate_series(1, {rows}) g")
        session.execute(f"CREATE INDEX ON {name} (id)")
        session.execute(f"CREATE INDEX ON {name} (n)")
        session.execute(f"VACUUM ANALYZE {name}")


def switch(session, value):
    """Turn autovacuum on or off for the server."""
    session.execute(f"ALTER SYSTEM SET autovacuum = {value}")
    session.execute("SELECT pg_reload_conf()")
    assert processes.wait_until(
        lambda: session.execute("SHOW autovacuum").fetchone() == (value,), seconds=10
    )


def looked_while_quiet(session, target):
    """Take a last snapshot; tells whether no autovacuum ended meanwhile."""
    before = counts(session)
    take_now(target, ["tables", "indexes"])
    return counts(session) == before


def counts(session):
    """Return how often autovacuum vacuumed each table, as its server counts it."""
    rows = session.execute("SELECT relname, autovacuum_count FROM pg_stat_user_tables")
    return dict(rows.fetchall())


def write(session, target):
    """Write to every table for a while, and look at them now and then."""
    begin, due, number = time.monotonic(), LOOKS, 0
    while (elapsed := time.monotonic() - begin) < SHAPED_SECONDS:
        number += 1
        words = {"part": number % 40, "is_burst": elapsed % 20 < 2}
        for _, statement in SHAPES.values():
            session.execute(statement, {name: words[name] for name in words if name in statement})
        if elapsed >= due:
            due = elapsed + LOOKS
            take_now(target, ["tables", "indexes"])
        time.sleep(0.1)


def test_the_proof_counts_what_the_server_counts_and_no_choice_is_foolish(shaped, capsys):
    target, counted = shaped
    now = timezone.now()
    window = Window(now - timedelta(minutes=5), now, is_live=True)
    tables = {row["relname"]: row for row in read_latest("tables", target.pk)}
    done = {name: replay.replay(target, tables[name], window, {}) for name in SHAPES}
    chosen = {name: replay.trade_off(target, one) for name, one in done.items()}

    for name, one in done.items():
        proof = one.proof
        assert proof.real + proof.in_gaps == counted[name], name
        assert proof.timed <= one.proof.real, name
        for candidate in chosen[name]:
            outcome = candidate.outcome
            assert not outcome.is_pressed, name
            assert outcome.vacuums_a_day < 86400, name
            assert outcome.total_bytes_a_day < one.as_is.total_bytes_a_day, name
    hot = done["hot"].proof
    assert hot.real > hot.timed
    assert hot.recall_pct is None
    assert f"Autovacuum came {hot.real:,} times" in replay.verdict_of(hot)[1]
    assert f"Of the other {hot.real - hot.timed:,} only the number" in replay.verdict_of(hot)[1]
    assert done["steady"].proof.agrees
    assert not chosen["inserts"]
    assert not chosen["cold"]
    eager = {"autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "50"}
    best = [simulator.balanced(line) for line in chosen.values()]
    assert all(one is None or one.options != eager for one in best)

    call_command("simulate", "shaped", database="shop", table="public.hot",
                 set=[], window="1h", best=True, json=True)  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    assert said["real_autovacuums"] + said["autovacuums_in_gaps"] == counted["hot"]
    assert said["recall_pct"] is None


def test_a_table_without_history_can_not_be_replayed(embedded, watch):
    target = watch(embedded, name="new")
    now = timezone.now()
    table = {"database_id": 0, "relid": 1, "reloptions": None}

    with pytest.raises(replay.NotEnough, match="too little history"):
        replay.replay(target, table, Window(now - timedelta(hours=1), now, is_live=True), {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"autovacuum_vacuum_scale_factor": "200"}, "a number from 0 to 100, not '200'"),
        ({"autovacuum_vacuum_scale_factor": "nan"}, "not 'nan'"),
        ({"autovacuum_vacuum_threshold": "1.5"}, "a whole number from 0"),
        ({"autovacuum_analyze_threshold": "many"}, "not 'many'"),
    ],
)
def test_bad_parameters_are_said(given, said):
    with pytest.raises(ValueError, match=said):
        replay.parse(given)


def test_what_is_no_parameter_is_left_out():
    assert replay.parse({"window": "1h", "autovacuum_vacuum_threshold": " 7 "}) == {
        "autovacuum_vacuum_threshold": "7"
    }
    assert simulator.NAPTIME == 60


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"autovacuum_enabled": "on", "fillfactor": "90"}, {}),
        ({"autovacuum_enabled": "f"}, {"autovacuum_enabled": "true"}),
    ],
)
def test_what_is_tried_has_autovacuum_on(options, expected):
    assert replay.switched_on(options) == expected
