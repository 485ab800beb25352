"""Bars of safety: who is never signalled, what a lock may cost, a killed worker, many clicks."""

from __future__ import annotations

import os
import re
import secrets
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from signal import SIGKILL
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection as history
from django.test import Client
from django.utils import timezone
from psycopg import sql

from dashboard.embedded import processes
from dashboard.embedded.postgres import Cluster, embedded_programs
from monitors.acting import ask, perform, preview, sweep
from monitors.actions import ACTIONS
from monitors.models import Action, AuditEntry, Target
from tests import servers
from tests.servers import Server

pytestmark = pytest.mark.django_db

Session = psycopg.Connection[Any]
Asked = Callable[..., Action]
SIGNALS = ("cancel_backend", "terminate_backend")
newest = pytest.mark.parametrize("server", [18], indirect=True, ids=str)

# A slow worker for the table whose transaction ids are used up, and no other.
EXHAUSTING = """
CREATE TABLE public.old (id bigint, filler text) WITH (
    autovacuum_enabled = false, autovacuum_freeze_max_age = 100000,
    autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
INSERT INTO public.old SELECT n, repeat('x', 500) FROM generate_series(1, 5000) AS n;
CREATE TABLE public.used (id bigint) WITH (autovacuum_enabled = false);
DO $$
BEGIN
  FOR n IN 1..100500 LOOP
    BEGIN
      INSERT INTO public.used VALUES (n);  -- a transaction id of its own
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
  END LOOP;
END $$;
"""


@pytest.fixture
def target(server: Server, watch: Callable[..., Target]) -> Target:
    return watch(server, operator_user="operator")


def signals_in(log: str) -> int:
    """Count the signals that a server logged as statements, not our looks at it."""
    return log.count("pg_cancel_backend(target.pid)") + log.count(
        "pg_terminate_backend(target.pid)"
    )


def identified(server: Server, pid: int) -> dict[str, str]:
    """Return pid, start and statement's start as a page has them; else the start twice."""
    with server.connect() as connection:
        row = connection.execute(
            "SELECT pid::text, backend_start::text,"
            " coalesce(query_start, backend_start)::text FROM pg_stat_activity WHERE pid = %s",
            [pid],
        ).fetchone()
    assert row is not None
    return dict(zip(("pid", "backend_start", "query_start"), row, strict=True))


def is_same(server: Server, arguments: dict[str, str]) -> bool:
    """Return whether a backend is still there and still does the same."""
    with server.connect() as connection:
        row = connection.execute(
            "SELECT backend_start::text, coalesce(query_start, backend_start)::text"
            " FROM pg_stat_activity WHERE pid = %s",
            [arguments["pid"]],
        ).fetchone()
    return row == (arguments["backend_start"], arguments["query_start"])


def refusal(
    user: User, target: Target, server: Server, name: str, arguments: dict[str, str]
) -> str:
    """Ask for a signal in every way and return the one sentence that refused it.

    As a page asks, and as a row that got into the queue all the same.
    """
    said: set[str] = set()
    spec = ACTIONS[name]
    if spec.direct:
        row = ask.ask(user, target, name, arguments, source="test")
    else:
        draft = ask.preview(user, target, name, arguments, source="test")
        preview.preview_now(str(draft.pk))
        draft.refresh_from_db()
        said.add(draft.preview["refused"])
        cleaned = spec.clean(arguments)
        row = Action(
            name=name,
            target=target,
            target_name=target.name,
            arguments=cleaned,
            identity=cleaned,
            sql=spec.statement(cleaned, cleaned, 0).as_string(None),
            asked_by=user,
            asked_by_name=user.username,
            state="queued",
            expires_at=timezone.now() + timedelta(minutes=1),
        )
        row.save()
    since = server.log_size()
    perform.perform(str(row.pk))
    row.refresh_from_db()
    assert row.state == "refused", row.outcome
    assert signals_in(server.log_text(since=since)) == 0
    assert is_same(server, arguments)
    said.add(row.outcome)
    [sentence] = said
    return sentence


