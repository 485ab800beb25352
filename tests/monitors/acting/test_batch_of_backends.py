"""One signal to several backends: each by its own guard, each with a result of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User

from monitors.acting import batch, perform, preview
from monitors.action import InvalidArguments, Refused
from monitors.jobs import plan
from monitors.models import Action, AuditEntry, Batch, Target
from tests import races
from tests.monitors.acting.test_batch import rows_of, work_off
from tests.monitors.conftest import times_of, wait_until_old
from tests.servers import Server

pytestmark = pytest.mark.django_db
Session = psycopg.Connection[Any]
GUARD = ("pid", "backend_start", "query_start")


@pytest.fixture
def acting(embedded: Server, watch: Callable[..., Target]) -> Target:
    """A target on which the operator signals."""
    return watch(embedded, operator_user="operator")


@pytest.fixture
def asleep(
    embedded: Server, live: Callable[..., Session], eventually: Callable[..., None]
) -> Callable[[int], list[Session]]:
    """Start so many sessions whose statement runs for a minute, old enough to be cancelled."""

    def start(count: int) -> list[Session]:
        sessions = [live(embedded, user="owner", dbname="shop") for _ in range(count)]
        for session in sessions:
            fall_asleep(session)
        eventually(lambda: sleep(embedded, *sessions))
        wait_until_old(embedded, sessions[-1].info.backend_pid)
        return sessions

    return start


def fall_asleep(session: Session) -> None:
    """Send a statement that runs for a minute, and wait for nothing."""
    session.pgconn.send_query(b"SELECT pg_sleep(60)")


def sleep(server: Server, *sessions: Session) -> bool:
    """Tell whether all sessions are in pg_sleep."""
    pids = [session.info.backend_pid for session in sessions]
    with server.connect() as eye:
        found = eye.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = ANY (%s)",
            [pids],
        ).fetchone()
    return found == (len(pids),)


def end_of(session: Session) -> str:
    """Return the SQLSTATE with which a session's statement ended, '' for none; waits for it."""
    code = ""
    while (result := session.pgconn.get_result()) is not None:
        code = (result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"").decode()
    return code


def guards_of(server: Server, sessions: list[Session]) -> list[dict[str, str]]:
    """Return what names the statement of each session."""
    pids = [session.info.backend_pid for session in sessions]
    with server.connect() as eye:
        rows = eye.execute(
            "SELECT pid::text, backend_start::text, query_start::text FROM pg_stat_activity"
            " WHERE pid = ANY (%s) ORDER BY array_position(%s, pid)",
            [pids, pids],
        ).fetchall()
    return [dict(zip(GUARD, row, strict=True)) for row in rows]


def asked(user: User, target: Target, name: str, guards: list[dict[str, str]]) -> Batch:
    """Preview a batch as a worker does."""
    made = batch.preview(user, target, name, guards, {}, source="test")
    preview.preview_batch(str(made.pk))
    return made


def test_twenty_are_cancelled_and_one_that_moved_on_is_skipped(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    asleep: Callable[[int], list[Session]],
    eventually: Callable[..., None],
) -> None:
    user, sessions = person("operator"), asleep(20)
    made = asked(user, acting, "cancel_backend", guards_of(embedded, sessions))
    assert [row.preview["refused"] for row in rows_of(made)] == [""] * 20
    moved = sessions[7]
    moved.cancel_safe()
    assert end_of(moved) == "57014"
    fall_asleep(moved)
    eventually(lambda: sleep(embedded, moved))
    wait_until_old(embedded, moved.info.backend_pid)

    batch.request(user, made, reason="a jam", source="test")
    work_off(made)

    rows = rows_of(made)
    skipped = rows.pop(7)
    assert skipped.state == "skipped"
    assert "now runs another statement" in skipped.outcome
    assert sleep(embedded, moved)
    assert {row.state for row in rows} == {"succeeded"}
    others = [session for session in sessions if session is not moved]
    assert {end_of(session) for session in others} == {"57014"}
    event = AuditEntry.objects.get(what="cancel_backend.batch")
    assert (event.object_name, event.reason) == ("20 backends", "a jam")
    kinds = AuditEntry.objects.filter(action_id__in=event.detail["actions"])
    assert kinds.filter(kind="intent").count() == kinds.filter(kind="outcome").count() == 20
    assert made.finished_at is not None


def test_no_cancel_of_a_batch_hits_the_next_statement(
    embedded: Server, acting: Target, person: Callable[..., User]
) -> None:
    """Four sessions with statements of 0 to 5 ms, and many that run until they are cancelled."""
    user = person("operator")

    def cancel(_hand: Session, guards: list[dict[str, str]]) -> list[bool]:
        made = asked(user, acting, "cancel_backend", guards)
        with suppress(Refused):  # all of them are too young, or have ended
            batch.request(user, made, source="test")
            work_off(made)
        return [row.state == "succeeded" for row in rows_of(made)]

    raced = races.race(embedded, 20, at_once=4, shoot=cancel, endless_share=0.3, least_signalled=4)

    assert raced.wrong == 0
    assert raced.cancelled == raced.signalled


def test_an_idle_transaction_is_left_out_of_a_cancel_and_ended_by_a_terminate(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    live: Callable[..., Session],
    asleep: Callable[[int], list[Session]],
) -> None:
    user, [runs] = person("dba"), asleep(1)
    idle = live(embedded, user="owner", dbname="shop", autocommit=False)
    idle.execute("SELECT 1")
    cancelled = asked(user, acting, "cancel_backend", guards_of(embedded, [idle]))
    times = times_of(embedded, idle.info.backend_pid)
    times.pop("query_start")

    made = asked(user, acting, "terminate_backend", [times, *guards_of(embedded, [runs])])
    batch.request(user, made, source="test")
    work_off(made)

    with pytest.raises(Refused, match="these backends"):
        batch.request(user, cancelled, source="test")
    assert "nothing to cancel" in rows_of(cancelled)[0].preview["refused"]
    assert [row.outcome for row in rows_of(made)] == ["Terminated.", "Terminated."]


def test_signals_wait_for_no_table_and_expire_soon(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    asleep: Callable[[int], list[Session]],
) -> None:
    user = person("operator")
    tables = batch.preview(
        user, acting, "vacuum", [{"database": "shop", "table": table(embedded)}], {}, source="test"
    )
    preview.preview_batch(str(tables.pk))
    batch.request(user, tables, source="test")
    signals = asked(user, acting, "cancel_backend", guards_of(embedded, asleep(3)))
    batch.request(user, signals, source="test")

    assert perform.claim(rows_of(tables)[0])
    assert [perform.claim(row) for row in rows_of(signals)] == [True, True, False]

    for row in rows_of(signals):
        assert row.expires_at is not None
        assert row.queued_at is not None
        assert row.expires_at - row.queued_at <= 2 * batch.SIGNAL_LIFE
    Action.objects.filter(batch__in=[tables, signals]).update(state="succeeded")


def test_no_job_signals_and_a_signal_takes_no_table(
    acting: Target, person: Callable[..., User]
) -> None:
    assert not set(plan.actions()) & {"cancel_backend", "terminate_backend"}
    with pytest.raises(InvalidArguments, match="no argument"):
        batch.preview(
            person("dba"),
            acting,
            "terminate_backend",
            [{"database": "shop", "table": "t"}],
            {},
            source="test",
        )
