"""What Howdah did to a table is in its history at once, and counters stay exact."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from monitors import tasks
from monitors.collect.rounds import take_now
from monitors.findings import keep
from monitors.history.counters import read_sums
from monitors.history.window import Window
from monitors.models import HISTORY, FindingRecord

pytestmark = pytest.mark.django_db


@pytest.fixture
def refreshed(server, watch, person, requested, table, eventually):
    """A target with a table of 900 dead rows, and a function that does something to it."""
    limits = {"dead_tuples": {"min_rows": 100}}
    target = watch(server, operator_user="operator", thresholds=limits)
    name = table(server, dead=900)
    with server.connect(dbname="shop") as owner:
        owner.execute(f"ALTER TABLE {name} RESET (autovacuum_enabled)")

    def counted():
        take_now(target, ["databases", "tables", "activity"])
        return latest(target, name)["n_dead_tup"] == 900

    eventually(counted, seconds=30)
    keep.keep(target.pk, {"tables"})
    dba = person("dba")

    def do(action, **arguments):
        row = requested(dba, target, action, table=name, **arguments)
        tasks.perform_action(str(row.pk))
        row.refresh_from_db()
        assert row.state == "succeeded", row.outcome

    return target, name, do


def latest(target, name):
    relname = name.rpartition(".")[2].strip('"')
    rows = HISTORY["tables"].latest._default_manager.filter(target_id=target.pk, gone_at=None)
    return rows.filter(relname=relname).values().get()


def test_a_vacuum_by_howdah_is_seen_at_once(refreshed):
    target, name, do = refreshed
    assert FindingRecord.objects.filter(target=target, resolved_at=None).exists()
    before = latest(target, name)

    do("vacuum")

    row = latest(target, name)
    assert (row["n_dead_tup"], row["vacuum_count"]) == (0, before["vacuum_count"] + 1)
    assert not FindingRecord.objects.filter(
        target=target, relid=row["relid"], advisor="dead_tuples", resolved_at=None
    ).exists()
    take_now(target, ["tables"])
    now = timezone.now() + timedelta(seconds=1)
    [sums] = read_sums(
        "tables", target.pk, Window.last("1h", now), ["vacuum_count"], key={"relid": row["relid"]}
    )
    assert sums["vacuum_count"] == 1


@pytest.mark.parametrize("server", [18], indirect=True, ids=str)
def test_an_analyze_by_howdah_is_seen_at_once(refreshed):
    target, name, do = refreshed
    assert latest(target, name)["n_mod_since_analyze"] > 0

    do("analyze")

    assert latest(target, name)["n_mod_since_analyze"] == 0
