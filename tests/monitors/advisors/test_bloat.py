"""Waste is said past share and bytes, with its method, and never from missing statistics."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.bloat import ADVISOR
from tests.monitors.advisors.rows import SHOP, advise, ago

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
