"""One action on several tables: a frozen list, one at a time, a result for each."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import connection as history
from django.utils import timezone
from psycopg import sql

from monitors.acting import ask, batch, perform, preview, sweep
from monitors.action import InvalidArguments, Refused
from monitors.collect import rounds
from monitors.models import Action, AuditEntry, Batch, Grant, Target
from monitors.rows import due
from tests.servers import Server

pytestmark = pytest.mark.django_db


@pytest.fixture
def acting(embedded: Server, watch: Callable[..., Target]) -> Target:
    """A target on which the operator vacuums."""
    return watch(embedded, operator_user="operator")


Previewed = Callable[..., Batch]


@pytest.fixture
def previewed() -> Previewed:
    """Preview a batch as a worker does: previewed(user, target, names, analyze="true")."""

    def make(
        user: User, target: Target, names: list[str], name: str = "vacuum", **options: str
    ) -> Batch:
        tables = [{"database": "shop", "table": one} for one in names]
        made = batch.preview(user, target, name, tables, options, source="test")
        preview.preview_batch(str(made.pk))
        return made

    return make


def rows_of(made: Batch) -> list[Action]:
    return list(made.actions.order_by("batch_position"))


def work_off(made: Batch) -> None:
    """Perform what is queued, in order, as one worker would."""
    while (row := batch.waiting_rows(made.target_id or 0).first()) is not None:
        perform.perform(str(row.pk))
        row.refresh_from_db()
        assert row.is_final
    made.refresh_from_db()


def test_each_table_has_its_own_row_statement_audit_and_result(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
) -> None:
    target, user = watch(server, operator_user="operator"), person("operator")
    names = [table(server) for _ in range(3)]
    made = previewed(user, target, [*names, names[0]], analyze="true")
    assert batch.is_ready(made)
    assert [row.preview["refused"] for row in rows_of(made)] == ["", "", ""]
    since = server.log_size()

    batch.request(user, made, reason="too full", source="test")
    work_off(made)

    rows = rows_of(made)
    assert [row.state for row in rows] == ["succeeded"] * 3
    assert all(row.effect.startswith("dead rows 100 → 0") for row in rows)
    assert [row.object_name for row in rows] == [f"shop: {name}" for name in names]
    assert server.log_text(since=since).count("statement: VACUUM (ANALYZE)") == 3
    assert made.finished_at is not None
    kinds = AuditEntry.objects.filter(action_id__in=[row.pk for row in rows])
    assert sorted(kinds.values_list("kind", flat=True)) == ["intent"] * 3 + ["outcome"] * 3
    event = AuditEntry.objects.get(what="vacuum.batch")
    assert (event.who, event.object_name, event.reason) == (user.username, "3 tables", "too full")
    assert set(event.detail["actions"]) == {str(row.pk) for row in rows}


def test_what_is_gone_is_skipped_and_the_others_go_on(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
) -> None:
    user, names = person("operator"), [table(embedded) for _ in range(3)]
    made = previewed(user, acting, [names[0], names[1], "public.never_was", names[2]])
    batch.request(user, made, source="test")
    with embedded.connect(dbname="shop") as connection:
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(*names[1].split("."))))

    work_off(made)

    rows = rows_of(made)
    assert [row.state for row in rows] == ["succeeded", "skipped", "refused", "succeeded"]
    assert "The table is gone" in rows[1].outcome
    assert "There is no table" in rows[2].outcome
    assert batch.counts(rows) == {"succeeded": 2, "skipped": 1, "refused": 1}


def test_one_runs_at_a_time_however_often_it_is_claimed(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
) -> None:
    """Two batches on one target share its one place."""
    user, names = person("operator"), [table(embedded) for _ in range(3)]
    first = previewed(user, acting, names[:2])
    second = previewed(user, acting, names[2:])
    for made in (first, second):
        batch.request(user, made, source="test")
    rows = [*rows_of(first), *rows_of(second)]

    claimed = [perform.claim(row) for row in rows]
    again = perform.claim(rows[0])

    assert claimed == [True, False, False]
    assert not again
    Action.objects.filter(pk=rows[0].pk).update(state="succeeded")
    assert [perform.claim(row) for row in rows] == [False, True, False]


def test_stopping_starts_no_further_one(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
) -> None:
    user, names = person("operator"), [table(embedded) for _ in range(3)]
    made = previewed(user, acting, names)
    batch.request(user, made, source="test")
    rows = rows_of(made)
    perform.perform(str(rows[0].pk))
    assert perform.claim(rows[1])

    batch.stop(user, made, "test")

    rows = rows_of(made)
    assert [row.state for row in rows] == ["succeeded", "running", "cancelled"]
    assert rows[1].stop_asked_by == user.username
    assert not perform.claim(rows[2])
    assert made.finished_at is None
    assert AuditEntry.objects.filter(what="vacuum.batch.stop").count() == 1
    Action.objects.filter(pk=rows[1].pk).update(state="cancelled")
    batch.advance(acting.pk)
    assert Batch.objects.get(pk=made.pk).finished_at is not None
    with pytest.raises(Refused):
        batch.stop(user, Batch.objects.get(pk=made.pk), "test")


def test_a_lost_worker_does_not_hold_up_the_rest(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sweep calls the silent one lost and sends the next to the workers, once each time."""
    user, names = person("operator"), [table(embedded) for _ in range(2)]
    made = previewed(user, acting, names)
    batch.request(user, made, source="test")
    first, second = rows_of(made)
    assert perform.claim(first)
    long_ago = timezone.now() - timedelta(minutes=1)
    Action.objects.filter(pk=first.pk).update(beat_at=long_ago)
    Action.objects.filter(pk=second.pk).update(queued_at=long_ago)
    sent: list[str] = []

    def publish(row: Action, _spec: object) -> bool:
        sent.append(str(row.pk))
        return True

    monkeypatch.setattr(ask, "publish", publish)

    sweep.sweep()

    first.refresh_from_db()
    assert first.state == "lost"
    assert sent == [str(second.pk)]
    perform.perform(sent[0])
    made.refresh_from_db()
    assert [row.state for row in rows_of(made)] == ["lost", "succeeded"]
    assert made.finished_at is not None


