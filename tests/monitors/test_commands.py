"""The commands: one line of error, exit statuses, one line of JSON, the pages' own functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.utils import timezone
from psycopg import sql
from pytest_django import Settings

from dashboard.embedded import processes
from monitors.acting import perform
from monitors.management.commands import act
from monitors.models import (
    Action,
    AuditEntry,
    Environment,
    FindingRecord,
    Grant,
    Target,
    TargetSecret,
)
from monitors.people.access import PERMISSIONS
from tests.servers import Server

pytestmark = pytest.mark.django_db

Person = Callable[..., User]
Watch = Callable[..., Target]
Said = Callable[..., "Result"]
newest = pytest.mark.parametrize("server", [18], indirect=True, ids=str)


class Result:
    """What a command printed and how it left."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def one_line(self) -> str:
        assert self.err.count("\n") == 1, self.err
        return self.err


@pytest.fixture(autouse=True)
def environments() -> None:
    for name in ("production", "development"):
        Environment.objects.get_or_create(name=name)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def run(*words: object) -> Result:
        status = 0
        capsys.readouterr()
        try:
            call_command(*[str(word) for word in words])
        except SystemExit as left:
            status = int(left.code or 0)
        printed = capsys.readouterr()
        return Result(status, printed.out, printed.err)

    return run


@pytest.fixture
def password_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "password"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@newest
def test_a_target_is_checked_before_it_is_saved(
    server: Server, said: Said, password_file: Callable[[str], Path]
) -> None:
    words = ["target", "add", "orders", "--host", server.host, "--port", server.port]
    login = ["--user", "collector", "--password-file"]

    wrong = said(*words, *login, password_file("wrong\n"))
    right = said(
        *words, *login, password_file(server.password + "\n"), "--environment", "development",
        "--include", "shop*", "--exclude", "*_old", "--tag", "eu", "--interval", "tables=60",
        "--cores", "8",
    )  # fmt: skip

    assert (wrong.status, right.status) == (1, 0)
    assert "Password authentication failed" in wrong.one_line
    target = Target.objects.get()
    assert (target.include, target.exclude, target.tags) == (["shop*"], ["*_old"], ["eu"])
    assert (target.intervals, target.cores) == ({"tables": 60}, 8)
    assert target.environment.name == "development"
    assert "PostgreSQL 18" in right.out


