"""Index passes of vacuums, and the memory that would have been enough."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.multi_pass_vacuum import ADVISOR
from tests.monitors.advisors.rows import DUE, NOW, SHOP, advise, ago, growing, later, near, table

FOUND = {
    "tables": [DUE],
    "passes": [
        {"datname": "shop", "relid": 16400, "started_at": ago(60), "passes": 2, "autovacuum": True}
    ],
}
"""Facts in which it finds something."""


def vacuum(passes=2, **columns):
    row = {
        "datname": "shop",
        "relid": 16400,
        "started_at": ago(7200),
        "autovacuum": True,
        "passes": passes,
        "seen_at": NOW,
    }
    return row | columns


def of(*passes, **facts):
    return advise(ADVISOR, passes=passes, tables=[table()], **facts)


@pytest.mark.parametrize(
    ("passes", "severity"),
    [(1, None), (2, Severity.NOTICE), (3, Severity.NOTICE), (4, Severity.WARNING)],
)
def test_it_counts_passes(passes, severity):
    assert [one.severity for one in of(vacuum(passes))] == ([severity] if severity else [])


def test_it_names_the_table_and_speaks_of_its_worst_vacuum():
    [one] = of(vacuum(2), vacuum(5, started_at=ago(60)), vacuum(3))

    assert one.title == "A vacuum of public.orders in shop went over all its indexes 5 times."
    assert (one.database_id, one.relid, one.action) == (SHOP, 16400, "")
    assert ("Began", ago(60), "at") in one.evidence


def test_it_gets_by_without_the_tables_name():
    [one] = advise(ADVISOR, passes=[vacuum()])

    assert one.title.startswith("A vacuum of Relation 16400 in shop")


@pytest.mark.parametrize(
    ("version", "settings", "words"),
    [
        (180000, {}, "raise autovacuum_work_mem, which has no limit of its own since 17."),
        (160000, {}, "raise autovacuum_work_mem, up to the 1 GB that counts before 17."),
        (160000, {"autovacuum_work_mem": "1048576"}, "autovacuum_work_mem is at the 1 GB"),
        (160000, {"autovacuum_work_mem": "1048575"}, "raise autovacuum_work_mem, up to"),
        (160000, {"maintenance_work_mem": "2097152"}, "maintenance_work_mem is at the 1 GB"),
    ],
)
def test_its_advice_goes_by_version_and_memory(version, settings, words):
    [one] = of(vacuum(), server_version=version, settings=settings)

    assert words in one.why


def test_a_session_vacuums_with_maintenance_work_mem():
    memory = {"autovacuum_work_mem": "1048576", "maintenance_work_mem": "65536"}

    [one] = of(vacuum(autovacuum=False), server_version=160000, settings=memory)

    assert "raise maintenance_work_mem" in one.why
    assert ("maintenance_work_mem", 65536 * 1024, "bytes") in one.evidence
    assert ("Dead rows that fit", 65536 * 1024 // 6, "rows") in one.evidence
    assert ("By", "a session", "") in one.evidence


# When it hurts: the next autovacuum comes beyond 20,050 dead rows.


@pytest.mark.parametrize(
    ("version", "memory", "hours"),
    [(180_000, 65_536, 10), (160_000, 100, 10), (160_000, 65_536, None)],  # 17,066 rows fit
)
def test_it_hurts_when_the_next_vacuum_is_due_and_its_rows_do_not_fit(version, memory, hours):
    facts = {"server_version": version, "settings": {"maintenance_work_mem": str(memory)}}
    tables, rates = [table(n_dead_tup=10_050)], growing("n_dead_tup", 1000)

    [one] = advise(ADVISOR, passes=[vacuum()], tables=tables, rates=rates, **facts)

    if hours:
        assert one.hurts_at == near(later(hours))
        assert one.hurts.startswith("the next vacuum is due, and may read all indexes as often")
    else:
        assert one.hurts_at is None
        assert "beyond 20,050 dead rows, and 11,184,810 fit" in one.hurts


def test_it_has_no_date_where_autovacuum_is_off_or_the_table_was_not_read():
    off = table(reloptions=["autovacuum_enabled=off"])

    [of_off] = advise(ADVISOR, passes=[vacuum()], tables=[off])
    [unread] = advise(ADVISOR, passes=[vacuum()])

    assert (of_off.hurts_at, unread.hurts_at) == (None, None)
    assert "autovacuum is off for it" in of_off.hurts
    assert unread.hurts == "no date so far: its table was not read yet"
