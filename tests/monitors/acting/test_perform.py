"""Actions against real servers: what is sent, once, and what came of it."""

from __future__ import annotations

import os
import signal as signals
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection as history
from django.utils import timezone

from dashboard.embedded import processes
from dashboard.embedded.postgres import Cluster, embedded_programs
from monitors import queue
from monitors.acting import ask, connections, perform, preview, send, sweep, watch
from monitors.action import Refused
from monitors.actions import ACTIONS
from monitors.models import Action, AuditEntry, Grant, Target
from tests import servers
from tests.servers import Blocked, Server

pytestmark = pytest.mark.django_db

Person = Callable[..., User]
Watch = Callable[..., Target]
Asked = Callable[..., Action]
Times = Callable[[int], dict[str, str]]
Session = psycopg.Connection[Any]

newest = pytest.mark.parametrize("server", [18], indirect=True, ids=str)
"""For what does not depend on the server's version."""


@pytest.fixture
def target(server: Server, watch: Watch) -> Target:
    return watch(server, operator_user="operator")


def signal(user: User, target: Target, name: str, arguments: dict[str, str]) -> Action:
    """Ask for a signal as pages do and perform it."""
    if name == "cancel_backend":
        row = ask.ask(user, target, name, arguments, source="test")
    else:
        draft = ask.preview(user, target, name, arguments, source="test")
        preview.preview_now(str(draft.pk))
        draft.refresh_from_db()
        row = ask.request(user, draft, source="test")
    perform.perform(str(row.pk))
    row.refresh_from_db()
    return row


def signals_in(log: str) -> int:
    """Count the signals that a server logged as statements, not our looks at it."""
    return log.count("pg_cancel_backend(target.pid)") + log.count(
        "pg_terminate_backend(target.pid)"
    )


def is_there(server: Server, pid: int) -> bool:
    with server.connect() as connection:
        return bool(
            connection.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
        )


def test_it_cancels_a_statement_and_says_who_was_released(  # noqa: PLR0917 - fixtures
    server: Server,
    target: Target,
    person: Person,
    table: Callable[..., str],
    active: Times,
    live: Callable[..., Session],
    background: Callable[..., threading.Thread],
    eventually: Callable[..., None],
) -> None:
    """The victim holds a lock and sleeps; three others wait for it."""
    name = table(server)
    root = live(server, dbname="shop", user="owner", autocommit=False)
    root.execute(f"LOCK TABLE {name}")
    waiters = [live(server, dbname="shop", user="owner") for _ in range(3)]
    background(root, "SELECT pg_sleep(60)")
    counting = [background(waiter, f"SELECT count(*) FROM {name}") for waiter in waiters]
    with server.connect() as eye:
        eventually(lambda: waiting(eye, [waiter.info.backend_pid for waiter in waiters]) == 3)

    row = signal(person("operator"), target, "cancel_backend", active(root.info.backend_pid))

    assert (row.state, row.effect) == ("succeeded", "cancelled; 3 sessions released")
    assert row.outcome == "Cancelled; 3 sessions released."
    assert row.before["query"] == "SELECT pg_sleep(?)"
    for thread in counting:
        thread.join(10)
        assert not thread.is_alive()


def waiting(eye: Session, pids: list[int]) -> int:
    row = eye.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = ANY (%s)",
        [pids],
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_it_terminates_what_idles_in_a_transaction(
    server: Server,
    target: Target,
    person: Person,
    idle_in_transaction: Times,
    live: Callable[..., Session],
) -> None:
    session = live(server, user="owner", dbname="shop", autocommit=False)
    session.execute("SELECT 1")
    pid = session.info.backend_pid

    row = signal(person("dba"), target, "terminate_backend", idle_in_transaction(pid))

    assert (row.state, row.outcome) == ("succeeded", "Terminated.")
    assert not is_there(server, pid)


