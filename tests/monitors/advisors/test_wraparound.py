"""Shares of the ids that are used up, and dates, on both sides of each limit."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.wraparound import ADVISOR
from monitors.rules.wraparound import STOP_AGE, Burn
from tests.monitors.advisors.rows import SHOP, advise, later, near

FOUND = {"databases": [{"datname": "shop", "xid_age": 1_200_000_000, "mxid_age": 9}]}
"""Facts in which it finds something."""

DAY = 86400.0


def database(**columns):
    return {"database_id": 0, "datname": "shop", "xid_age": 10, "mxid_age": 10} | columns


def burn(per_day):
    return {"xid": Burn(per_day / DAY, seconds=DAY), "mxid": Burn(0.0, seconds=DAY)}


@pytest.mark.parametrize(
    ("share", "severity"),
    [(0.0, None), (0.5, Severity.NOTICE), (0.501, Severity.WARNING), (0.801, Severity.CRITICAL)],
)
@pytest.mark.parametrize("column", ["xid_age", "mxid_age"])
def test_it_warns_at_half_and_at_four_fifths_of_the_stop(column, share, severity):
    found = advise(ADVISOR, databases=[database(**{column: int(share * STOP_AGE)})])

    # Up to a half the forced vacuums that are long due are a notice.
    assert [one.severity for one in found] == ([severity] if severity else [])


def test_it_says_the_date_of_the_stop():
    # (2,144,483,647 - 1,744,483,647) at 4,000,000 a day are 100 days from 24 Nov 2026.
    row = database(xid_age=1_744_483_647)

    [found] = advise(ADVISOR, databases=[row], burn=burn(4_000_000))

    assert found.title == (
        "shop has used 81 % of its transaction ids; at 167 k an hour the server stops giving "
        "them out on 4 Mar 2027."
    )
    assert found.database_id == SHOP


def test_without_history_it_says_that_it_has_no_date():
    [found] = advise(ADVISOR, databases=[database(xid_age=1_800_000_000)])

    assert "when the server stops can't be said (no history yet" in found.title


@pytest.mark.parametrize(("age", "found"), [(192_999_000, 0), (193_001_000, 1), (200_000_001, 1)])
def test_it_notices_a_forced_vacuum_within_a_week(age, found):
    said = advise(ADVISOR, databases=[database(xid_age=age)], burn=burn(1_000_000))

    assert len(said) == found


def test_it_says_when_forced_vacuums_begin_or_that_they_have():
    [soon] = advise(ADVISOR, databases=[database(xid_age=198_000_000)], burn=burn(1_000_000))
    [now] = advise(ADVISOR, databases=[database(xid_age=200_000_001)], burn=burn(1_000_000))

    assert soon.title == "Forced vacuums of shop begin about 26 Nov 10:42 UTC."
    assert now.title == "Forced vacuums of shop are due now."


def test_it_goes_by_the_servers_own_settings():
    settings = {"autovacuum_freeze_max_age": "1000000"}

    [found] = advise(ADVISOR, databases=[database(xid_age=1_000_001)], settings=settings)

    assert found.title == "Forced vacuums of shop are due now."


def test_its_thresholds_can_be_overridden():
    rows = {"databases": [database(xid_age=198_000_000)], "burn": burn(1_000_000)}

    assert advise(ADVISOR, thresholds={"notice_days": 1}, **rows) == []


def test_it_hurts_at_the_stop_or_when_vacuums_are_forced():
    [stop] = advise(ADVISOR, databases=[database(xid_age=1_744_483_647)], burn=burn(4_000_000))
    [soon] = advise(ADVISOR, databases=[database(xid_age=199_000_000)], burn=burn(1_000_000))
    [due] = advise(ADVISOR, databases=[database(xid_age=201_000_000)], burn=burn(1_000_000))
    [unknown] = advise(ADVISOR, databases=[database(xid_age=1_744_483_647)])

    assert (stop.hurts_at, stop.hurts_already) == (near(later(2400)), False)
    assert stop.hurts == "the server gives out no new ids, and nothing can be written"
    assert (soon.hurts_at, soon.hurts_already) == (near(later(24)), False)
    assert (due.hurts_at, due.hurts_already) == (None, True)
    assert (unknown.hurts_at, unknown.hurts_already) == (None, False)
    assert "; no date: no history yet" in unknown.hurts