def test_no_check_saves_unseen(said: Said, password_file: Callable[[str], Path]) -> None:
    result = said(
        "target", "add", "far", "--host", "192.0.2.1", "--user", "c",
        "--password-file", password_file("secret"), "--no-check",
    )  # fmt: skip

    assert result.status == 0
    target = Target.objects.get()
    assert (target.sslmode, target.cores) == ("verify-full", None)

    assert said("target", "edit", "far", "--cores", "5000").status == 2
    said("target", "edit", "far", "--cores", "4")
    assert json.loads(said("target", "list", "--json").out)[0]["cores"] == 4
    said("target", "edit", "far", "--cores", "0")
    assert json.loads(said("target", "list", "--json").out)[0]["cores"] is None


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["target"], 2, "verb"),
        (["target", "ad"], 2, "invalid choice"),
        (["target", "add", "x"], 2, "--host"),
        (["target", "add", "X", "--host", "h", "--user", "u", "--no-check"], 2, "lower-case"),
        (["target", "add", "x", "--host", "/tmp", "--user", "u", "--no-check"], 2, "one host"),
        (
            ["target", "add", "x", "--host", "h", "--user", "u", "--no-check", "--interval", "a=b"],
            2,
            "PROBE=SECONDS",
        ),
        (
            ["target", "add", "x", "--host", "h", "--user", "u", "--no-check", "--interval", "a=5"],
            2,
            "no probe a",
        ),
        (
            ["target", "add", "x", "--host", "h", "--user", "u", "--password-file", "/nowhere"],
            2,
            "/nowhere",
        ),
        (
            ["target", "add", "x", "--host", "h", "--user", "u", "--no-check",
             "--environment", "mars"],
            2,
            "no environment mars",
        ),
        (["target", "edit", "nobody", "--tag", "x"], 1, "no target nobody"),
        (["target", "check", "nobody", "--json"], 1, "no target nobody"),
        (["target", "remove", "nobody"], 1, "no target nobody"),
        (["person", "add", "x"], 2, "--password-file"),
        (["grant", "add", "nobody", "viewer"], 1, "no account nobody"),
        (["grant", "add", "nobody", "king"], 2, "no role king. Known: viewer,"),
        (["grant", "add", "x", "viewer", "--target", "a", "--environment", "b"], 2, "not allowed"),
        (["act", "reboot", "--target", "x", "--as", "y"], 2, "invalid choice"),
        (["act", "vacuum", "--target", "x"], 2, "--as"),
        (["act", "vacuum", "--target", "x", "--as", "y", "--arg", "z"], 2, "KEY=VALUE"),
        (["act", "vacuum", "--target", "x", "--as", "nobody"], 1, "no active account"),
        (["audit", "export", "--since", "yesterday"], 2, "not a time"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_that_says_what_to_do(
    said: Said, words: list[str], status: int, says: str
) -> None:
    result = said(*words)

    assert result.status == status
    assert says in result.one_line
    assert result.out == ""
    assert Target.objects.count() == 0


@newest
def test_targets_are_listed_changed_and_removed(server: Server, watch: Watch, said: Said) -> None:
    watch(server, name="orders")

    assert said("target", "list", "--json").json[0] == {
        **said("target", "list", "--json").json[0],
        "name": "orders",
        "host": server.host,
        "port": server.port,
        "environment": "development",
        "enabled": True,
    }
    assert said("target", "disable", "orders").status == 0
    assert said("target", "list", "--json").json[0]["enabled"] is False
    assert said("target", "enable", "orders").status == 0
    moved = said("target", "edit", "orders", "--port", "1")
    assert "No password is stored for collector" in moved.err
    assert TargetSecret.objects.count() == 0
    assert said("target", "edit", "orders").status == 2
    assert said("target", "remove", "orders", "--yes").status == 0
    assert said("target", "list", "--json").json == []


def test_removing_asks_for_the_name(
    said: Said, monkeypatch: pytest.MonkeyPatch, embedded: Server, watch: Watch
) -> None:
    watch(embedded, name="orders")
    monkeypatch.setattr("builtins.input", lambda: "other")

    assert said("target", "remove", "orders").status == 2
    monkeypatch.setattr("builtins.input", lambda: "orders")
    assert said("target", "remove", "orders").status == 0


@newest
def test_a_check_prints_what_works(server: Server, watch: Watch, said: Said) -> None:
    watch(server, name="orders", operator_user="operator")

    result = said("target", "check", "orders", "--json").json

    assert result["version"] // 10000 == 18
    assert result["in_recovery"] is False
    assert result["system_identifier"]
    assert {"name", "works", "needs"} <= set(result["probes"][0])
    assert {"name", "works", "needs"} <= set(result["actions"][0])


@newest
def test_without_the_private_key_a_check_says_so(
    server: Server, watch: Watch, said: Said, settings: Settings
) -> None:
    watch(server, name="orders")
    settings.PRIVATE_KEY = ""

    result = said("target", "check", "orders", "--json")

    assert result.status == 1
    assert "no private key" in result.one_line


def test_people_come_change_and_go(said: Said, password_file: Callable[[str], Path]) -> None:
    assert said("person", "add", "alice", "--password-file", password_file("short")).status == 2
    assert User.objects.count() == 0
    good = password_file("correct horse battery")
    assert said("person", "add", "alice", "--password-file", good).status == 0
    assert User.objects.get().check_password("correct horse battery")
    assert said("person", "add", "alice", "--password-file", good).status == 1
    better = password_file("another horse battery")
    assert said("person", "password", "alice", "--password-file", better).status == 0
    assert User.objects.get().check_password("another horse battery")
    assert said("person", "deactivate", "alice").status == 0
    assert said("person", "list", "--json").json == [
        {"name": "alice", "active": False, "last_login": None}
    ]
    assert said("person", "deactivate", "bob").status == 1
    assert [entry.what for entry in AuditEntry.objects.order_by("id")] == [
        "person.add",
        "person.password",
        "person.deactivate",
    ]


def test_grants_are_given_listed_and_taken(
    said: Said, person: Person, embedded: Server, watch: Watch
) -> None:
    watch(embedded, name="orders")
    person(name="alice")

    assert said("grant", "add", "alice", "viewer").status == 0
    assert said("grant", "add", "alice", "operator", "--target", "orders").status == 0
    assert said("grant", "add", "alice", "operator", "--target", "orders").status == 0
    assert said("grant", "add", "dbas", "dba", "--group", "--environment", "production").status == 0

    listed = said("grant", "list", "--json").json
    assert [(row["name"], row["role"], row["target"], row["environment"]) for row in listed] == [
        ("alice", "viewer", None, None),
        ("alice", "operator", "orders", None),
        ("dbas", "dba", None, "production"),
    ]
    assert Group.objects.get().name == "dbas"
    assert said("grant", "remove", "alice", "viewer").status == 0
    assert said("grant", "remove", "alice", "viewer").status == 1
    assert Grant.objects.count() == 2
    assert AuditEntry.objects.filter(what="grant.add").count() == 3
    assert AuditEntry.objects.filter(what="grant.remove").count() == 1


def test_roles_of_ones_own_come_change_and_go(said: Said, person: Person) -> None:
    person(name="ann")

    made = said("role", "add", "cancel-only", "--permissions", "cancel_backend", "--json").json
    assert (made["name"], made["permissions"]) == ("cancel-only", ["view", "cancel_backend"])
    given = said("grant", "add", "ann", "cancel-only", "--environment", "production")
    assert given.out == "ann is cancel-only on environment production.\n"
    told = said("role", "change", "cancel-only", "--permissions", "analyze, cancel_backend")
    assert told.out == "cancel-only includes view, cancel_backend, analyze.\n"
    held = said("role", "remove", "cancel-only")
    assert held.status == 1
    assert "cancel-only is given to ann on environment production." in held.one_line
    listed = {row["name"]: row for row in said("role", "list", "--json").json}
    assert list(listed) == ["viewer", "operator", "dba", "admin", "cancel-only"]
    assert (listed["cancel-only"]["grants"], listed["dba"]["own"]) == (1, False)

    said("grant", "remove", "ann", "cancel-only", "--environment", "production")
    assert said("role", "remove", "cancel-only", "--json").json["removed"] is True
    events = AuditEntry.objects.filter(what__startswith="role.").order_by("id")
    assert [one.what for one in events] == ["role.add", "role.change", "role.remove"]


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ("role add dba --permissions view", 2, "one of the roles that stand as they are"),
        ("role add x --permissions vaccum", 2, "There is no permission vaccum. Known: view,"),
        ("role add x --permissions ,", 2, "at least one permission"),
        ("role change dba --permissions view", 1, "one of the four that stand as they are"),
        ("role change x --permissions view", 1, "There is no role x: make it with role add."),
        ("role remove x", 1, "There is no role x"),
        ("grant add team king --group", 2, "There is no role king. Known: viewer,"),
        ("access --person nobody", 1, "There is no account nobody"),
        ("access --permission vaccum", 1, "There is no permission vaccum."),
    ],
)
def test_what_is_no_role_is_said_in_one_line(
    said: Said, words: str, status: int, sentence: str
) -> None:
    answer = said(*words.split())

    assert answer.status == status
    assert sentence in answer.one_line
    assert not Group.objects.exists()


