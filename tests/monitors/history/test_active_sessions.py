"""Average active sessions agree with counting who was active at each snapshot."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta

import pytest

from monitors.history import active_sessions
from monitors.history.active_sessions import DIMENSIONS, OTHERS, Slice
from monitors.history.window import Window
from tests.monitors.history.conftest import START

STATES = ("active", "active", "idle", "idle in transaction", None)
WAITS = ((None, None), ("IO", "DataFileRead"), ("Lock", "tuple"), ("Activity", "WalSenderMain"))
KINDS = ("client backend", "client backend", "parallel worker", "walsender", "checkpointer")
MINUTES = 90


def backend(dice: random.Random) -> dict[str, object]:
    """Return what a snapshot says of some backend."""
    kind, wait = dice.choice(WAITS)
    return {
        "state": dice.choice(STATES),
        "backend_type": dice.choice(KINDS),
        "wait_event_type": kind,
        "wait_event": wait,
        "query": f"SELECT 100 % ${dice.randint(1, 3)}",
        "usename": dice.choice(("50%(start)s", "o'neill", None)),
        "application_name": dice.choice(("web", "")),
        "client_addr": dice.choice(("10.0.0.1", None)),
        "datname": "shop",
    }


def value_of(row: dict[str, object], dimension: str) -> str:
    """Return what a row counts for, as pg_stat_activity says it."""
    kind = row["wait_event_type"]
    if dimension == "wait_event_type":
        return str(kind or "CPU")
    if dimension == "wait_event":
        return f"{kind}: {row['wait_event']}" if kind else "CPU"
    return str(row[dimension] or "")


def counts(row: dict[str, object], which: Slice) -> bool:
    """Return whether a row is an active session of a slice."""
    if row["state"] != "active":
        return False
    sessions = {"client backend", "parallel worker"}
    fits = (
        row["wait_event_type"] != "Activity"
        if which.background
        else row["backend_type"] in sessions
    )
    return fits and all(value_of(row, name) == value for name, value in which.only.items())


@pytest.fixture
def story(keep):
    """What each minute's snapshot of an hour and a half showed: backends come, change, stay and go."""
    dice = random.Random(42)
    now: dict[tuple[int, object], dict[str, object]] = {}
    told = []
    for minute in range(-10, MINUTES):
        for pid in range(1, 9):
            key = (pid, START - timedelta(days=pid))
            if dice.random() < 0.2:
                now[key] = backend(dice)
            elif dice.random() < 0.1:
                now.pop(key, None)
        if 40 <= minute < 50:
            continue  # nothing was read
        keep(minute, now, probe="activity")
        told.append((minute, list(now.values())))
    return told


SLICES = (
    Slice(),
    Slice(background=True),
    Slice({"usename": "50%(start)s"}),
    Slice({"wait_event_type": "IO", "application_name": ""}),
)


@pytest.mark.parametrize("which", SLICES, ids=("all", "background", "user", "wait"))
def test_it_is_what_the_snapshots_of_the_window_show(target, story, which):
    window = Window(START + timedelta(minutes=4.5), START + timedelta(minutes=70.5), is_live=False)
    within = [rows for minute, rows in story if 4.5 <= minute < 70.5]

    parts = active_sessions.read_parts(target.pk, window, which)

    for name in DIMENSIONS:
        true = Counter(value_of(row, name) for rows in within for row in rows if counts(row, which))
        assert {part.value: part.counted for part in parts[name] if part.counted} == true, name
    assert len(active_sessions.read_snapshots(target.pk, window)) == len(within)


def test_each_point_is_the_mean_of_its_snapshots_and_a_gap_is_a_gap(target, story):
    window = Window(START, START + timedelta(minutes=60), is_live=False)

    line = active_sessions.read_line(
        target.pk, window, Slice(), "wait_event_type", ["CPU", "IO"], interval_seconds=100
    )  # 10 minutes of 6 snapshots a point

    true: dict[str, list[float | None]] = {"CPU": [], "IO": [], OTHERS: []}
    for start in range(0, 60, 10):
        snapshots = [rows for minute, rows in story if start <= minute < start + 10]
        found = Counter(
            value_of(row, "wait_event_type")
            for rows in snapshots
            for row in rows
            if counts(row, Slice())
        )
        if not snapshots:
            continue
        others = sum(found.values()) - found["CPU"] - found["IO"]
        for name, sum_ in (("CPU", found["CPU"]), ("IO", found["IO"]), (OTHERS, others)):
            true[name].append(sum_ / len(snapshots))
    assert {
        name: [value for value in column if value is not None]
        for name, column in line.series.values.items()
    } == {name: pytest.approx(column) for name, column in true.items()}
    assert line.per_snapshot == [
        sum(counts(row, Slice()) for row in rows) for minute, rows in story if 0 <= minute < 60
    ]


def test_where_nothing_was_active_every_snapshot_says_so(target, keep):
    for minute in range(3):
        keep(minute, {}, probe="activity")
    window = Window(START, START + timedelta(hours=1), is_live=False)

    line = active_sessions.read_line(target.pk, window, Slice(), "query", [], interval_seconds=10)

    assert line.per_snapshot == [0, 0, 0]


def test_without_a_snapshot_nothing_is_known(target):
    window = Window(START, START + timedelta(hours=1), is_live=False)

    assert not any(active_sessions.read_parts(target.pk, window, Slice()).values())
    line = active_sessions.read_line(target.pk, window, Slice(), "query", [], interval_seconds=10)
    assert (line.per_snapshot, line.series.times) == ([], [])
