"""Tables, and whole servers, that autovacuum leaves alone."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.autovacuum_disabled import ADVISOR
from tests.monitors.advisors.rows import advise, burning, growing, later, near, table

FOUND = {
    "tables": [table(reloptions=["autovacuum_enabled=off"], n_tup_ins=5)],
}
"""Facts in which it finds something."""


def off(**columns):
    return table(reloptions=["autovacuum_enabled=false"], n_tup_ins=10, **columns)


def test_it_says_nothing_where_autovacuum_is_on():
    assert advise(ADVISOR, tables=[table(n_tup_ins=10)]) == []
    assert advise(ADVISOR, tables=[table(n_tup_ins=10, reloptions=["autovacuum_enabled=on"])]) == []


def test_it_says_nothing_of_a_table_that_nobody_writes():
    assert advise(ADVISOR, tables=[off() | {"n_tup_ins": 0}]) == []


def test_it_notices_a_table_with_few_dead_rows():
    [finding] = advise(ADVISOR, tables=[off(n_dead_tup=20_050)])

    assert finding.severity == Severity.NOTICE
    assert finding.action == "set_autovacuum"
    assert finding.arguments["autovacuum_enabled"] == "reset"
    assert (
        finding.title == "Autovacuum is off for public.orders in shop, which has 20,050 dead rows."
    )


def test_it_warns_past_the_threshold_that_the_table_would_have_and_turns_it_on_first():
    [finding] = advise(ADVISOR, tables=[off(n_dead_tup=20_051)])

    assert finding.severity == Severity.WARNING
    assert finding.action == "set_autovacuum"
    assert finding.arguments == {
        "database": "shop",
        "table": "public.orders",
        "autovacuum_enabled": "reset",
    }
    assert "ALTER TABLE public.orders RESET (autovacuum_enabled)), then vacuum it" in finding.why


@pytest.mark.parametrize(
    ("dead", "severity"), [(1_002_500, Severity.WARNING), (1_002_501, Severity.CRITICAL)]
)
def test_it_is_critical_when_dead_rows_have_piled_up_fiftyfold(dead, severity):
    [finding] = advise(ADVISOR, tables=[off(n_dead_tup=dead)])

    assert finding.severity == severity


def test_it_says_once_that_the_whole_server_has_it_off():
    [finding] = advise(ADVISOR, tables=[off(), off()], settings={"autovacuum": "off"})

    assert finding.severity == Severity.CRITICAL
    assert finding.title == "Autovacuum is off on the whole server: autovacuum is off."
    assert finding.database_id is None


def test_it_knows_that_without_counting_there_is_no_autovacuum():
    settings = {"autovacuum": "on", "track_counts": "off"}

    [finding] = advise(ADVISOR, settings=settings)

    assert "track_counts is off" in finding.title


def test_in_the_past_where_counters_are_unknown_rows_show_that_it_was_written():
    unknown = dict.fromkeys(("n_tup_ins", "n_tup_upd", "n_tup_del"))

    assert advise(ADVISOR, tables=[off(n_live_tup=0) | unknown]) == []
    assert len(advise(ADVISOR, tables=[off(n_live_tup=1) | unknown])) == 1
    assert len(advise(ADVISOR, tables=[off(n_live_tup=0, n_dead_tup=1) | unknown])) == 1


# When it hurts: 20,050 dead rows are its threshold, 200,000,000 the age of a forced vacuum.


def test_it_says_when_autovacuum_would_have_come():
    rates = growing("n_dead_tup", 1000)

    [one] = advise(ADVISOR, tables=[off(n_dead_tup=10_050)], rates=rates)

    assert one.hurts_at == near(later(10))
    assert one.hurts.startswith("past 20,050 dead rows autovacuum would have come, at 1,000 dead")


def test_it_says_when_a_vacuum_is_forced_where_that_is_sooner():
    facts = {"burn": burning(1000), "next_xid": 1000 + 199_999_000}

    [one] = advise(
        ADVISOR, tables=[off(n_dead_tup=10_050)], rates=growing("n_dead_tup", 1000), **facts
    )

    assert one.hurts_at == near(later(1))
    assert one.hurts.startswith("a vacuum to prevent wraparound is forced then")


def test_past_the_threshold_it_hurts_already():
    [one] = advise(ADVISOR, tables=[off(n_dead_tup=20_051)])

    assert (one.hurts_already, one.hurts_at) == (True, None)
    assert one.hurts == "past 20,050 dead rows autovacuum would have come"


def test_a_table_that_does_not_grow_has_no_date():
    [one] = advise(ADVISOR, tables=[off(n_dead_tup=1)], rates=growing("n_dead_tup", 0))

    assert (one.hurts_already, one.hurts_at) == (False, None)
    assert one.hurts.endswith("no date: no dead row was added in the last 6 h")


def test_a_server_without_it_hurts_once_tables_are_due_or_vacuums_forced():
    ages = [{"xid_age": 1000}, {"xid_age": 199_999_000}]
    facts = {"settings": {"autovacuum": "off"}, "databases": ages, "burn": burning(1000)}

    [due] = advise(ADVISOR, tables=[off(n_dead_tup=20_051), off(n_dead_tup=1)], **facts)
    [later_on] = advise(ADVISOR, tables=[off(n_dead_tup=1)], **facts)
    [unread] = advise(ADVISOR, settings=facts["settings"])

    assert (due.hurts_already, due.hurts) == (True, "1 table would be due for vacuum")
    assert later_on.hurts_at == near(later(1))
    assert (unread.hurts_at, unread.hurts_already) == (None, False)
    assert unread.hurts.endswith("no date so far: no age was read")
