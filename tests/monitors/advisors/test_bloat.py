"""Waste is said past share and bytes, with its method, and never from missing statistics."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.bloat import ADVISOR
from tests.monitors.advisors.rows import NOW, SHOP, advise, ago, growing, later, near, table

FOUND = {
    "bloat": [
        table(
            indexrelname=None,
            tablerelid=16400,
            size_bytes=2**30,
            bloat_bytes=2**29 - 1,
            bloat_pct=49.9,
            method="approx",
            measured_at=NOW,
            stats_at=None,
            vacuumed_at=None,
        )
    ],
}
"""Facts in which it finds something."""

GB, MB = 1024**3, 1024**2


def bloated(**columns):
    row = {
        "database_id": SHOP,
        "relid": 16400,
        "tablerelid": 16400,
        "schemaname": "public",
        "relname": "orders",
        "indexrelname": None,
        "relkind": "r",
        "size_bytes": 3 * GB,
        "bloat_bytes": 2 * GB,
        "bloat_pct": 66.7,
        "method": "approx",
        "measured_at": ago(60),
        "stats_at": ago(3600),
        "vacuumed_at": ago(7200),
    }
    return row | columns


def test_it_names_the_waste_its_share_and_how_it_is_known():
    [finding] = advise(ADVISOR, bloat=[bloated()])

    assert finding.severity == Severity.WARNING
    assert finding.title == "public.orders in shop wastes 2 GB of 3 GB (67 %)."
    assert "pgstattuple" in finding.why
    assert ("Method", "approx", "") in finding.evidence
    assert finding.action == ""  # VACUUM FULL locks everybody out: it is not offered


@pytest.mark.parametrize(
    ("version", "columns", "action", "relid"),
    [
        (180004, {}, "", None),
        (190000, {}, "repack", "16400"),
        (190000, {"relkind": "t", "relid": 16403}, "repack", "16400"),
        (190000, {"relkind": "m"}, "", None),
        (190000, {"method": "estimate"}, "measure_bloat", "16400"),
    ],
)
def test_from_19_on_a_table_is_to_be_repacked_while_it_is_used(version, columns, action, relid):
    [finding] = advise(ADVISOR, bloat=[bloated(**columns)], server_version=version)

    assert (finding.action, finding.arguments.get("relid")) == (action, relid)
    assert ("VACUUM FULL locks everybody out" in finding.why) == ("REPACK" not in finding.why)


@pytest.mark.parametrize(
    ("waste", "share", "severity"),
    [
        (100 * MB, 30.0, Severity.NOTICE),
        (100 * MB - 1, 90.0, None),
        (50 * GB, 29.9, None),
        (2 * GB, 49.9, Severity.NOTICE),
        (GB - 1, 90.0, Severity.NOTICE),
        (GB, 50.0, Severity.WARNING),
        (None, None, None),
    ],
)
def test_both_bytes_and_share_must_be_passed(waste, share, severity):
    found = advise(ADVISOR, bloat=[bloated(bloat_bytes=waste, bloat_pct=share)])

    assert [one.severity for one in found] == ([severity] if severity else [])


def test_what_is_only_estimated_is_to_be_measured_first():
    [table] = advise(ADVISOR, bloat=[bloated(method="estimate")])
    index = bloated(method="estimate", indexrelname="Odd", relkind="i", relid=16401)
    [other] = advise(ADVISOR, bloat=[index])

    assert table.action == other.action == "measure_bloat"
    assert table.arguments == {"database": "shop", "relid": "16400"}
    assert other.arguments == {"database": "shop", "index": 'public."Odd"'}
    assert "estimate" in table.why


def test_a_measured_index_is_to_be_rebuilt():
    [finding] = advise(
        ADVISOR, bloat=[bloated(indexrelname="orders_pkey", relkind="i", relid=16401)]
    )

    assert finding.title.startswith("Index public.orders_pkey in shop wastes")
    assert (finding.action, finding.relid) == ("reindex", 16400)


def test_toast_is_named_by_its_table():
    [finding] = advise(ADVISOR, bloat=[bloated(relkind="t", relid=16403)])

    assert finding.object_name == "TOAST of public.orders"


def test_its_thresholds_can_be_overridden():
    assert (
        advise(
            ADVISOR, bloat=[bloated()], thresholds={"notice_bytes": 3 * GB, "warning_bytes": 3 * GB}
        )
        == []
    )


# When it hurts: 1 GB and 50 % of the size.


@pytest.mark.parametrize(
    ("size", "waste", "grown", "days"),
    [
        (800, 300, 100, 7.24),  # 1 GB comes last: 50 % after two days
        (4096, 1400, 100, 12.96),  # 1 GB is passed: 648 MB are missing, 50 MB a day closer
        (4096, 1400, 0, 6.48),
    ],
)
def test_it_says_when_both_share_and_bytes_are_a_warnings(size, waste, grown, days):
    row = bloated(size_bytes=size * MB, bloat_bytes=waste * MB, bloat_pct=100 * waste / size)
    rates = growing("bloat_bytes", 100 * MB / 24, hours=72) | growing(
        "size_bytes", grown * MB / 24, hours=72
    )

    [one] = advise(ADVISOR, bloat=[row], rates=rates)

    assert one.hurts_at == near(later(24 * days))
    assert one.hurts == "1 GB and 50 % are wasted, at 100 MB a day over the last 3 d"


@pytest.mark.parametrize(
    ("waste", "grown", "hours", "why"),
    [
        (100, 200, 72, "no date: the share of the waste does not grow"),
        (0, 0, 72, "no date: no wasted byte was added in the last 3 d"),
        (-5, 0, 72, "no date: no wasted byte was added in the last 3 d"),
        (100, 0, 20, "no date so far: needs a day of history"),
        (0.01, 0, 72, "no date: not within 10 years at the present rate"),
    ],
)
def test_it_has_no_date_where_it_does_not_get_there(waste, grown, hours, why):
    row = bloated(size_bytes=4096 * MB, bloat_bytes=1400 * MB, bloat_pct=34.0)
    rates = growing("bloat_bytes", waste * MB / 24, hours=hours) | growing(
        "size_bytes", grown * MB / 24, hours=hours
    )

    [one] = advise(ADVISOR, bloat=[row], rates=rates)

    assert (one.hurts_at, one.hurts) == (None, f"1 GB and 50 % are wasted; {why}")


def test_a_warning_hurts_already():
    [one] = advise(ADVISOR, bloat=[bloated()])

    assert (one.hurts_already, one.hurts_at) == (True, None)


def test_an_estimate_by_extrapolated_rows_is_no_warning_and_says_so():
    row = bloated(method="estimate", vacuumed_at=ago(60))

    [finding] = advise(ADVISOR, bloat=[row])

    assert finding.severity == Severity.NOTICE
    assert "extrapolated after the last ANALYZE" in finding.why
    assert finding.action == "measure_bloat"
    [measured] = advise(ADVISOR, bloat=[row | {"method": "approx"}])
    assert measured.severity == Severity.WARNING
