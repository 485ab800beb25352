"""The audit: whole, only ever added to, and read by those who may."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction

from monitors.audit import chain, entries as audit
from monitors.models import Action, AuditEntry, Environment, Target
from monitors.people import access

pytestmark = pytest.mark.django_db

Person = Callable[..., User]


def entries(count: int) -> list[AuditEntry]:
    return [audit.add("login", f"person {n}", "127.0.0.1", tries=n) for n in range(count)]


def change(statement: str) -> None:
    """Do what Howdah never does, behind the triggers' back."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE monitors_auditentry DISABLE TRIGGER ALL")
        cursor.execute(statement)
        cursor.execute("ALTER TABLE monitors_auditentry ENABLE ALWAYS TRIGGER audit_unchanged")


def test_each_entry_holds_the_hash_of_the_one_before() -> None:
    first, second, third = entries(3)

    assert (second.previous_hash, third.previous_hash) == (first.hash, second.hash)
    assert audit.verify() is None


def test_an_empty_audit_is_whole() -> None:
    assert audit.verify() is None


@pytest.mark.parametrize(
    "assignment",
    ["who = 'nobody'", "result = 'x'", "at = at - interval '1 us'", "detail = '{\"tries\": 7}'"],
)
def test_a_changed_entry_is_found(assignment: str) -> None:
    _, second, _ = entries(3)

    change(f"UPDATE monitors_auditentry SET {assignment} WHERE id = {second.pk}")

    assert audit.verify() == second.pk


def test_a_removed_entry_is_found_at_the_next() -> None:
    first, second, third = entries(3)

    change(f"DELETE FROM monitors_auditentry WHERE id = {second.pk}")
    assert audit.verify() == third.pk

    change(f"DELETE FROM monitors_auditentry WHERE id = {first.pk}")
    assert audit.verify() == third.pk


def test_an_entry_that_was_hashed_anew_breaks_the_next() -> None:
    _, second, third = entries(3)
    second.who = "nobody"

    change(
        f"UPDATE monitors_auditentry SET who = 'nobody', hash = '{chain.hash_of(second)}'"
        f" WHERE id = {second.pk}"
    )

    assert audit.verify() == third.pk


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE monitors_auditentry SET who = 'nobody'",
        "DELETE FROM monitors_auditentry",
        "TRUNCATE monitors_auditentry",
    ],
)
@pytest.mark.parametrize("replica", [False, True])
def test_the_server_itself_refuses_to_change_it(statement: str, replica: bool) -> None:
    entries(1)
    with connection.cursor() as cursor:
        # Tests that empty all tables have switched this one off.
        cursor.execute("ALTER TABLE monitors_auditentry ENABLE ALWAYS TRIGGER audit_not_emptied")
        if replica:
            cursor.execute("SET LOCAL session_replication_role = replica")

    with (
        pytest.raises(DatabaseError, match="only ever added to"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)

    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize(
    "value",
    [
        {"text": 'quotes " and \\ and \x00 and \ud800'},
        {"float": 0.1, "whole": 2.0, "big": 1e300, "nan": float("nan")},
        {"deep": [{"b": 1, "a": None, "c": True}], "at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"": "", "ümlaut": "→"},
    ],
)
def test_any_detail_survives_its_way_through_the_database(value: dict[str, object]) -> None:
    audit.add("x", "person", "", given=value)

    assert audit.verify() is None


def test_what_is_too_long_is_cut_and_still_whole() -> None:
    entry = audit.add("x" * 100, "w" * 500, "s" * 500, reason="r" * 5000)

    assert (len(entry.what), len(entry.who), len(entry.reason)) == (60, 150, 500)
    assert audit.verify() is None


def test_the_chain_holds_when_many_write_at_once(transactional_db: None) -> None:
    def write() -> None:
        for _ in range(5):
            audit.add("login", "somebody", "")
        connection.close()

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert AuditEntry.objects.count() == 30
    assert audit.verify() is None


def test_an_action_has_an_intent_and_an_outcome() -> None:
    row = Action(
        name="vacuum", target_name="orders", object_name="shop: public.t", sql="VACUUM t",
        asked_by_name="alice", asked_from="127.0.0.1", reason="bloat",
    )  # fmt: skip

    audit.add_intent(row)
    row.state, row.outcome, row.effect = Action.State.SUCCEEDED, "Done.", "size unchanged"
    audit.add_outcome(row)

    outcome, intent = AuditEntry.objects.all()
    assert (intent.kind, intent.sql, intent.reason) == ("intent", "VACUUM t", "bloat")
    assert (outcome.kind, outcome.result, outcome.reason) == ("outcome", "succeeded", "Done.")
    assert outcome.detail["effect"] == "size unchanged"
    assert {intent.action_id, outcome.action_id} == {row.pk}
    assert audit.verify() is None


def test_people_read_what_is_theirs(person: Person) -> None:
    environment, _ = Environment.objects.get_or_create(name="staging")
    target = Target.objects.create(name="orders", host="h", user="u", environment=environment)
    dba, viewer = person("dba", target=target), person("viewer")
    audit.add("vacuum", "alice", "", target_name="orders")
    audit.add("vacuum", "alice", "", target_name="other")
    audit.add("login", viewer.username, "")

    def read(user: User) -> list[tuple[str, str]]:
        return [(entry.what, entry.target_name) for entry in access.visible_entries(user)]

    assert read(dba) == [("vacuum", "orders")]
    assert read(viewer) == [("login", "")]
    assert len(read(person("admin"))) == 3
    assert read(person()) == []


def test_the_command_says_whether_it_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    _, second, _ = entries(3)
    call_command("audit", "verify", "--json")
    whole = json.loads(capsys.readouterr().out)
    change(f"UPDATE monitors_auditentry SET who = 'nobody' WHERE id = {second.pk}")

    with pytest.raises(SystemExit) as left:
        call_command("audit", "verify", "--json")

    said = capsys.readouterr()
    assert whole["whole"] is True
    assert whole["entries"] == 3
    assert left.value.code == 1
    assert json.loads(said.out)["first_broken"] == second.pk
    assert said.err.count("\n") == 1


def test_the_command_exports_all_entries(capsys: pytest.CaptureFixture[str]) -> None:
    audit.add("login", "=cmd()", "", target_name="orders")
    audit.add("logout", "bob", "")

    call_command("audit", "export")
    listed = json.loads(capsys.readouterr().out)
    call_command("audit", "export", "--format", "csv", "--target", "orders")
    lines = capsys.readouterr().out.splitlines()

    assert [row["what"] for row in listed] == ["login", "logout", "export"]
    assert listed[1]["previous_hash"] == listed[0]["hash"]
    assert len(lines) == 2
    assert ",'=cmd()," in lines[1]  # no formula for a spreadsheet