@pytest.mark.parametrize("name", SIGNALS)
def test_a_walsender_is_left_alone_and_replication_stays_connected(
    server: Server,
    target: Target,
    person: Callable[..., User],
    live: Callable[..., Session],
    worker_id: str,
    name: str,
) -> None:
    """AC-03: of a role that is no superuser, which the server itself would let us signal."""
    role = f"replicator_{worker_id}_{secrets.token_hex(3)}"
    with server.connect() as connection:
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD {}").format(
                sql.Identifier(role), server.password
            )
        )
    try:
        sender = live(server, user=role, dbname="shop", replication="database")
        pid = sender.info.backend_pid

        sentence = refusal(person("dba"), target, server, name, identified(server, pid))

        assert sentence == "This is a walsender: replication would break."
        assert sender.execute("IDENTIFY_SYSTEM").fetchone()
        sender.close()
    finally:
        with server.connect() as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@newest
@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize(
    ("session", "says"),
    [
        ({"user": "postgres"}, "A superuser's backend can be signalled by a superuser alone."),
        (
            {"user": "collector", "application_name": "howdah:collector:fast"},
            "This is one of Howdah's own backends.",
        ),
        (
            {"user": "operator", "application_name": "howdah:action:4711"},
            "This is one of Howdah's own backends.",
        ),
    ],
    ids=["superuser", "collector", "operator"],
)
def test_superusers_and_our_own_sessions_are_left_alone(  # noqa: PLR0917 - fixtures
    server: Server,
    target: Target,
    person: Callable[..., User],
    sleeping: Callable[..., Session],
    name: str,
    session: dict[str, str],
    says: str,
) -> None:
    """AC-03."""
    victim = sleeping(**session)
    arguments = identified(server, victim.info.backend_pid)

    assert refusal(person("dba"), target, server, name, arguments) == says


@pytest.mark.parametrize("name", ["howdahX", "howdah:collector:fast", "howdah:action:4711"])
def test_nobody_is_immune_by_taking_our_name(
    server: Server,
    target: Target,
    person: Callable[..., User],
    sleeping: Callable[..., Session],
    active: Callable[[int], dict[str, str]],
    name: str,
) -> None:
    """Whoever connects chooses his application_name; own is the target's own login as well."""
    victim = sleeping(application_name=name)

    row = ask.ask(
        person("operator"), target, "cancel_backend", active(victim.info.backend_pid), source="test"
    )
    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert (row.state, row.effect) == ("succeeded", "cancelled")


@pytest.fixture(scope="module")
def exhausted() -> Iterator[Server]:
    """A server whose autovacuum works slowly on a table, to prevent wraparound."""
    settings = {**servers.SETTINGS, "autovacuum_naptime": "1s", "log_statement": "none"}
    with servers.home() as folder:
        cluster = Cluster("exhausted", folder / "exhausted", embedded_programs(), "own", settings)
        cluster.initialized(cluster.initialize())
        cluster.start(processes.free_port())
        try:
            cluster.wait()
            servers.create_roles(cluster, 18)
            with cluster.connect(dbname="shop") as connection:
                connection.execute(EXHAUSTING)
            yield Server(18, cluster.port, cluster.password, str(cluster.log))
        finally:
            cluster.stop()


@pytest.mark.parametrize("name", SIGNALS)
def test_an_autovacuum_against_wraparound_is_left_alone(
    exhausted: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    eventually: Callable[..., None],
    name: str,
) -> None:
    """AC-03: a real one, in the middle of its work."""
    target = watch(exhausted, operator_user="operator")
    found: list[int] = []

    def is_at_work() -> bool:
        with exhausted.connect() as connection:
            found[:] = [
                pid
                for (pid,) in connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
                    " AND query ~ '^autovacuum: VACUUM.* public.old \\(to prevent wraparound\\)$'"
                )
            ]
        return bool(found)

    eventually(is_at_work, seconds=30)

    sentence = refusal(person("dba"), target, exhausted, name, identified(exhausted, found[0]))

    assert sentence == "This is an autovacuum to prevent wraparound: it must finish."


