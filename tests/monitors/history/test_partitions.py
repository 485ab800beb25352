"""A partition a day: made ahead, made on demand, dropped when too old."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection

from monitors.history import partitions
from monitors.models import Target
from tests.monitors.history.conftest import START

pytestmark = pytest.mark.django_db


def test_every_sample_and_rollup_table_really_is_partitioned() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'p'")
        partitioned = {name for (name,) in cursor.fetchall()}

    assert {table.table for table in partitions.partitioned_tables()} == partitioned
    assert len(partitioned) == 42


def test_partitions_stand_before_they_are_needed() -> None:
    partitions.make_ahead(START)

    for table in partitions.partitioned_tables():
        names = [name for name, _ in partitions.partitions_of(table)]
        tomorrow = START + timedelta(days=1)
        assert partitions.partition_name(table.table, table.step, tomorrow) in names


def test_old_partitions_are_dropped_and_no_other(target: Target) -> None:
    for days in (0, 6, 8, 30):
        partitions.make_ahead(START - timedelta(days=days))

    dropped = partitions.drop_old(START)

    table = next(t for t in partitions.partitioned_tables() if t.table == "monitors_tables_sample")
    left = [name for name, _ in partitions.partitions_of(table)]
    oldest = partitions.partition_name(table.table, "day", START - table.keep)
    assert left[0] == oldest
    assert f"{table.table}_p20261025" in dropped
    assert not [name for name in dropped if "_hour_" in name or "_day_" in name]


@pytest.mark.parametrize(
    ("step", "name"), [("day", "t_p20261124"), ("month", "t_p202611"), ("year", "t_p2026")]
)
def test_names_say_what_is_inside(step: str, name: str) -> None:
    assert partitions.partition_name("t", step, START) == name


def test_a_december_ends_with_its_year() -> None:
    start, end = partitions.bounds("month", START.replace(month=12))

    assert (start.month, end.year, end.month) == (12, 2027, 1)
