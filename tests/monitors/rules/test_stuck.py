"""When a backend is stuck: both sides of each limit, whose limits hold, and who never is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from monitors.rows.backends import Backend
from monitors.rules.stuck import Definition, Limits, definition_of, judge, rank

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LIMITS = Limits(running=300, blocked=30, blocking=30, idle_in_transaction=300)
NEVER = Limits()


def backend(pid: int = 1, *, since: float = 1000, **columns: Any) -> Backend:
    began = NOW - timedelta(seconds=since)
    row = {
        "pid": pid,
        "backend_start": NOW - timedelta(hours=9),
        "backend_type": "client backend",
        "state": "active",
        "application_name": "web",
        "usename": "joe",
        "datname": "shop",
        "query_start": began,
        "xact_start": began,
        "state_change": began,
        **columns,
    }
    return Backend(row, "", NOW)


@pytest.mark.parametrize(
    ("columns", "kept_waiting", "state"),
    [
        ({"since": 301}, {}, "running"),
        ({"since": 300}, {}, ""),
        ({"since": 31, "blocked_by": [9]}, {}, "blocked"),
        ({"since": 30, "blocked_by": [9]}, {}, ""),
        ({"since": 400, "blocked_by": [9]}, {1: 99}, "blocked"),  # no root: it waits itself
        ({"since": 2}, {1: 31}, "blocking"),
        ({"since": 2}, {1: 30}, ""),
        ({"since": 900}, {1: 31}, "blocking"),
        ({"since": 900}, {1: 3}, "running"),
        ({"since": 301, "state": "idle in transaction"}, {}, "idle_in_transaction"),
        ({"since": 301, "state": "idle in transaction (aborted)"}, {}, "idle_in_transaction"),
        ({"since": 300, "state": "idle in transaction"}, {}, ""),
        ({"since": 300, "state": "idle in transaction"}, {1: 40}, "blocking"),
        ({"since": 999, "state": "idle"}, {}, ""),
        ({"since": 999, "state": "idle"}, {1: 31}, "blocking"),  # an advisory lock
        ({"since": 999, "backend_type": "walsender"}, {}, ""),
        ({"since": 999, "backend_type": "autovacuum worker"}, {1: 99}, ""),
        ({"since": 999, "ours": True}, {1: 99}, ""),
        ({"since": 999, "application_name": "pg_dump"}, {1: 99}, ""),
        ({"state": "disabled", "query_start": None, "state_change": None}, {}, ""),
    ],
)
def test_a_backend_is_stuck_past_its_limit(
    columns: dict[str, Any], kept_waiting: dict[int, float], state: str
) -> None:
    found = judge([backend(**columns)], LIMITS, [], kept_waiting=kept_waiting)

    assert [one.state for one in found] == ([state] if state else [])


def test_maintenance_with_progress_may_run_for_long_but_not_keep_others_waiting() -> None:
    both = [backend(1), backend(2)]

    found = judge(both, LIMITS, [], kept_waiting={2: 60}, maintained={1, 2})

    assert [(one.backend.pid, one.state) for one in found] == [(2, "blocking")]


APPLICATION_AND_USER = Definition(application_name="web", usename="joe", limits=NEVER)
APPLICATION = Definition(application_name="we*", limits=NEVER)
USER = Definition(usename="joe", limits=NEVER)
DATABASE = Definition(datname="shop", limits=NEVER)
HERE = Definition(usename="joe", environment_id=7, limits=NEVER)
ELSEWHERE = Definition(application_name="web", usename="joe", environment_id=8, limits=NEVER)
OTHERS = Definition(application_name="WEB", limits=NEVER)


@pytest.mark.parametrize(
    ("known", "winner"),
    [
        ([USER, APPLICATION, APPLICATION_AND_USER, DATABASE], APPLICATION_AND_USER),
        ([USER, APPLICATION, DATABASE], APPLICATION),
        ([DATABASE, USER], USER),
        ([USER, HERE], HERE),
        ([HERE, APPLICATION], APPLICATION),
        ([ELSEWHERE, DATABASE], DATABASE),
        ([OTHERS], None),
    ],
)
def test_the_most_telling_definition_wins(
    known: list[Definition], winner: Definition | None
) -> None:
    assert definition_of(backend().row, known, 7) is winner


def test_a_team_overrules_what_is_built_in() -> None:
    mine = Definition(application_name="pg_dump", limits=Limits(running=7200))
    row = backend(application_name="pg_dump").row

    assert definition_of(row, [mine], None) is mine
    built_in = definition_of(row, [], None)
    assert built_in is not None
    assert built_in.is_built_in
    assert built_in.limits.is_never


def test_who_blocks_most_is_worst_then_who_is_furthest_over_the_limit() -> None:
    found = judge([backend(1, since=400), backend(2, since=900), backend(3, since=2)],
                  LIMITS, [], kept_waiting={3: 60})  # fmt: skip
    found.sort(key=lambda one: rank(one, 2 if one.backend.pid == 3 else 0))

    assert [one.backend.pid for one in found] == [3, 2, 1]