def test_who_may_what_is_told_with_the_reason(
    said: Said, person: Person, embedded: Server, watch: Watch
) -> None:
    watch(embedded, name="orders")
    person("operator", name="ann")
    words = ["access", "--person", "ann", "--target", "orders"]

    rows = {row["permission"]: row for row in said(*words, "--json").json}

    assert set(rows) == set(PERMISSIONS)
    assert rows["vacuum"]["may"] is True
    assert rows["vacuum"]["granted_by"] == ["operator on everything"]
    assert "has no operator login" in rows["vacuum"]["hindered"]
    assert rows["reindex"]["lacks"] == "Needs reindex: dba."
    line = said(*words, "--permission", "reindex").out
    assert line == "ann  orders  reindex  no  Needs reindex: dba.\n"


@pytest.fixture
def target(server: Server, watch: Watch) -> Target:
    return watch(server, name="orders", operator_user="operator")


@pytest.fixture(autouse=True)
def no_worker_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody consumes the queues of this test run: don't wait long for it."""
    monkeypatch.setattr(act, "WORKER_SECONDS", 0.1)


@newest
def test_act_vacuums_and_prints_what_it_did(
    server: Server, target: Target, said: Said, person: Person, table: Callable[..., str]
) -> None:
    name = table(server, dead=100)
    person("operator", name="alice")

    result = said(
        "act", "vacuum", "--target", "orders", "--as", "alice", "--arg", "database=shop",
        "--arg", f"table={name}", "--arg", "analyze=true", "--reason", "bloat", "--wait", "--json",
    )  # fmt: skip

    assert result.status == 0
    assert result.json["outcome"] == "succeeded"
    assert result.json["action"] == "vacuum"
    assert result.json["target"] == "orders"
    assert result.json["sql"].startswith("VACUUM (ANALYZE)")
    assert result.json["before"]["n_dead_tup"] == 100
    assert result.json["after"]["n_dead_tup"] == 0
    row = Action.objects.get(pk=result.json["id"])
    assert row.reason == "bloat"
    assert [entry.kind for entry in AuditEntry.objects.order_by("id")] == ["intent", "outcome"]


