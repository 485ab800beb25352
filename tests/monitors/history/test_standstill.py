"""Nothing ran for weeks, and days that are shorter or longer than others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import connection

from monitors.history import partitions, rollup
from monitors.history.counters import read_totals
from monitors.history.window import Window
from monitors.models import HISTORY, Target
from tests.monitors.history.conftest import START

pytestmark = pytest.mark.django_db

Keep = Callable[..., None]
PARIS = ZoneInfo("Europe/Paris")
WEEKS = 40 * 24 * 60  # minutes
SAMPLES = HISTORY["databases"].samples._default_manager
DAYS = HISTORY["databases"].days


def names_of(table: str) -> list[str]:
    found = next(one for one in partitions.partitioned_tables() if one.table == table)
    return [name for name, _ in partitions.partitions_of(found)]


def drop_from(moment: datetime) -> None:
    """Leave no partition that begins at a moment or later, as if nobody had made it."""
    for table in partitions.partitioned_tables():
        for name, end in partitions.partitions_of(table):
            if end > moment:
                with connection.cursor() as cursor:
                    cursor.execute(f'DROP TABLE "{name}"')
                partitions._KNOWN.discard(name)


def test_after_a_standstill_of_weeks_the_first_snapshot_finds_its_partition(
    target: Target, keep: Keep
) -> None:
    back = START + timedelta(minutes=WEEKS)
    keep(0, {1: {"xact_commit": 100}})
    rollup.roll_up(START)
    drop_from(back - timedelta(days=2))
    day = partitions.partition_name(SAMPLES.model._meta.db_table, "day", back)
    assert day not in names_of(SAMPLES.model._meta.db_table)

    keep(WEEKS, {1: {"xact_commit": 350}})
    rollup.roll_up(back)
    partitions.make_ahead(back)
    dropped = partitions.drop_old(back)

    assert SAMPLES.filter(taken_at=back).count() == 1
    assert day in names_of(SAMPLES.model._meta.db_table)
    tomorrow = partitions.partition_name(day.rpartition("_p")[0], "day", back + timedelta(days=1))
    assert tomorrow in names_of(SAMPLES.model._meta.db_table)
    assert partitions.partition_name(day.rpartition("_p")[0], "day", START) in dropped
    assert not SAMPLES.filter(taken_at=START).exists()
    # What was counted while nobody looked counts once, at the first snapshot after.
    around = Window(back - timedelta(hours=1), back + timedelta(hours=1), is_live=False, label="")
    assert [row["xact_commit"] for row in read_totals("databases", target.pk, around)] == [250]


def next_local_day_of(hours: int) -> tuple[datetime, datetime]:
    """Return the begin and the end of the next day of Paris that has so many hours.

    A coming one: whatever the date of the test, its samples are not too old to be read.
    """
    noon = datetime.now(PARIS).replace(hour=12, minute=0, second=0, microsecond=0, tzinfo=None)
    while True:
        noon += timedelta(days=1)
        start, end = (
            (noon + timedelta(hours=half)).replace(tzinfo=PARIS).astimezone(UTC)
            for half in (-12, 12)
        )
        if end - start == timedelta(hours=hours):
            return start, end


@pytest.mark.parametrize("hours", [23, 24, 25])
def test_a_local_day_of_23_or_25_hours_counts_each_of_its_hours_once(
    hours: int, target: Target, keep: Keep
) -> None:
    start, end = next_local_day_of(hours)
    for hour in range(-26, 52):  # ten commits each hour, from the day before to the day after
        moment = start + timedelta(hours=hour)
        keep(0, {1: {"xact_commit": 1000 + 10 * hour}}, start=moment)
        rollup.roll_up(moment)

    local = Window(start, end, is_live=False, label="")
    (row,) = read_totals("databases", target.pk, local)

    assert row["xact_commit"] == 10 * hours
    # The rollup knows UTC days alone: a whole one has 24 hours, whatever local clocks do.
    assert DAYS is not None
    days = DAYS._default_manager.filter(target_id=target.pk, start_at=rollup.day_of(end))
    assert list(days.values_list("xact_commit", flat=True)) == [240]
