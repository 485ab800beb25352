"""Asking for actions: who may, what is written down, and what happens once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.utils import timezone

from monitors.acting import ask as run, batch, limits, perform
from monitors.action import InvalidArguments, Refused
from monitors.models import Action, AuditEntry, Batch, Environment, Target
from tests.servers import Server

pytestmark = pytest.mark.django_db

Person = Callable[..., User]
Watch = Callable[..., Target]
Asked = Callable[..., Action]

CANCEL = {
    "pid": "4711",
    "backend_start": "2026-01-01 00:00:00.000001+00",
    "query_start": "2026-01-01 00:00:01+00",
}


@pytest.fixture
def target(embedded: Server, watch: Watch) -> Target:
    return watch(embedded, operator_user="operator")


def test_a_direct_action_is_queued_with_its_intent(target: Target, person: Person) -> None:
    user = person("operator")

    row = run.ask(user, target, "cancel_backend", CANCEL, reason="stuck", source="127.0.0.1")

    intent = AuditEntry.objects.get(action_id=row.pk)
    assert row.state == "queued"
    assert row.expires_at
    assert (intent.kind, intent.who, intent.source) == ("intent", user.username, "127.0.0.1")
    assert (intent.sql, intent.reason, intent.object_name) == (row.sql, "stuck", "pid 4711")
    assert "'2026-01-01 00:00:01.000000+00:00'::timestamptz" in row.sql


@pytest.mark.parametrize("role", ["", "viewer", "admin"])
def test_who_may_not_is_denied_and_written_down(role: str, target: Target, person: Person) -> None:
    user = person(role)

    with pytest.raises(PermissionDenied):
        run.ask(user, target, "cancel_backend", CANCEL, source="127.0.0.1")

    assert Action.objects.count() == 0
    assert AuditEntry.objects.get().result == "denied"


def test_an_operator_may_not_terminate_or_rewrite(target: Target, person: Person) -> None:
    for name, arguments in (
        ("terminate_backend", CANCEL),
        ("vacuum_full", {"database": "shop", "table": "public.t"}),
    ):
        with pytest.raises(PermissionDenied):
            run.preview(person("operator"), target, name, arguments, source="")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("enabled", False, "disabled"),
        ("frozen_reason", "Another server answers.", "frozen"),
        ("in_recovery", True, "standby"),
        ("operator_user", "", "no operator login"),
        ("deleting_at", timezone.now(), "being removed"),
        ("kind", "pgbouncer", "is a PgBouncer"),
    ],
)
def test_a_target_that_nothing_may_be_done_to_is_refused(
    target: Target, person: Person, field: str, value: object, says: str
) -> None:
    setattr(target, field, value)

    table = {"database": "shop", "table": "public.t"}

    with pytest.raises(Refused, match=says):  # a signal reaches a standby
        run.preview(person("dba"), target, "vacuum", table, source="")

    assert Action.objects.count() == 0
    assert AuditEntry.objects.get().result == "refused"


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("cancel_backend", {**CANCEL, "pid": "4711; DROP"}, "whole number"),
        (
            "cancel_backend",
            {**CANCEL, "pid": "99999999999999999999"},
            "pid is a whole number from 1 to 2,147,483,647, not '99999999999999999999'",
        ),
        ("cancel_backend", {"pid": "1", "backend_start": CANCEL["backend_start"]}, "query_start"),
        ("cancel_backend", {**CANCEL, "query_start": "yesterday"}, "microseconds"),
        ("cancel_backend", {**CANCEL, "query_start": "2026-01-01 00:00:00"}, "zone"),
        ("cancel_backend", {**CANCEL, "force": "1"}, "no argument force"),
        ("reboot", {}, "no action reboot"),
        ("vacuum", {"database": "shop", "table": "public.t"}, "preview"),
    ],
)
def test_arguments_that_make_no_sense_say_what_to_give(
    target: Target, person: Person, name: str, arguments: dict[str, str], says: str
) -> None:
    with pytest.raises(InvalidArguments, match=says):
        run.ask(person("dba"), target, name, arguments, source="")


def test_a_key_that_was_used_for_something_else_is_refused(target: Target, person: Person) -> None:
    user, key = person("operator"), uuid.uuid4()
    first = run.ask(user, target, "cancel_backend", CANCEL, idempotency_key=key, source="")

    again = run.ask(user, target, "cancel_backend", CANCEL, idempotency_key=key, source="")
    with pytest.raises(InvalidArguments, match="another request"):
        run.ask(
            user, target, "cancel_backend", {**CANCEL, "pid": "1"}, idempotency_key=key, source=""
        )
    with pytest.raises(InvalidArguments, match="another request"):
        run.ask(
            person("operator"), target, "cancel_backend", CANCEL, idempotency_key=key, source=""
        )

    assert again.pk == first.pk
    assert AuditEntry.objects.filter(kind="intent").count() == 1


def draft_of(
    user: User, target: Target, name: str = "vacuum", preview: dict[str, object] | None = None
) -> Action:
    """A draft whose preview has come."""
    draft = run.preview(
        user, target, name, {"database": "shop", "table": "public.t"}, source="test"
    )
    draft.preview = {"ready": True, "refused": "", **(preview or {})}
    draft.sql = "VACUUM t"
    draft.save()
    return draft


def test_a_request_is_queued_once(target: Target, person: Person) -> None:
    user = person("operator")
    draft = draft_of(user, target)

    first = run.request(user, draft, source="test")
    second = run.request(user, draft, source="test")

    assert first.pk == second.pk
    assert first.state == "queued"
    assert AuditEntry.objects.filter(action_id=draft.pk, kind="intent").count() == 1


def test_only_who_opened_a_preview_asks_for_it(target: Target, person: Person) -> None:
    draft = draft_of(person("operator"), target)

    with pytest.raises(PermissionDenied):
        run.request(person("dba"), draft, source="test")


@pytest.mark.parametrize(
    ("preview", "says"),
    [({"ready": False}, "not there yet"), ({"refused": "It is a view."}, "It is a view.")],
)
def test_a_preview_that_says_no_is_not_asked_for(
    target: Target, person: Person, preview: dict[str, object], says: str
) -> None:
    user = person("operator")

    with pytest.raises(Refused, match=says):
        run.request(user, draft_of(user, target, preview=preview), source="test")


def test_an_old_preview_says_nothing_about_now(target: Target, person: Person) -> None:
    user = person("operator")
    draft = draft_of(user, target)
    Action.objects.update(created_at=timezone.now() - timedelta(minutes=11))

    with pytest.raises(Refused, match="open it again"):
        run.request(user, draft, source="test")


def test_what_destroys_asks_for_a_confirmation(target: Target, person: Person) -> None:
    """AC-12."""
    user = person("dba")
    draft = draft_of(user, target, "vacuum_full")

    with pytest.raises(InvalidArguments, match="Confirm"):
        run.request(user, draft, confirmed=False, source="test")

    assert run.request(user, draft, confirmed=True, source="test").state == "queued"


def test_an_environment_may_ask_for_a_reason(target: Target, person: Person) -> None:
    Environment.objects.update(reason_required=True)
    target.refresh_from_db()
    user = person("operator")
    draft = draft_of(user, target)

    with pytest.raises(InvalidArguments, match="Say why"):
        run.request(user, draft, source="test")

    assert run.request(user, draft, reason="bloat", source="test").reason == "bloat"


@pytest.fixture
def protected(target: Target) -> Target:
    Environment.objects.update(protected=True)
    target.refresh_from_db()
    return target


def test_a_rewrite_on_a_protected_environment_waits_for_a_second_person(
    protected: Target, person: Person
) -> None:
    user, second = person("dba"), person("dba")
    row = run.request(user, draft_of(user, protected, "vacuum_full"), source="test")
    assert row.state == "waiting"
    perform.perform(str(row.pk))
    row.refresh_from_db()
    assert row.state == "waiting"

    with pytest.raises(PermissionDenied, match="Another person"):
        run.approve(user, row, "test")
    with pytest.raises(PermissionDenied):
        run.approve(person("operator"), row, "test")
    approved = run.approve(second, row, "test")
    with pytest.raises(Refused, match="no longer waits"):
        run.approve(person("dba"), row, "test")

    assert approved.state == "queued"
    assert approved.approved_by == second
    assert AuditEntry.objects.filter(what="vacuum_full.approve", who=second.username).exists()


def test_the_worker_asks_for_the_second_person_again(protected: Target, person: Person) -> None:
    user = person("dba")
    row = run.request(user, draft_of(user, protected, "vacuum_full"), source="test")
    Action.objects.update(state="queued", expires_at=timezone.now() + timedelta(minutes=1))

    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "refused"
    assert "second person" in row.outcome


def test_an_ordinary_vacuum_needs_no_second_person(protected: Target, person: Person) -> None:
    user = person("operator")

    assert run.request(user, draft_of(user, protected), source="test").state == "queued"


def test_stopping_what_has_not_begun_ends_it(target: Target, person: Person) -> None:
    user = person("operator")
    row = run.request(user, draft_of(user, target), source="test")

    stopped = run.stop(user, row, "test")
    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert stopped.state == row.state == "cancelled"
    assert AuditEntry.objects.get(action_id=row.pk, kind="outcome").result == "cancelled"
    with pytest.raises(Refused, match="over already"):
        run.stop(user, row, "test")


def test_who_may_not_ask_may_not_stop(target: Target, person: Person) -> None:
    user = person("operator")
    row = run.request(user, draft_of(user, target), source="test")

    with pytest.raises(PermissionDenied):
        run.stop(person("viewer"), row, "test")


def test_what_has_no_inverse_is_not_undone(target: Target, person: Person) -> None:
    user = person("operator")
    row = draft_of(user, target)

    with pytest.raises(Refused, match="can't be undone"):
        run.undo(user, row, "test")


def test_a_person_who_asks_without_end_waits_and_others_do_not(
    target: Target, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASKED_AT_MOST", 3)
    user, other, key = person("dba"), person("operator"), uuid.uuid4()
    vacuum = {"database": "shop", "table": "public.t"}
    run.ask(user, target, "cancel_backend", CANCEL, idempotency_key=key, source="test")
    for _ in range(2):
        run.preview(user, target, "vacuum", vacuum, source="test")

    said = "You asked for 2 previews and 1 action within a minute, and 3 is the limit: nothing was sent"
    for _ in range(2):
        with pytest.raises(limits.TooMany, match=said):
            run.preview(user, target, "vacuum", vacuum, source="test")
    with pytest.raises(limits.TooMany, match=said):
        batch.preview(user, target, "vacuum", [vacuum], {}, source="test")
    of_a_job = batch.preview(user, target, "vacuum", [vacuum], {}, source="job:nightly")
    assert of_a_job.asked_by == user
    same = run.ask(user, target, "cancel_backend", CANCEL, idempotency_key=key, source="test")
    assert same.idempotency_key == key  # the same click again asks for nothing new
    run.ask(other, target, "cancel_backend", CANCEL, source="test")
    assert AuditEntry.objects.filter(what=limits.LIMIT, who=user.username).count() == 1
    Action.objects.update(created_at=timezone.now() - timedelta(seconds=61))
    run.ask(user, target, "cancel_backend", CANCEL, source="test")


def test_the_limit_says_of_what_there_was_so_much(
    target: Target, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASKED_AT_MOST", 4)
    user = person("dba")
    vacuum = {"database": "shop", "table": "public.t"}
    run.request(user, draft_of(user, target), source="test")  # no preview any more
    run.preview(user, target, "vacuum", vacuum, source="test")
    batch.preview(user, target, "vacuum", [vacuum], {}, source="test")
    asked = batch.preview(user, target, "vacuum", [vacuum], {}, source="test")
    Batch.objects.filter(pk=asked.pk).update(asked_at=timezone.now())

    with pytest.raises(limits.TooMany) as refused:
        run.preview(user, target, "vacuum", vacuum, source="test")

    assert str(refused.value).startswith(
        "You asked for 2 previews, 1 action and 1 batch within a minute, and 4 is the limit:"
    )


@pytest.mark.parametrize("direct", [True, False])
def test_of_many_requests_at_once_no_more_than_the_limit_get_through(
    target: Target,
    person: Person,
    monkeypatch: pytest.MonkeyPatch,
    direct: bool,
    transactional_db: None,
) -> None:
    monkeypatch.setattr(limits, "ASKED_AT_MOST", 5)
    user = person("dba")
    vacuum = {"database": "shop", "table": "public.t"}

    def ask(_: int) -> str:
        try:
            if direct:
                run.ask(user, target, "cancel_backend", CANCEL, source="test")
            else:
                run.preview(user, target, "vacuum", vacuum, source="test")
        except limits.TooMany as error:
            return str(error)
        finally:
            connection.close()
        return ""

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(36)))

    assert Action.objects.count() == answers.count("") == 5
    [said] = set(answers) - {""}
    kind = "actions" if direct else "previews"
    assert said.startswith(f"You asked for 5 {kind} within a minute, and 5 is the limit:")
    assert AuditEntry.objects.filter(what=limits.LIMIT).count() == 1


def test_the_last_click_that_is_repeated_at_the_limit_is_the_same_action(
    target: Target, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other press may come between the look for a repetition and the count."""
    user, key = person("dba"), uuid.uuid4()
    monkeypatch.setattr(limits, "ASKED_AT_MOST", 1)
    look = run.repeated
    pressed: list[Action] = []

    def press() -> Action:
        return run.ask(user, target, "cancel_backend", CANCEL, idempotency_key=key, source="test")

    def look_before_the_other_press(*args: Any) -> Action | None:
        monkeypatch.setattr(run, "repeated", look)
        pressed.append(press())
        return None

    monkeypatch.setattr(run, "repeated", look_before_the_other_press)

    again = press()

    assert pressed == [again]
    assert Action.objects.count() == 1