def test_act_cancels_with_the_times_that_the_server_writes(
    server: Server,
    target: Target,
    said: Said,
    person: Person,
    sleeping: Callable[..., psycopg.Connection[Any]],
    active: Callable[[int], dict[str, str]],
) -> None:
    person("operator", name="alice")
    arguments = active(sleeping().info.backend_pid)
    words = [word for pair in arguments.items() for word in ("--arg", "=".join(pair))]
    command = ["act", "cancel_backend", "--target", "orders", "--as", "alice", *words, "--json"]

    first = said(*command, "--wait")
    second = said(*command, "--wait")

    assert (first.status, first.json["outcome"]) == (0, "succeeded")
    assert (second.status, second.json["outcome"]) == (3, "skipped")


@newest
def test_act_leaves_with_4_where_a_right_or_rule_forbids(
    server: Server, target: Target, said: Said, person: Person, table: Callable[..., str]
) -> None:
    name = table(server)
    person("viewer", name="bob")
    person("operator", name="alice")
    words = ["--target", "orders", "--arg", "database=shop", "--json", "--wait"]

    denied = said("act", "vacuum", "--as", "bob", "--arg", f"table={name}", *words)
    refused = said("act", "vacuum", "--as", "alice", "--arg", "table=pg_catalog.pg_class", *words)

    assert (denied.status, refused.status) == (4, 4)
    assert denied.json["outcome"] == refused.json["outcome"] == "refused"
    assert "vacuum on orders" in denied.json["reason"]
    assert "system catalog" in refused.json["reason"]
    assert {entry.result for entry in AuditEntry.objects.all()} == {"denied", "refused"}


def test_act_tells_a_script_too_that_a_target_could_not_be_asked(
    embedded: Server, watch: Watch, said: Said, person: Person
) -> None:
    nobody = replace(embedded, port=processes.free_port())
    target = watch(nobody, name="orders", operator_user="operator")
    person("operator", name="alice")

    asked = said(
        "act", "vacuum", "--target", target.name, "--as", "alice", "--arg", "database=shop",
        "--arg", "table=public.orders", "--wait", "--json",
    )  # fmt: skip

    assert (asked.status, asked.json["outcome"], asked.json["id"]) == (1, "unreachable", None)
    assert "could not be asked: Connection refused" in asked.json["reason"]
    assert asked.one_line.strip() == asked.json["reason"]
    assert not Action.objects.exclude(state=Action.State.DRAFT).exists()


def test_act_hides_a_target_that_one_may_not_see(
    server: Server, target: Target, said: Said, person: Person
) -> None:
    person(name="eve")

    hidden = said("act", "vacuum", "--target", "orders", "--as", "eve", "--json")
    missing = said("act", "vacuum", "--target", "ordersx", "--as", "eve", "--json")

    assert (hidden.status, missing.status) == (1, 1)
    assert hidden.one_line == missing.one_line.replace("ordersx", "orders")


@newest
def test_act_with_bad_arguments_is_bad_use(
    server: Server, target: Target, said: Said, person: Person
) -> None:
    person("operator", name="alice")

    result = said("act", "vacuum", "--target", "orders", "--as", "alice", "--arg", "force=true")

    assert result.status == 2
    assert "no argument force" in result.one_line


@newest
def test_act_without_a_worker_and_without_the_key_says_so(
    server: Server, target: Target, said: Said, person: Person, settings: Settings
) -> None:
    settings.PRIVATE_KEY = ""
    person("operator", name="alice")

    result = said(
        "act", "vacuum", "--target", "orders", "--as", "alice", "--arg", "database=shop",
        "--arg", "table=public.t",
    )  # fmt: skip

    assert result.status == 1
    assert "No worker answers" in result.one_line