def test_a_right_that_was_lost_meanwhile_counts_for_what_has_not_begun(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
) -> None:
    user, names = person("operator"), [table(embedded) for _ in range(2)]
    made = previewed(user, acting, names)
    batch.request(user, made, source="test")
    perform.perform(str(rows_of(made)[0].pk))
    Grant.objects.filter(user=user).delete()

    work_off(made)

    assert [row.state for row in rows_of(made)] == ["succeeded", "refused"]


def test_without_the_right_on_the_server_each_is_skipped_with_the_grant(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
) -> None:
    version = server.major * 10000
    target = watch(server, operator_user="collector", server_version=version)
    user, names = person("operator"), [table(server) for _ in range(2)]
    made = previewed(user, target, names)

    batch.request(user, made, source="test")
    work_off(made)

    grant = "GRANT pg_maintain TO collector" if server.major >= 17 else "GRANT owner TO collector"
    assert [row.state for row in rows_of(made)] == ["skipped", "skipped"]
    assert all(grant in row.outcome for row in rows_of(made))


def test_who_may_not_asks_for_nothing(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
) -> None:
    name = table(embedded)
    made = previewed(person("operator"), acting, [name])

    with pytest.raises(PermissionDenied):
        previewed(person("viewer"), acting, [name])
    with pytest.raises(PermissionDenied):
        batch.request(person("dba"), made, source="test")
    assert not Action.objects.exclude(state="draft").exists()


def test_it_takes_harmless_actions_and_a_bounded_list(
    acting: Target, person: Callable[..., User]
) -> None:
    user = person("dba")
    one = {"database": "shop", "relid": "1"}
    many = [{"database": "shop", "relid": str(n)} for n in range(batch.AT_MOST + 1)]

    for name, tables in (("vacuum_full", [one]), ("vacuum", many)):
        with pytest.raises(InvalidArguments):
            batch.preview(user, acting, name, tables, {}, source="test")
    with pytest.raises(Refused, match="No table is due"):
        batch.preview(user, acting, "vacuum", [], {}, due=True, source="test")
    assert not Batch.objects.exists()


def test_asking_twice_is_asking_once_and_an_old_preview_is_refused(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
) -> None:
    user = person("operator")
    made, old = (previewed(user, acting, [table(embedded)]) for _ in range(2))
    Action.objects.filter(batch=old).update(created_at=timezone.now() - timedelta(minutes=11))

    batch.request(user, made, source="test")
    batch.request(user, made, source="test")
    with pytest.raises(Refused, match="older than 10 minutes"):
        batch.request(user, old, source="test")

    old.refresh_from_db()
    assert old.asked_at is None
    assert AuditEntry.objects.filter(what="vacuum.batch").count() == 1
    assert AuditEntry.objects.filter(what="vacuum", kind="intent").count() == 1


def test_an_option_that_the_version_lacks_is_refused_before_anything_is_sent(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
) -> None:
    target, user = watch(server, operator_user="operator"), person("operator")
    made = previewed(user, target, [table(server)], process_main="on")

    if server.major >= 16:
        assert rows_of(made)[0].preview["refused"] == ""
        return
    with pytest.raises(Refused, match="Nothing can be done to these tables"):
        batch.request(user, made, source="test")


def test_the_due_tables_are_those_that_are_past_their_threshold(
    embedded: Server, acting: Target, table: Callable[..., str]
) -> None:
    name, few = table(embedded), table(embedded)
    with embedded.connect(user="owner", dbname="shop") as owner:
        owner.execute(
            sql.SQL("INSERT INTO {} SELECT generate_series(1, 4000)").format(
                sql.Identifier(*name.split("."))
            )
        )
        owner.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(*name.split("."))))
        owner.execute("SELECT pg_stat_force_next_flush()")
        ids = dict(
            owner.execute(
                "SELECT n, n::regclass::oid::int8 FROM unnest(%s::text[]) AS n", [[name, few]]
            ).fetchall()
        )
    rounds.take_now(acting)
    acting.refresh_from_db()

    found = {one.relid: one for one in due.due_tables(acting)}

    assert found[ids[name]].database == "shop"
    assert found[ids[name]].n_dead_tup > 4000
    assert ids[few] not in found


@pytest.mark.django_db(transaction=True)
def test_twenty_workers_run_each_table_once_and_one_at_a_time(
    embedded: Server,
    acting: Target,
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Previewed,
    live: Callable[..., psycopg.Connection[Any]],
) -> None:
    user, names = person("operator"), [table(embedded) for _ in range(3)]
    made = previewed(user, acting, names)
    batch.request(user, made, source="test")
    ids = [str(row.pk) for row in rows_of(made)]
    since = embedded.log_size()

    def worker() -> None:
        try:
            for _ in range(3):
                for one in ids:
                    perform.perform(one)
        finally:
            history.close()

    threads = [threading.Thread(target=worker) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    work_off(made)

    rows = rows_of(made)
    assert [row.state for row in rows] == ["succeeded"] * 3
    assert embedded.log_text(since=since).count("statement: VACUUM") == 3
    spans = sorted(
        (row.started_at, row.finished_at) for row in rows if row.started_at and row.finished_at
    )
    assert len(spans) == 3
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
