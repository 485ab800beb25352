"""Release: cancel, wait, read again, terminate what goes on, and never what came after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core.exceptions import PermissionDenied

from monitors.acting import ask, perform, signalling
from monitors.action import Changed, InvalidArguments, Refused
from monitors.actions.release_backend import ACTION
from tests.servers import Server

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from monitors.models import Action, Target

Session = psycopg.Connection[Any]
Times = Callable[[int], dict[str, str]]

STUBBORN = """DO $$
BEGIN
  LOOP
    BEGIN
      PERFORM pg_sleep(60);
    EXCEPTION WHEN query_canceled THEN
      NULL;
    END;
  END LOOP;
END $$"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait half a second for an effect, not five."""
    monkeypatch.setattr(signalling, "SETTLE_SECONDS", 0.5)


@pytest.fixture
def release(
    server: Server, watch: Callable[..., Target], person: Callable[..., User]
) -> Callable[..., Action]:
    """Ask as a dba and perform in this process: release(arguments) -> the action."""
    target, dba = watch(server, operator_user="operator"), person("dba")

    def press(arguments: dict[str, str], *, before: Callable[[Action], object] = id) -> Action:
        row = ask.ask(dba, target, "release_backend", arguments, source="test")
        before(row)
        perform.perform(str(row.pk))
        row.refresh_from_db()
        return row

    return press


@pytest.fixture
def stubborn(
    server: Server,
    live: Callable[..., Session],
    background: Callable[..., Any],
    eventually: Callable[..., None],
) -> Session:
    """A session whose statement goes on when it is cancelled."""
    session = live(server, user="owner", dbname="shop")
    background(session, STUBBORN)
    eventually(lambda: waits(server, session.info.backend_pid) == "PgSleep")
    return session


def waits(server: Server, pid: int) -> str | None:
    """Return what a backend waits for, 'gone' where there is none."""
    with server.connect() as eye:
        row = eye.execute(
            "SELECT wait_event FROM pg_stat_activity WHERE pid = %s", [pid]
        ).fetchone()
    return row[0] if row else "gone"


@pytest.mark.django_db
def test_a_cancel_that_has_its_effect_leaves_the_session(
    server: Server,
    release: Callable[..., Action],
    sleeping: Callable[..., Session],
    active: Times,
    eventually: Callable[..., None],
) -> None:
    session = sleeping()

    row = release(active(session.info.backend_pid))

    assert row.state == "succeeded", row.outcome
    assert "Cancel sent at " in row.outcome
    assert "the statement has ended" in row.outcome
    assert "terminated" not in row.outcome
    assert waits(server, session.info.backend_pid) == "ClientRead"
    again = ask.spec_of("release_backend").clean(row.arguments)
    with server.connect(user="operator") as hand, pytest.raises(Changed, match="ended"):
        ACTION.guard(hand, again, again)


@pytest.mark.django_db
def test_what_a_cancel_does_not_end_is_terminated(
    server: Server,
    quick: None,
    release: Callable[..., Action],
    stubborn: Session,
    active: Times,
) -> None:
    pid = stubborn.info.backend_pid

    row = release(active(pid))

    assert row.state == "succeeded", row.outcome
    for step in ("Cancel sent at ", ", still running after ", ", terminated at ", "is gone"):
        assert step in row.outcome
    assert waits(server, pid) == "gone"


@pytest.mark.django_db
def test_who_stops_it_in_time_keeps_the_session(
    server: Server,
    quick: None,
    release: Callable[..., Action],
    stubborn: Session,
    active: Times,
) -> None:
    def stop(row: Action) -> None:
        type(row).objects.filter(pk=row.pk).update(stop_asked_by="someone")

    row = release(active(stubborn.info.backend_pid), before=stop)

    assert (row.state, "not terminated: stopped by someone" in row.outcome) == ("cancelled", True)
    assert waits(server, stubborn.info.backend_pid) == "PgSleep"


@pytest.mark.django_db
def test_what_is_idle_in_transaction_is_terminated_at_once(
    server: Server,
    release: Callable[..., Action],
    live: Callable[..., Session],
    idle_in_transaction: Times,
) -> None:
    session = live(server, user="owner", dbname="shop", autocommit=False)
    session.execute("SELECT 1")

    row = release(idle_in_transaction(session.info.backend_pid))

    assert (row.state, row.outcome) == ("succeeded", "The session is gone.")


def test_the_statement_that_came_after_it_survives(
    server: Server,
    sleeping: Callable[..., Session],
    background: Callable[..., Any],
    active: Times,
    eventually: Callable[..., None],
) -> None:
    """The terminate that follows a cancel is for the very statement that was cancelled."""
    session = sleeping()
    pid = session.info.backend_pid
    arguments = ACTION.clean(active(pid))
    with server.connect() as superuser:
        superuser.execute("SELECT pg_cancel_backend(%s)", [pid])
    eventually(lambda: waits(server, pid) == "ClientRead")
    background(session, "SELECT pg_sleep(60)")
    eventually(lambda: waits(server, pid) == "PgSleep")

    with server.connect(user="operator") as hand:
        stronger = ACTION.escalation(arguments)
        assert stronger is not None
        assert hand.execute(stronger).fetchone() == (0, None)
        with pytest.raises(Changed, match="another statement"):
            ACTION.guard(hand, arguments, arguments)

    assert waits(server, pid) == "PgSleep"


def test_it_refuses_a_superusers_session(
    server: Server, sleeping: Callable[..., Session], active: Times
) -> None:
    arguments = ACTION.clean(active(sleeping(user="postgres").info.backend_pid))

    with server.connect(user="operator") as hand, pytest.raises(Refused, match="superuser"):
        ACTION.guard(hand, arguments, arguments)


@pytest.mark.django_db
def test_who_may_only_cancel_may_not_and_a_reason_is_asked_for(
    embedded: Server, watch: Callable[..., Target], person: Callable[..., User]
) -> None:
    target = watch(embedded, operator_user="operator")
    moment = "2026-01-01 00:00:00.000001+00"
    named = {"pid": "1", "backend_start": moment, "query_start": moment}

    with pytest.raises(PermissionDenied, match="release_backend"):
        ask.ask(person("operator"), target, "release_backend", named, source="test")
    target.environment.reason_required = True
    target.environment.save()
    with pytest.raises(InvalidArguments, match="asks for a reason"):
        ask.ask(person("dba"), target, "release_backend", named, source="test")

    row = ask.ask(
        person("dba"),
        target,
        "release_backend",
        named,
        reason="Rule nightly",
        source="rule nightly",
    )
    assert (row.reason, row.asked_from) == ("Rule nightly", "rule nightly")