@newest
def test_act_leaves_to_a_worker_what_a_worker_took(
    server: Server,
    target: Target,
    said: Said,
    person: Person,
    table: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker claims it in the very moment when the command gives up waiting."""
    name = table(server)
    person("operator", name="alice")
    really = perform.perform
    calls: list[str] = []

    def both(action_id: str) -> None:
        calls.append(action_id)
        really(action_id)
        really(action_id)

    monkeypatch.setattr(perform, "perform", both)
    since = server.log_size()

    result = said(
        "act", "vacuum", "--target", "orders", "--as", "alice", "--arg", "database=shop",
        "--arg", f"table={name}", "--wait", "--json",
    )  # fmt: skip

    assert result.status == 0
    assert len(calls) == 1
    assert server.log_text(since=since).count(f"statement: {result.json['sql']}") == 1


@newest
def test_several_tables_are_one_line_with_a_result_for_each(
    server: Server,
    said: Said,
    watch: Watch,
    person: Person,
    table: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No worker runs here: the command does it itself."""
    monkeypatch.setattr(act, "WORKER_SECONDS", 0.1)
    watch(server, name="orders", operator_user="operator")
    user, names = person("operator"), [table(server) for _ in range(2)]

    result = said(
        "act", "vacuum", "--target", "orders", "--as", user.username, "--arg", "database=shop",
        "--arg", "analyze=true", "--tables", *names, "public.never_was", "--wait", "--json",
    )  # fmt: skip

    assert result.status == 4
    assert result.json["states"] == {"succeeded": 2, "refused": 1}
    outcomes = [(one["object"], one["outcome"]) for one in result.json["results"]]
    assert outcomes == [
        (f"shop: {names[0]}", "succeeded"),
        (f"shop: {names[1]}", "succeeded"),
        ("shop: public.never_was", "refused"),
    ]
    assert result.json["results"][0]["sql"].startswith("VACUUM (ANALYZE)")


@newest
def test_nothing_due_is_refused_in_one_line(
    server: Server, said: Said, watch: Watch, person: Person
) -> None:
    watch(server, name="orders", operator_user="operator")
    words = ("act", "vacuum", "--target", "orders", "--as", person("operator").username)

    due = said(*words, "--due", "--json")
    both = said(*words, "--due", "--tables", "public.t")

    assert (due.status, due.json["reason"]) == (4, "No table is due.")
    assert both.status == 2


# Findings and thresholds


@pytest.fixture
def found(watch: Watch, server: Server) -> FindingRecord:
    now = timezone.now()
    return FindingRecord.objects.create(
        target=watch(server), advisor="dead_tuples", object_key="relation 1 2", severity=2, worst=3,
        object_name="public.t", title="public.t is due.", first_seen_at=now, opened_at=now,
        seen_at=now, hurts="half of it is dead; no date: it does not grow",
    )  # fmt: skip


@newest
def test_findings_are_listed_and_put_aside(said: Said, found: FindingRecord) -> None:
    assert said("finding", "list").out == (
        f"{found.pk}  warning  shop-1  public.t is due.\n"
        "    when it hurts: half of it is dead; no date: it does not grow\n"
    )
    [line] = said("finding", "list", "--json", "--target", "shop-1").json
    assert (line["id"], line["severity"], line["worst"]) == (found.pk, "warning", "critical")

    done = said("finding", "acknowledge", found.pk, "--reason", "We know.")
    assert done.out == f"Finding {found.pk} is acknowledged: public.t is due.\n"
    unread = "No open finding. shop-1: The server's settings have not been read.\n"
    assert said("finding", "list").out == unread
    Target.objects.filter(pk=found.target_id).update(settings={"track_counts": "on"})
    assert said("finding", "list").out == "Nothing to report. Good.\n"
    assert "(acknowledged)" in said("finding", "list", "--all").out
    done = said("finding", "snooze", found.pk, "--until", "2h", "--reason", "Later.")
    assert f"Finding {found.pk} is snoozed until 20" in done.out
    assert (
        said("finding", "reopen", found.pk).out == f"Finding {found.pk} is open: public.t is due.\n"
    )

    entries = AuditEntry.objects.filter(what__startswith="finding.").order_by("id")
    assert [one.what for one in entries] == [
        "finding.acknowledge",
        "finding.snooze",
        "finding.reopen",
    ]
    assert {one.source for one in entries} == {"command"}


@newest
@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("list", "--target", "x"), 1, "There is no target x."),
        (("acknowledge", "99999", "--reason", "a"), 1, "There is no finding 99999:"),
        (("acknowledge", "one", "--reason", "a"), 2, "'one' is not the number of a finding:"),
        (("acknowledge", "ID"), 2, "required: --reason"),
        (("acknowledge", "ID", "--reason", " "), 2, "reason: Give a reason"),
        (("snooze", "ID", "--reason", "a", "--until", "soon"), 2, "until: 'soon' is neither"),
        (("snooze", "ID", "--reason", "a", "--until", "2020-01-01"), 2, "within the next year"),
        (("reopen", "ID"), 2, "is open already"),
    ],
)
def test_a_finding_that_can_not_be_put_aside_is_said_in_one_line(
    said: Said, found: FindingRecord, words: tuple[str, ...], status: int, sentence: str
) -> None:
    result = said("finding", *(str(found.pk) if word == "ID" else word for word in words))

    assert result.status == status
    assert sentence in result.one_line
    assert not AuditEntry.objects.filter(what__startswith="finding.").exists()


