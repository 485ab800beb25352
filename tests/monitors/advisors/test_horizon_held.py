"""Who keeps dead rows, how long, and the table that suffers most."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.horizon_held import ADVISOR
from monitors.rules.horizon import Held
from tests.monitors.advisors.rows import DUE, advise, ago, burning, idle_in_transaction, table
from tests.monitors.rules.test_horizon import CATALOG, PREPARED, SLOT, holder

FOUND = {
    "tables": [DUE],
    "horizon": [holder() | {"held": Held(ago(9000), ago(8000))}],
}
"""Facts in which it finds something."""

HOURS = 3600
DEAD = table(n_dead_tup=5000)


def held(row, hours):
    return row | {"held": Held(ago(hours * HOURS + 60), ago(hours * HOURS))}


@pytest.mark.parametrize(
    ("hours", "severity"),
    [
        (1.0, None),
        (1.01, Severity.NOTICE),
        (6.01, Severity.WARNING),
        (24.01, Severity.CRITICAL),
    ],
)
def test_it_is_worse_the_longer_it_is_held(hours, severity):
    found = advise(ADVISOR, tables=[DEAD], horizon=[held(holder(), hours)])

    assert [one.severity for one in found] == ([severity] if severity else [])


def test_it_names_the_holder_and_the_table_that_suffers_most():
    tables = [DEAD, table(relid=2, relname="carts", n_dead_tup=9000), table(relid=3)]
    activity = [idle_in_transaction(seconds=7200, xact_start=ago(7200))]

    [found] = advise(ADVISOR, tables=tables, activity=activity, horizon=[held(holder(), 2)])

    assert found.title == (
        "public.carts and 1 more table can't be cleaned: backend 4321 (billing-api, "
        "idle in transaction since 08:42 UTC) holds the horizon."
    )
    assert found.action == "terminate_backend"
    assert found.arguments["pid"] == "4321"
    assert found.pid == 4321
    assert found.evidence == (
        ("Held for at least", 7200.0, "seconds"),
        ("Transactions since", 1000, "count"),
        ("Dead rows in its scope", 14_000, "rows"),
    )


def test_without_dead_rows_in_its_scope_it_says_nothing():
    elsewhere = holder(datname="archive")

    assert advise(ADVISOR, tables=[table(n_dead_tup=1000)], horizon=[held(holder(), 9)]) == []
    assert advise(ADVISOR, tables=[DEAD], horizon=[held(elsewhere, 9)]) == []
    assert advise(ADVISOR, tables=[DEAD], horizon=[held(CATALOG, 9)]) == []


@pytest.mark.parametrize("row", [SLOT, PREPARED], ids=["slot", "prepared"])
def test_what_has_no_backend_has_a_statement_instead_of_a_button(row):
    [found] = advise(ADVISOR, tables=[DEAD], horizon=[held(row, 9)])

    assert found.action == ""
    assert found.pid is None


def test_only_the_oldest_holder_of_a_database_is_named():
    younger = held(holder(name="9", xmin_age=10), 9)

    [found] = advise(ADVISOR, tables=[DEAD], horizon=[younger, held(SLOT, 9)])

    assert "replication slot spare" in found.title


def test_what_has_no_date_is_not_judged():
    assert advise(ADVISOR, tables=[DEAD], horizon=[holder() | {"held": None}]) == []


def test_its_thresholds_can_be_overridden():
    rows = {"tables": [DEAD], "horizon": [held(holder(), 2)]}

    assert advise(ADVISOR, thresholds={"notice_seconds": 3 * HOURS}, **rows) == []
    assert advise(ADVISOR, thresholds={"min_rows": 9000}, **rows) == []


def test_it_hurts_since_it_is_held_and_says_when_freezing_is_of_no_use():
    facts = {"tables": [DEAD], "horizon": [held(holder(xmin_age=1000), 2)]}
    near_age = {"autovacuum_freeze_max_age": "101000"}  # 100,000 ids to go

    [far] = advise(ADVISOR, burn=burning(1000), **facts)
    [near] = advise(ADVISOR, burn=burning(1000), settings=near_age, **facts)

    assert (far.hurts_already, far.hurts_at) == (True, ago(2 * HOURS))
    assert far.hurts == "no vacuum removes what died since"
    assert near.hurts_at == ago(2 * HOURS)
    assert near.hurts == (
        "no vacuum removes what died since; about 28 Nov 2026 also vacuums to prevent "
        "wraparound free nothing"
    )