def logged_at(log: str, text: str) -> datetime:
    """Return when a server first logged a text."""
    [moment] = re.findall(rf"^(\S+ \S+) UTC .*{re.escape(text)}", log, re.MULTILINE)[:1]
    return datetime.fromisoformat(moment)


def test_a_vacuum_full_that_waits_keeps_others_no_longer_than_its_limit(  # noqa: PLR0917 - fixtures
    server: Server,
    target: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    requested: Asked,
    live: Callable[..., Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AC-05: a reader holds the table; whoever reads it now queues behind our wait."""
    limit = 1.0
    spec = replace(ACTIONS["vacuum_full"], lock_timeout_ms=int(limit * 1000))
    monkeypatch.setitem(ACTIONS, "vacuum_full", spec)
    where = table(server)
    name = sql.Identifier(*where.split("."))
    holder = live(server, user="owner", dbname="shop", autocommit=False, application_name="report")
    holder.execute(sql.SQL("SELECT count(*) FROM {}").format(name))
    reader = live(server, user="owner", dbname="shop")
    row = requested(person("dba"), target, "vacuum_full", table=where)
    waited: list[float] = []

    def read_meanwhile() -> None:
        with server.connect() as eye:
            while not eye.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND application_name = %s",
                [f"howdah:action:{row.pk}"],
            ).fetchone():
                time.sleep(0.01)
        began = time.monotonic()
        reader.execute(sql.SQL("SELECT count(*) FROM {}").format(name))
        waited.append(time.monotonic() - began)

    thread = threading.Thread(target=read_meanwhile, daemon=True)
    thread.start()
    since = server.log_size()

    perform.perform(str(row.pk))

    thread.join(10)
    row.refresh_from_db()
    assert (row.state, row.after["sqlstate"]) == ("failed", "55P03")
    assert [found["pid"] for found in row.after["blockers"]] == [holder.info.backend_pid]
    assert f"not free within 1 s: pid {holder.info.backend_pid} (report)" in row.outcome
    log = server.log_text(since=since)
    took = logged_at(log, "canceling statement due to lock timeout") - logged_at(
        log, f"statement: {row.sql}"
    )
    assert limit - 0.1 <= took.total_seconds() <= limit + 1
    [seconds] = waited
    assert 0.1 < seconds <= limit + 1


WORKER = """
    from dataclasses import replace
    from dashboard.celery import app
    from monitors.actions import ACTIONS  # after the application has set Django up

    # Longer than the test: not the limit is to end the wait, but our end.
    ACTIONS["vacuum_full"] = replace(ACTIONS["vacuum_full"], lock_timeout_ms=60_000)
    app.worker_main([
        "worker", "-P", "threads", "-c", "2", "-Q", "long", "-n", "killed@%h",
        "--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat",
    ])
"""


@pytest.fixture
def worker(transactional_db: None, tmp_path: Path) -> Iterator[processes.Child]:
    """A Celery worker, a process group of its own, on the test's own databases."""
    environment = {
        **os.environ,
        "DATABASE_URL": os.environ["DATABASE_URL"].rpartition("/")[0]
        + "/"
        + str(history.settings_dict["NAME"]),
        "HOWDAH_ROLE": "long",
    }
    code = "import django; django.setup()\n" + textwrap.dedent(WORKER)
    child = processes.start(
        "worker", [sys.executable, "-c", code], log=tmp_path / "worker.log", env=environment
    )
    yield child
    if not child.died:
        os.killpg(child.process.pid, SIGKILL)
    child.process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("server", [14, 18], indirect=True, ids=str)
def test_a_killed_worker_leaves_nothing_in_the_lock_queue(  # noqa: PLR0917 - fixtures
    server: Server,
    worker: processes.Child,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    requested: Asked,
    live: Callable[..., Session],
    eventually: Callable[..., None],
) -> None:
    """AC-06: VACUUM FULL waits behind a reader when its worker is killed with all its threads."""
    target = watch(server, operator_user="operator")
    where = table(server)
    count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(*where.split(".")))
    holder = live(server, user="owner", dbname="shop", autocommit=False)
    holder.execute(count)
    reader = live(server, user="owner", dbname="shop", options="-c statement_timeout=1500")
    eye = live(server)
    row = requested(person("dba"), target, "vacuum_full", table=where)

    def ours() -> list[tuple[Any, ...]]:
        return eye.execute(
            "SELECT pid, wait_event_type FROM pg_stat_activity WHERE application_name IN (%s, %s)",
            [f"howdah:action:{row.pk}", f"howdah:watch:{row.pk}"],
        ).fetchall()

    def beats() -> bool:
        row.refresh_from_db()
        return row.state == "running" and row.progress.get("phase") == "waiting for a lock"

    eventually(beats, seconds=30)
    assert "Lock" in {wait for _, wait in ours()}
    with pytest.raises(psycopg.errors.QueryCanceled):
        reader.execute(count)  # it does queue behind the waiting VACUUM FULL

    os.killpg(worker.process.pid, SIGKILL)
    worker.process.wait()
    killed = time.monotonic()

    eventually(lambda: not ours(), seconds=5)
    assert reader.execute(count).fetchone() == (900,)

    def is_lost() -> bool:
        sweep.sweep()
        row.refresh_from_db()
        return row.state == "lost"

    beat = sweep.SILENT_AFTER.total_seconds()
    eventually(is_lost, seconds=beat + 5)
    assert time.monotonic() - killed < beat + 5
    assert "Nothing of it waits or runs on the target" in row.outcome
    assert AuditEntry.objects.get(action_id=row.pk, kind="outcome").result == "lost"
    perform.perform(str(row.pk))  # a message that is delivered again
    row.refresh_from_db()
    assert row.state == "lost"


def at_once(count: int, call: Callable[[], object]) -> list[Any]:
    """Return what a call returned in so many threads that started together."""
    barrier = threading.Barrier(count)
    answers: list[Any] = []

    def work() -> None:
        try:
            barrier.wait()
            answers.append(call())
        finally:
            history.close()

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def client_of(user: User) -> Client:
    """Return a browser in which a person is logged in."""
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


@newest
def test_twenty_posts_with_one_key_are_one_row_one_statement_and_one_answer(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    sleeping: Callable[..., Session],
    transactional_db: None,
) -> None:
    """AC-08, from the browser's side: cancel, which is asked for without a preview."""
    watch(server, operator_user="operator")
    user = person("operator")
    victim = sleeping()
    form = {
        **identified(server, victim.info.backend_pid),
        "idempotency_key": str(uuid.uuid4()),
    }
    clients = [client_of(user) for _ in range(20)]
    since = server.log_size()

    answers = at_once(
        20, lambda: clients.pop().post("/targets/shop-1/actions/cancel_backend/", form)
    )
    row = Action.objects.get()
    at_once(20, lambda: perform.perform(str(row.pk)))

    assert {(answer.status_code, answer["Location"]) for answer in answers} == {
        (302, f"/actions/{row.pk}/")
    }
    assert len(answers) == 20
    assert signals_in(server.log_text(since=since)) == 1
    row.refresh_from_db()
    assert row.state == "succeeded"
    assert AuditEntry.objects.filter(action_id=row.pk, kind="intent").count() == 1


@newest
def test_twenty_clicks_on_one_preview_are_one_statement(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Asked,
    transactional_db: None,
) -> None:
    """AC-08, from the browser's side: what has a preview."""
    target = watch(server, operator_user="operator")
    user = person("operator")
    draft = previewed(user, target, "vacuum", table=table(server))
    form = {"idempotency_key": str(draft.idempotency_key)}
    clients = [client_of(user) for _ in range(20)]
    since = server.log_size()

    answers = at_once(20, lambda: clients.pop().post(f"/actions/{draft.pk}/request/", form))
    at_once(20, lambda: perform.perform(str(draft.pk)))

    assert {(answer.status_code, answer["Location"]) for answer in answers} == {
        (302, f"/actions/{draft.pk}/")
    }
    assert len(answers) == 20
    draft.refresh_from_db()
    assert draft.state == "succeeded"
    assert Action.objects.count() == 1
    assert server.log_text(since=since).count(f"statement: {draft.sql}") == 1
    assert AuditEntry.objects.filter(action_id=draft.pk, kind="intent").count() == 1