@newest
def test_thresholds_are_listed_set_and_reset(said: Said, watch: Watch, server: Server) -> None:
    watch(server)
    name = ("blocked", "warning_seconds")

    assert said("threshold", "set", *name, "9").out == "blocked.warning_seconds is 9, from fleet.\n"
    done = said("threshold", "set", "--environment", "development", *name, "8")
    assert done.out == "blocked.warning_seconds is 8, from environment development.\n"
    done = said("threshold", "set", "--target", "shop-1", *name, "7.5")
    assert done.out == "blocked.warning_seconds is 7.5, from target shop-1.\n"
    lines = said("threshold", "list", "--target", "shop-1").out.splitlines()
    assert "blocked  warning_seconds  7.5  target shop-1" in lines
    done = said("threshold", "reset", "--target", "shop-1", *name)
    assert done.out == "blocked.warning_seconds is 8, from environment development.\n"
    rows = said("threshold", "list", "--json").json
    assert [row["value"] for row in rows if row["source"] == "fleet"] == [9]
    assert AuditEntry.objects.filter(what__startswith="threshold.").count() == 4


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("set", "bloked", "warning_seconds", "1"), 2, "There is no advisor bloked."),
        (("set", "blocked", "warn", "1"), 2, "blocked has no threshold warn."),
        (("set", "blocked", "warning_seconds", "many"), 2, "'many' is no number"),
        (("set", "blocked", "warning_seconds"), 2, "required: value"),
        (("reset", "blocked", "warn"), 2, "blocked has no threshold warn."),
        (("list", "--environment", "moon"), 1, "There is no environment moon."),
        (("list", "--target", "x"), 1, "There is no target x."),
    ],
)
def test_a_threshold_that_makes_no_sense_is_said_in_one_line(
    said: Said, words: tuple[str, ...], status: int, sentence: str
) -> None:
    result = said("threshold", *words)

    assert result.status == status
    assert sentence in result.one_line


@newest
def test_a_snapshot_by_command_keeps_findings_too(
    said: Said, watch: Watch, server: Server, blocked: Callable[[Server], Any]
) -> None:
    watch(server)
    queue = blocked(server)

    said("snapshot", "shop-1", "--probe", "activity")

    assert FindingRecord.objects.filter(advisor="blocked", pid=queue.root_pid).exists()


@newest
def test_a_name_ends_no_line_and_moves_no_cursor(
    said: Said, watch: Watch, server: Server, worker_id: str
) -> None:
    name = f"two\nlines\x1b[2J\u202e{worker_id}"
    database = sql.Identifier(name)
    with server.connect() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(database))
        try:
            watch(server, include=["two*"])
            said("snapshot", "shop-1", "--probe", "databases")
            result = said("snapshot", "shop-1", "--probe", "tables")
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))

    (line,) = [line for line in result.out.splitlines() if "two" in line]
    assert f"two\\nlines\\x1b[2J\\u202e{worker_id}: " in line
    assert all(line.startswith("tables") for line in result.out.splitlines())


@pytest.mark.parametrize(
    "words",
    [
        ("snapshot", "\udcff"),
        ("target", "list", "--environment", "\udcff"),
        ("audit", "export", "--person", "\udcff"),
        ("act", "vacuum", "--target", "x", "--set", "table=\udcff"),
        ("settings", "\udcff"),
    ],
)
def test_a_word_that_is_no_text_is_bad_use(said: Said, words: tuple[str, ...]) -> None:
    result = said(*words)

    assert result.status == 2
    assert "\udcff" not in result.one_line
