"""Tables, and whole servers, that autovacuum leaves alone."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.autovacuum_disabled import ADVISOR
from tests.monitors.advisors.rows import advise, table


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


def test_in_the_past_where_counters_are_unknown_dead_rows_show_that_it_was_written():
    unknown = dict.fromkeys(("n_tup_ins", "n_tup_upd", "n_tup_del"))

    assert advise(ADVISOR, tables=[off() | unknown]) == []
    assert len(advise(ADVISOR, tables=[off(n_dead_tup=1) | unknown])) == 1
