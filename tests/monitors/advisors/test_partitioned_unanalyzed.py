"""Partitioned tables without statistics of the whole."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.partitioned_unanalyzed import ADVISOR
from tests.monitors.advisors.rows import NOW, advise, table

FOUND = {
    "partitioned": [table(relkind="p", reltuples=-1.0, rows=20_000, partitions=4)],
}
"""Facts in which it finds something."""


def parent(rows=20_000, **columns):
    row = table(relkind="p", reltuples=-1.0, n_live_tup=None, n_dead_tup=None)
    return row | {"rows": rows, "partitions": 4} | columns


def of(row):
    return advise(ADVISOR, partitioned=[row])


@pytest.mark.parametrize(("rows", "found"), [(10_000, 0), (10_001, 1)])
def test_it_leaves_few_rows_alone(rows, found):
    assert len(of(parent(rows))) == found


@pytest.mark.parametrize(
    ("rows", "severity"), [(1_000_000, Severity.NOTICE), (1_000_001, Severity.WARNING)]
)
def test_a_million_rows_that_nobody_looked_at_are_a_warning(rows, severity):
    [one] = of(parent(rows))

    assert one.severity == severity
    assert "was never analyzed as a whole" in one.title
    assert (one.action, one.arguments["table"]) == ("analyze", "public.orders")


@pytest.mark.parametrize(("rows", "found"), [(40_000, 0), (40_001, 1)])
def test_twice_the_rows_of_then_deserve_another_analyze(rows, found):
    told = of(parent(rows, reltuples=20_000.0, last_analyze=NOW))

    assert len(told) == found
    assert all("had 20,000 when it was last analyzed as a whole" in one.title for one in told)