@pytest.mark.parametrize("name", ["cancel_backend", "terminate_backend"])
def test_it_sends_nothing_to_a_reused_pid(
    server: Server,
    target: Target,
    person: Person,
    active: Times,
    sleeping: Callable[..., Session],
    name: str,
) -> None:
    """AC-01: the pid now belongs to another backend, which is all that a stale start can say."""
    innocent = sleeping()
    arguments = active(innocent.info.backend_pid)
    arguments["backend_start"] = "2020-01-01 00:00:00.000001+00"
    row = Action(
        name=name,
        target=target,
        target_name=target.name,
        arguments=ACTIONS[name].clean(arguments),
        asked_by=person("dba"),
        asked_by_name="dba",
        state="queued",
        expires_at=timezone.now() + timedelta(minutes=1),
    )
    row.identity = dict(row.arguments)
    row.sql = ACTIONS[name].statement(row.arguments, row.identity, 0).as_string(None)
    row.save()
    since = server.log_size()

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "skipped"
    assert "no longer the same backend" in row.outcome
    assert signals_in(server.log_text(since=since)) == 0
    assert is_there(server, innocent.info.backend_pid)


@pytest.mark.parametrize("name", ["cancel_backend", "terminate_backend"])
@pytest.mark.parametrize("field", ["backend_start", "query_start"])
def test_the_statement_itself_matches_nobody_else(
    server: Server,
    target: Target,
    active: Times,
    sleeping: Callable[..., Session],
    name: str,
    field: str,
) -> None:
    """AC-01, AC-02: even sent without its guard, in the moment after it, it signals nobody."""
    innocent = sleeping()
    spec = ACTIONS[name]
    right = active(innocent.info.backend_pid)
    stale = spec.clean({**right, field: "2020-01-01 00:00:00.000001+00"})
    with server.connect(user="operator") as operator:
        row = operator.execute(spec.statement(stale, {}, 0)).fetchone()

        assert row == (0, None)
        assert is_there(server, innocent.info.backend_pid)
        assert operator.execute(spec.statement(spec.clean(right), {}, 0)).fetchone() == (1, True)


def test_it_leaves_the_next_statement_of_the_same_backend_alone(  # noqa: PLR0917 - fixtures
    server: Server,
    target: Target,
    person: Person,
    active: Times,
    sleeping: Callable[..., Session],
    background: Callable[..., threading.Thread],
    eventually: Callable[..., None],
) -> None:
    """AC-02: asked for Q1, which is over by the time of the signal; Q2 goes on."""
    session = sleeping()
    pid = session.info.backend_pid
    first = active(pid)
    with server.connect() as superuser:
        superuser.execute("SELECT pg_cancel_backend(%s)", [pid])
    eventually(lambda: session.info.transaction_status == 0)
    thread = background(session, "SELECT pg_sleep(60), 'second'")
    eventually(lambda: active(pid)["query_start"] != first["query_start"])
    since = server.log_size()

    row = signal(person("operator"), target, "cancel_backend", first)

    assert row.state == "skipped"
    assert "another statement" in row.outcome
    assert "second" not in row.outcome  # literals stay on the server
    assert signals_in(server.log_text(since=since)) == 0
    assert thread.is_alive()


def test_it_vacuums_and_measures(
    target: Target, server: Server, person: Person, table: Callable[..., str], done: Asked
) -> None:
    name = table(server, dead=100)

    row = done(person("operator"), target, "vacuum", table=name, analyze="true")

    assert row.sql == 'VACUUM (ANALYZE) "public"."{}"'.format(name.removeprefix("public."))
    assert (row.state, row.outcome) == ("succeeded", row.effect[0].upper() + row.effect[1:] + ".")
    assert "dead rows 100 → 0" in row.effect
    assert row.after["n_live_tup"] == 900


@pytest.mark.parametrize("name", ["vacuum", "vacuum_full", "analyze"])
def test_it_does_not_call_a_skipped_table_a_success(
    server: Server, watch: Watch, person: Person, table: Callable[..., str], done: Asked, name: str
) -> None:
    """AC-04: without the right the server reports success and only warns."""
    with server.connect() as superuser:
        superuser.execute(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'powerless') THEN"
            " CREATE ROLE powerless LOGIN; END IF; END $$"
        )
        superuser.execute(
            psycopg.sql.SQL("ALTER ROLE powerless PASSWORD {}").format(server.password)
        )
        superuser.execute("GRANT pg_read_all_stats TO powerless")
    target = watch(server, operator_user="powerless")
    where = table(server, dead=100)

    row = done(person("dba"), target, name, table=where)

    assert row.state == "skipped"
    assert "skip" in row.outcome.lower()
    assert "pg_maintain" in row.outcome or "GRANT owner TO powerless" in row.outcome
    with server.connect(dbname="shop") as connection:
        assert connection.execute(
            "SELECT pg_stat_get_vacuum_count(%s::regclass) + pg_stat_get_analyze_count(%s::regclass)",
            [where, where],
        ).fetchone() == (0,)


