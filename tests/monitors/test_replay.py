"""Replays of what real servers did: a workload is recorded, then predicted from its counters."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from dashboard.embedded.postgres import embedded_programs
from monitors import replay, simulator
from monitors.history import series
from monitors.history.window import Window
from monitors.snapshot import take_now
from tests import servers

SECONDS = 30
EAGER = "autovacuum_vacuum_scale_factor=0.02"
ROWS = 2000
TWINS = {"as_usual": "", "eager": f"WITH ({EAGER})"}

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def restless(monkeypatch):
    """A server of its own whose autovacuum comes each second."""
    settings = {"autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "0"}
    for name, value in settings.items():
        monkeypatch.setitem(servers.SETTINGS, name, value)
    with ExitStack() as stack:
        folder = stack.enter_context(servers.home())
        yield stack.enter_context(servers.running(18, embedded_programs(), folder))


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
    tables = {row["relname"]: row for row in series.now("tables", recorded.pk)}

    usual = replay.replay(recorded, tables["as_usual"], window, {})
    eager = replay.replay(recorded, tables["eager"], window, {})
    tried = replay.replay(
        recorded, tables["as_usual"], window, replay.parsed(dict([EAGER.split("=")]))
    )

    assert usual.proof.real >= 3
    assert (usual.proof.recall_pct or 0) >= 90
    assert (eager.proof.recall_pct or 0) >= 90
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
    assert said["trade_off"]


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
        replay.parsed(given)


def test_what_is_no_parameter_is_left_out():
    assert replay.parsed({"window": "1h", "autovacuum_vacuum_threshold": " 7 "}) == {
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