def test_a_locked_table_is_skipped_or_fails_with_its_blockers(  # noqa: PLR0917 - fixtures
    server: Server,
    target: Target,
    person: Person,
    table: Callable[..., str],
    done: Asked,
    live: Callable[..., Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AC-05."""
    short = replace(ACTIONS["vacuum"], lock_timeout_ms=1000)
    monkeypatch.setitem(ACTIONS, "vacuum", short)
    where = table(server)
    holder = live(server, user="owner", dbname="shop", autocommit=False, application_name="billing")
    holder.execute(
        psycopg.sql.SQL("LOCK TABLE {}").format(psycopg.sql.Identifier(*where.split(".")))
    )
    user = person("operator")

    waited = done(user, target, "vacuum", table=where)
    skipped = done(user, target, "vacuum", table=where, skip_locked="true")

    assert waited.state == "failed"
    assert waited.after["sqlstate"] == "55P03"
    assert [found["pid"] for found in waited.after["blockers"]] == [holder.info.backend_pid]
    assert "billing" in waited.outcome
    assert waited.started_at
    assert waited.finished_at
    assert (waited.finished_at - waited.started_at).total_seconds() < 1 + 3
    assert skipped.state == "skipped"
    assert "GRANT" not in skipped.outcome


@newest
def test_progress_is_shown_while_it_runs_and_the_stop_button_ends_it(
    server: Server,
    target: Target,
    person: Person,
    table: Callable[..., str],
    requested: Asked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The operator's VACUUM is slowed down so that it can be seen at work."""
    where = table(server)
    user = person("operator")
    seen: list[dict[str, Any]] = []
    look = watch.Watch.look

    def look_and_press(watch: watch.Watch) -> None:
        look(watch)
        seen.append(Action.objects.get(pk=row.pk).progress)
        if "pct" in seen[-1]:
            ask.stop(user, row, "test")

    monkeypatch.setattr(send, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(watch.Watch, "look", look_and_press)
    with server.connect(dbname="shop") as superuser:
        superuser.execute(f"INSERT INTO {where} SELECT generate_series(1, 100000)")
        superuser.execute("ALTER ROLE operator SET vacuum_cost_delay = 100")
        superuser.execute("ALTER ROLE operator SET vacuum_cost_limit = 1")
        try:
            row = requested(user, target, "vacuum", table=where)
            perform.perform(str(row.pk))
        finally:
            superuser.execute("ALTER ROLE operator RESET ALL")

    row.refresh_from_db()
    assert row.state == "cancelled"
    assert seen[-1]["phase"] == "scanning heap"
    assert 0 <= seen[-1]["pct"] < 100
    assert row.backend_pid


@newest
def test_a_long_action_waits_while_all_slots_are_taken(
    server: Server,
    target: Target,
    person: Person,
    table: Callable[..., str],
    requested: Asked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = requested(person("operator"), target, "vacuum", table=table(server))
    slots = threading.BoundedSemaphore(1)
    monkeypatch.setattr(connections, "LONG_SLOTS", slots)

    with slots:
        perform.perform(str(row.pk))
        row.refresh_from_db()
        assert row.state == "queued"
    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "succeeded"


@newest
def test_a_running_statement_is_watched_and_stopped(  # noqa: PLR0917 - fixtures
    server: Server,
    target: Target,
    person: Person,
    table: Callable[..., str],
    requested: Asked,
    live: Callable[..., Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AC-18: our statement waits for a lock; the stop button ends exactly that one."""
    where = table(server)
    holder = live(server, user="owner", dbname="shop", autocommit=False)
    holder.execute(
        psycopg.sql.SQL("LOCK TABLE {}").format(psycopg.sql.Identifier(*where.split(".")))
    )
    user = person("dba")
    row = requested(user, target, "vacuum", table=where)
    monkeypatch.setattr(send, "LOOK_SECONDS", 0.1)
    look = watch.Watch.look
    seen: list[dict[str, Any]] = []

    def look_and_press(watch: watch.Watch) -> None:
        look(watch)
        seen.append(Action.objects.get(pk=row.pk).progress)
        ask.stop(user, Action.objects.get(pk=row.pk), "test")

    monkeypatch.setattr(watch.Watch, "look", look_and_press)

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "cancelled"
    assert user.username in row.outcome
    assert seen[0]["phase"] == "waiting for a lock"
    assert seen[0]["blockers"][0]["pid"] == holder.info.backend_pid


def test_a_message_delivered_five_times_at_once_sends_one_statement(
    server: Server,
    target: Target,
    person: Person,
    table: Callable[..., str],
    requested: Asked,
    transactional_db: None,
) -> None:
    """AC-07, and again after success."""
    row = requested(person("operator"), target, "vacuum", table=table(server))
    since = server.log_size()

    in_threads(5, lambda: perform.perform(str(row.pk)))
    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "succeeded"
    assert server.log_text(since=since).count(f": {row.sql}") == 1
    assert AuditEntry.objects.filter(action_id=row.pk, kind="outcome").count() == 1


@newest
def test_twenty_clicks_with_one_key_are_one_row_and_one_statement(
    server: Server,
    target: Target,
    person: Person,
    active: Times,
    sleeping: Callable[..., Session],
    transactional_db: None,
) -> None:
    """AC-08."""
    session = sleeping()
    user, key, since = person("operator"), uuid.uuid4(), server.log_size()
    arguments = active(session.info.backend_pid)
    answers: list[uuid.UUID] = []

    def click() -> None:
        row = ask.ask(user, target, "cancel_backend", arguments, idempotency_key=key, source="test")
        answers.append(row.pk)
        perform.perform(str(row.pk))

    in_threads(20, click)

    assert len(answers) == 20
    assert len(set(answers)) == Action.objects.count() == 1
    assert signals_in(server.log_text(since=since)) == 1
    assert Action.objects.get().state == "succeeded"


def in_threads(count: int, call: Callable[[], object]) -> None:
    """Run a call so often at once; each thread leaves its own database connection."""
    barrier = threading.Barrier(count)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            barrier.wait()
            call()
        except BaseException as error:  # noqa: BLE001 - told below
            raised.append(error)
        finally:
            history.close()

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert raised == []


def test_a_table_that_was_renamed_or_dropped_meanwhile_is_skipped(
    server: Server, target: Target, person: Person, table: Callable[..., str], requested: Asked
) -> None:
    """AC-13."""
    where = table(server)
    name = psycopg.sql.Identifier(where.removeprefix("public."))
    user = person("operator")
    renamed = requested(user, target, "vacuum", table=where)
    dropped = requested(user, target, "vacuum", table=where)
    with server.connect(dbname="shop") as connection:
        connection.execute(psycopg.sql.SQL("ALTER TABLE public.{} RENAME TO other").format(name))
        perform.perform(str(renamed.pk))
        connection.execute("DROP TABLE public.other")
        perform.perform(str(dropped.pk))

    renamed.refresh_from_db()
    dropped.refresh_from_db()
    assert renamed.state == "skipped"
    assert "Object changed" in renamed.outcome
    assert dropped.state == "skipped"
    assert "gone" in dropped.outcome


@newest
def test_a_right_that_was_taken_away_meanwhile_counts(
    target: Target, server: Server, person: Person, table: Callable[..., str], requested: Asked
) -> None:
    user = person("operator")
    row = requested(user, target, "vacuum", table=table(server))
    Grant.objects.all().delete()
    since = server.log_size()

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "refused"
    assert "VACUUM" not in server.log_text(since=since)


@newest
def test_an_account_that_was_ended_meanwhile_counts(
    target: Target, server: Server, person: Person, table: Callable[..., str], requested: Asked
) -> None:
    user = person("operator")
    row = requested(user, target, "vacuum", table=table(server))
    User.objects.filter(pk=user.pk).update(is_active=False)

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "refused"


@newest
def test_what_is_too_old_expires_and_runs_no_more(
    target: Target, server: Server, person: Person, table: Callable[..., str], requested: Asked
) -> None:
    """AC-10."""
    row = requested(person("operator"), target, "vacuum", table=table(server))
    Action.objects.filter(pk=row.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    since = server.log_size()

    perform.perform(str(row.pk))
    sweep.sweep()

    row.refresh_from_db()
    assert row.state == "expired"
    assert "VACUUM" not in server.log_text(since=since)
    assert AuditEntry.objects.get(action_id=row.pk, kind="outcome").result == "expired"


@newest
def test_an_action_whose_worker_is_gone_is_lost(
    target: Target, server: Server, person: Person, table: Callable[..., str], requested: Asked
) -> None:
    row = requested(person("operator"), target, "vacuum", table=table(server))
    silent = timezone.now() - timedelta(seconds=16)
    Action.objects.filter(pk=row.pk).update(state="running", started_at=silent, beat_at=silent)

    sweep.sweep()

    row.refresh_from_db()
    assert row.state == "lost"
    assert "its backend is gone" in row.outcome


@newest
def test_a_lost_action_names_the_backend_that_still_runs(
    target: Target,
    server: Server,
    person: Person,
    table: Callable[..., str],
    requested: Asked,
    live: Callable[..., Session],
) -> None:
    row = requested(person("operator"), target, "vacuum", table=table(server))
    ours = live(server, user="operator", application_name=connections.application_name(row))
    silent = timezone.now() - timedelta(seconds=16)
    Action.objects.filter(pk=row.pk).update(state="running", started_at=silent, beat_at=silent)

    sweep.sweep()

    row.refresh_from_db()
    assert row.state == "lost"
    assert f"pid {ours.info.backend_pid}" in row.outcome


@newest
def test_what_still_beats_is_left_alone(
    target: Target, server: Server, person: Person, table: Callable[..., str], requested: Asked
) -> None:
    row = requested(person("operator"), target, "vacuum", table=table(server))
    Action.objects.filter(pk=row.pk).update(state="running", beat_at=timezone.now())

    sweep.sweep()

    row.refresh_from_db()
    assert row.state == "running"


@newest
def test_another_server_at_the_address_is_refused(
    target: Target, server: Server, person: Person, table: Callable[..., str], requested: Asked
) -> None:
    row = requested(person("operator"), target, "vacuum", table=table(server))
    Target.objects.update(system_identifier="4711")
    since = server.log_size()

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "refused"
    assert "Another server" in row.outcome
    assert "VACUUM" not in server.log_text(since=since)


def test_nothing_is_done_to_a_server_that_does_not_say_which_it_is(
    target: Target, server: Server, person: Person, table: Callable[..., str], requested: Asked
) -> None:
    row = requested(person("operator"), target, "vacuum", table=table(server))
    right = "EXECUTE ON FUNCTION pg_control_system()"
    with server.connect(dbname="shop") as setup:
        setup.execute(f"REVOKE {right} FROM PUBLIC")
        try:
            since = server.log_size()
            perform.perform(str(row.pk))
        finally:
            setup.execute(f"GRANT {right} TO PUBLIC")

    row.refresh_from_db()
    assert row.state == "refused"
    assert f"In the database shop: GRANT {right} TO operator;" in row.outcome
    assert "VACUUM" not in server.log_text(since=since)


def test_a_standby_is_refused_before_anything_is_sent(
    standby: Server, watch: Watch, person: Person, previewed: Asked
) -> None:
    """AC-14: also where nobody has yet noticed that it is one."""
    target = watch(standby, operator_user="operator")
    user = person("dba")
    arguments = {
        "pid": "1",
        "backend_start": "2026-01-01 00:00:00.1+00",
        "query_start": "2026-01-01 00:00:00.1+00",
    }
    since = standby.log_size()

    draft = previewed(user, target, "vacuum", table="public.t")
    row = signal(user, target, "cancel_backend", arguments)

    assert "standby in recovery" in draft.preview["refused"]
    assert row.state == "skipped"  # signals work there; nobody has that pid
    assert signals_in(standby.log_text(since=since)) == 0


@pytest.fixture
def standby() -> Iterator[Server]:
    """A server that waits for a primary's changes for ever."""
    with ExitStack() as stack:
        folder = stack.enter_context(servers.home())
        cluster = Cluster(
            name="standby",
            folder=folder / "standby",
            programs=embedded_programs(),
            password="secret-of-standby",
            settings={**servers.SETTINGS, "hot_standby": "on"},
        )
        cluster.initialized(cluster.initialize())
        cluster.start(processes.free_port())
        cluster.wait()
        servers.create_roles(cluster, 18)
        cluster.stop()
        (cluster.data / "standby.signal").touch()
        cluster.start(processes.free_port())
        stack.callback(cluster.stop)
        cluster.wait()
        yield Server(18, cluster.port, cluster.password, str(cluster.log))


@newest
def test_a_superuser_as_operator_is_refused_unless_the_target_says_otherwise(
    server: Server, watch: Watch, person: Person, table: Callable[..., str], previewed: Asked
) -> None:
    target = watch(server, operator_user="postgres")
    where = table(server)
    user = person("operator")

    refused = previewed(user, target, "vacuum", table=where)
    Target.objects.update(allow_superuser=True)
    target.refresh_from_db()
    allowed = previewed(user, target, "vacuum", table=where)

    assert "superuser" in refused.preview["refused"]
    assert allowed.preview["refused"] == ""


def test_a_preview_shows_statement_lock_and_who_conflicts(
    server: Server,
    target: Target,
    person: Person,
    previewed: Asked,
    blocked: Callable[[Server], Blocked],
) -> None:
    pair = blocked(server)

    draft = previewed(person("dba"), target, "vacuum_full", table=f"public.{pair.table}")

    assert draft.preview["ready"] is True
    assert draft.preview["sql"] == f'VACUUM (FULL) "public"."{pair.table}"'
    assert draft.preview["lock"] == "AccessExclusiveLock"
    assert {found["pid"] for found in draft.preview["conflicts"]} == {
        pair.root_pid,
        pair.waiter_pid,
    }
    assert ["Table", f"public.{pair.table}"] in draft.preview["facts"]


@newest
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("public.missing", "no table"),
        ("pg_catalog.pg_class", "system catalog"),
        ("orders", "no table"),
        ("public.a.b.c", "no table"),
        ("'", "no table"),
    ],
)
def test_a_preview_refuses_what_is_no_table_of_the_people(
    target: Target, person: Person, previewed: Asked, given: str, says: str
) -> None:
    draft = previewed(person("operator"), target, "vacuum", table=given)

    assert says in draft.preview["refused"]
    assert AuditEntry.objects.filter(what="vacuum", result="refused").count() == 1
    with pytest.raises(Refused):
        ask.request(draft.asked_by, draft, source="test")  # type: ignore[arg-type]


@newest
def test_hostile_names_are_names(
    target: Target, server: Server, person: Person, done: Asked
) -> None:
    hostile = 'a"; DROP TABLE x; -- {{7*7}} %s {} <img onerror>'[:63]
    name = psycopg.sql.Identifier("public", hostile)
    quoted = '"public"."' + hostile.replace('"', '""') + '"'
    with server.connect(user="owner", dbname="shop") as connection:
        connection.execute(psycopg.sql.SQL("CREATE TABLE {} (id bigint)").format(name))
    try:
        row = done(person("operator"), target, "vacuum", table=quoted)
    finally:
        with server.connect(dbname="shop") as connection:
            connection.execute(psycopg.sql.SQL("DROP TABLE {}").format(name))

    assert row.state == "succeeded"
    assert row.sql == f"VACUUM {quoted}"


@newest
def test_an_unreachable_target_fails_with_the_reason(
    target: Target, server: Server, person: Person, table: Callable[..., str], requested: Asked
) -> None:
    row = requested(person("operator"), target, "vacuum", table=table(server))
    Target.objects.update(port=1)

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "failed"
    assert "Nothing was sent" in row.outcome


@newest
def test_a_killed_worker_leaves_nothing_in_the_lock_queue(  # noqa: PLR0917 - fixtures
    server: Server,
    target: Target,
    person: Person,
    table: Callable[..., str],
    requested: Asked,
    live: Callable[..., Session],
    eventually: Callable[..., None],
    transactional_db: None,
) -> None:
    """AC-06: VACUUM FULL waits for its lock, and every reader behind it, when kill -9 comes."""
    where = table(server)
    holder = live(server, user="owner", dbname="shop", autocommit=False)
    holder.execute(f"SELECT count(*) FROM {where}")
    row = requested(person("dba"), target, "vacuum_full", table=where)
    with (
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(row.pk)],
            env={**os.environ, "DATABASE_URL": url_of(history.settings_dict)},
            start_new_session=True,
        ) as worker,
        server.connect() as eye,
    ):
        name = connections.application_name(row)
        eventually(lambda: named(eye, name, waiting=True), seconds=20)
        os.killpg(worker.pid, signals.SIGKILL)
        eventually(lambda: not named(eye, name, waiting=False), seconds=5)

    live(server, user="owner", dbname="shop").execute(f"SELECT count(*) FROM {where}")
    Action.objects.filter(pk=row.pk).update(beat_at=timezone.now() - timedelta(seconds=16))
    sweep.sweep()
    row.refresh_from_db()
    assert row.state == "lost"
    assert "its backend is gone" in row.outcome


@newest
def test_messages_through_the_broker_send_one_statement(  # noqa: PLR0917 - fixtures
    server: Server,
    target: Target,
    person: Person,
    table: Callable[..., str],
    requested: Asked,
    live: Callable[..., Session],
    eventually: Callable[..., None],
    transactional_db: None,
) -> None:
    """AC-07 with a real worker: five at once, again after success, and again after kill -9."""
    user = person("operator")
    row = requested(user, target, "vacuum", table=table(server))
    where = table(server)
    cut = requested(user, target, "vacuum", table=where)
    holder = live(server, user="owner", dbname="shop", autocommit=False)
    holder.execute(f"LOCK TABLE {where}")
    since = server.log_size()

    with worker_of("long") as worker:
        deliver(row, 5)
        eventually(lambda: state_of(row) == "succeeded", seconds=30)
        deliver(row, 1)
        deliver(cut, 1)
        eventually(lambda: server.log_text(since=since).count(f": {cut.sql}"), seconds=30)
        os.killpg(worker.pid, signals.SIGKILL)
    witness = requested(user, target, "analyze", table=where)
    holder.rollback()
    with worker_of("long"):
        deliver(cut, 5)
        deliver(witness, 1)
        eventually(lambda: state_of(witness) == "succeeded", seconds=30)

    log = server.log_text(since=since)
    assert log.count(f": {row.sql}") == 1
    assert log.count(f": {cut.sql}") == 1
    assert state_of(cut) == "running"  # until the sweep finds that nobody beats


@contextmanager
def worker_of(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker of its own process group that works on the test database."""
    words = ["-A", "dashboard", "worker", "-P", "threads", "-c", "5", "-Q", name]
    quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    environment = {"DATABASE_URL": url_of(history.settings_dict), "HOWDAH_ROLE": name}
    with subprocess.Popen(
        [sys.executable, "-m", "celery", *words, *quick],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as worker:
        try:
            yield worker
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signals.SIGKILL)


def deliver(row: Action, times: int) -> None:
    for _ in range(times):
        assert queue.send("perform", str(row.pk), queue="long", expires=60)


def state_of(row: Action) -> str:
    return Action.objects.values_list("state", flat=True).get(pk=row.pk)


# Without the check for the client a lock timeout of 5 s would end the wait as well.
WORKER = """
import sys
from dataclasses import replace
import django
django.setup()
from monitors.acting import perform
from monitors.actions import ACTIONS
ACTIONS["vacuum_full"] = replace(ACTIONS["vacuum_full"], lock_timeout_ms=600_000)
perform.perform(sys.argv[1])
"""


def url_of(database: dict[str, Any]) -> str:
    return (
        f"postgresql://{database['USER']}:{database['PASSWORD']}"
        f"@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    )


def named(eye: Session, name: str, *, waiting: bool) -> bool:
    found = eye.execute(
        "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE application_name = %s", [name]
    ).fetchone()
    return bool(found and found[0]) if waiting else found is not None


NAMES = {"foreign": b"caf\xe9", "utf8": "café".encode(), "quoted": b'a"\xff.b'}
"""Of tables in a database without an encoding: bytes that are whatever the client meant."""


@pytest.fixture
def foreign(server: Server, worker_id: str) -> Iterator[tuple[str, dict[str, int]]]:
    """A database without an encoding, and the oids of its tables by the keys of NAMES."""
    dbname = f"bytes_{worker_id}"
    made = {}
    with server.connect() as setup:
        setup.execute(f"DROP DATABASE IF EXISTS {dbname} WITH (FORCE)")
        setup.execute(
            f"CREATE DATABASE {dbname} OWNER owner ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
        )
    with server.connect(dbname=dbname, client_encoding="SQL_ASCII") as setup:
        setup.execute("GRANT CREATE ON SCHEMA public TO owner")
    with server.connect(dbname=dbname, user="owner", client_encoding="SQL_ASCII") as owner:
        for key, name in NAMES.items():
            quoted = b'public."' + name.replace(b'"', b'""') + b'"'
            owner.pgconn.exec_(b"CREATE TABLE " + quoted + b" AS SELECT generate_series(1,9) AS id")
            owner.pgconn.exec_(b"ALTER TABLE " + quoted + b" ADD PRIMARY KEY (id)")
            owner.pgconn.exec_(b"DELETE FROM " + quoted + b" WHERE id < 5")
            [(made[key],)] = owner.execute(
                "SELECT max(oid::bigint) FROM pg_class WHERE relkind = 'r'"
            )
    yield dbname, made
    with server.connect() as cleanup:
        # One text in foreign bytes would keep pg_stat_statements from giving out any.
        cleanup.execute(
            "SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = %s",
            [dbname],
        )
        cleanup.execute(f"DROP DATABASE {dbname} WITH (FORCE)")


@pytest.mark.parametrize("key", NAMES)
def test_a_table_whose_name_is_no_utf8_is_maintained(
    server: Server,
    target: Target,
    person: Person,
    done: Asked,
    foreign: tuple[str, dict[str, int]],
    key: str,
) -> None:
    dbname, oids = foreign
    user = person("dba")

    for name in ("vacuum", "analyze", "reindex", "vacuum_full"):
        row = done(user, target, name, database=dbname, relid=str(oids[key]))
        assert row.state == "succeeded", row.outcome
        assert "\ufffd" in row.sql or key == "utf8"
    with server.connect(dbname=dbname) as look:
        counts = look.execute(
            "SELECT pg_stat_get_vacuum_count(oid) > 0, reltuples FROM pg_class WHERE oid = %s",
            [oids[key]],
        ).fetchone()
    assert counts == (True, 5)


@newest
@pytest.mark.parametrize(
    ("when", "said"),
    [("measure", "Nothing was sent"), ("effect", "Whether it was done is not known")],
)
def test_what_nobody_foresaw_is_an_outcome_and_goes_on_to_the_log(  # noqa: PLR0917 - fixtures
    server: Server,
    target: Target,
    person: Person,
    table: Callable[..., str],
    requested: Asked,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    said: str,
) -> None:
    """A fault of ours: the worker lives, so the action is not lost."""

    def fail(*_: Any) -> Any:
        message = "a fault \x00\udce9"
        raise TypeError(message)

    row = requested(person("operator"), target, "vacuum", table=table(server))
    changed: dict[str, Any] = {when: fail}
    monkeypatch.setitem(ACTIONS, "vacuum", replace(ACTIONS["vacuum"], **changed))

    with pytest.raises(TypeError):
        perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "failed"
    assert row.outcome == (
        f"{said}: Howdah itself failed (TypeError('a fault \\x00\\udce9')),"
        " and the log of its worker says where."
    )
    entry = AuditEntry.objects.filter(action_id=row.pk, kind=AuditEntry.Kind.OUTCOME).get()
    assert (entry.result, entry.reason) == ("failed", row.outcome)


@newest
def test_a_preview_that_nobody_foresaw_to_fail_says_so(
    server: Server,
    target: Target,
    person: Person,
    table: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> Any:
        message = "a fault"
        raise TypeError(message)

    monkeypatch.setitem(ACTIONS, "vacuum", replace(ACTIONS["vacuum"], guard=fail))
    arguments = {"database": "shop", "table": table(server)}
    draft = ask.preview(person("operator"), target, "vacuum", arguments, source="test")

    with pytest.raises(TypeError):
        preview.preview_now(str(draft.pk))

    draft.refresh_from_db()
    assert draft.preview["ready"]
    assert "Howdah itself failed (TypeError('a fault'))" in draft.preview["refused"]
