"""Targets come, change and go; passwords never follow an address that changed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from monitors.history import partitions
from monitors.models import (
    HISTORY,
    AuditEntry,
    Environment,
    Snapshot,
    Target,
    TargetCheck,
    TargetSecret,
)
from monitors.pg import hosts
from monitors.pg.connect import Address, open_target
from monitors.pg.errors import Unreachable
from monitors.targets import check, drafts, register as registration, remove, secrets

pytestmark = pytest.mark.django_db

Login = TargetSecret.Login
CANARY = "canary-4711"


@pytest.fixture(autouse=True)
def environments() -> None:
    for name in ("production", "staging"):
        Environment.objects.get_or_create(name=name)


def register(**fields: Any) -> Target:
    given = {"name": "orders", "host": "127.0.0.1", "user": "collector", "password": CANARY}
    return registration.add("alice", "test", **{**given, **fields})


def stored(target: Target) -> set[str]:
    return set(TargetSecret.objects.filter(target=target).values_list("login", flat=True))


def password_of(target: Target, login: str) -> str:
    row = TargetSecret.objects.get(target=target, login=login)
    user = registration.login_user(target, login)
    return secrets.unseal_password(bytes(row.sealed), row.key_id, target.host, target.port, user)


def test_a_new_target_is_saved_with_sealed_passwords_and_an_audit_row() -> None:
    target = register(operator_user="operator", operator_password="other", tags=["eu"])

    assert password_of(target, "collector") == CANARY
    assert password_of(target, "operator") == "other"
    entry = AuditEntry.objects.get(what="target.add")
    assert (entry.who, entry.target_name, entry.detail["address"]) == (
        "alice",
        "orders",
        "127.0.0.1:5432",
    )
    assert CANARY not in str(entry.detail)
    assert target.environment.name == "production"


def test_loopback_needs_no_tls_and_all_others_verify_it() -> None:
    assert register().sslmode == "disable"
    assert register(name="far", host="192.0.2.1").sslmode == "verify-full"
    assert register(name="said", host="192.0.2.1", sslmode="require").sslmode == "require"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Orders"),
        ("name", "new"),
        ("name", ""),
        ("host", ""),
        ("port", 0),
        ("port", 70000),
        ("user", ""),
        ("environment", "nowhere"),
        ("sslmode", "maybe"),
        ("require_auth", "a b"),
        ("intervals", {"tabels": 5}),
        ("intervals", {"tables": 0}),
        ("intervals", {"tables": float("nan")}),
        ("intervals", {"tables": True}),
    ],
)
def test_what_is_wrong_is_said_at_its_field(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as raised:
        register(**{field: value})

    assert field in raised.value.message_dict
    assert Target.objects.count() == 0
    assert AuditEntry.objects.count() == 0


FORBIDDEN = [
    "127.0.0.1",
    "::1",
    "0x7f000001",
    "2130706433",
    "127.1",
    "localhost",
    "localhost.",
    "169.254.169.254",
    "fe80::1",
    "::ffff:127.0.0.1",
    "[::ffff:127.0.0.1]",
    "0.0.0.0",
    "::",
    "/var/run/postgresql",
    "@abstract",
    "a,b",
    "db host=evil",
    "224.0.0.1",
]


@pytest.mark.parametrize("host", FORBIDDEN)
def test_a_forbidden_address_is_refused_at_save_and_at_connect(
    settings: Settings, host: str
) -> None:
    """TR-01."""
    settings.ALLOW_LOOPBACK_TARGETS = False
    address = Address(host, 5432, "collector", "postgres", "disable", "", CANARY)

    with pytest.raises(ValidationError) as raised:
        register(host=host)
    with pytest.raises(Unreachable):
        open_target(
            address, purpose="test", statement_timeout_ms=1, lock_timeout_ms=1, read_only=True
        )

    assert "host" in raised.value.message_dict


def test_a_name_that_resolves_to_both_kinds_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TR-01: one forbidden address is enough."""
    settings.ALLOW_LOOPBACK_TARGETS = False
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
        for address in ("192.0.2.7", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)

    with pytest.raises(Unreachable, match="loopback"):
        hosts.allowed_address("db.example.org")
    with pytest.raises(ValidationError):
        register(host="db.example.org")


def test_a_network_that_was_allowed_is_allowed(settings: Settings) -> None:
    settings.ALLOW_LOOPBACK_TARGETS = False
    settings.ALLOWED_TARGET_NETWORKS = ["127.0.0.0/30", "169.254.0.0/16"]

    assert hosts.allowed_address("127.0.0.1") == "127.0.0.1"
    assert hosts.allowed_address("169.254.169.254") == "169.254.169.254"
    with pytest.raises(Unreachable):
        hosts.allowed_address("127.0.0.9")


def test_a_private_address_is_an_ordinary_one(settings: Settings) -> None:
    settings.ALLOW_LOOPBACK_TARGETS = False

    assert hosts.allowed_address("10.1.2.3") == "10.1.2.3"
    assert hosts.allowed_address("fd12::5") == "fd12::5"


@pytest.mark.parametrize(
    "change",
    [
        {"host": "127.0.0.2"},
        {"port": 5433},
        {"sslmode": "prefer"},
        {"require_auth": "password"},
    ],
)
def test_a_new_address_forgets_both_passwords(change: dict[str, Any]) -> None:
    """DR-04."""
    target = register(operator_user="operator", operator_password="other")

    registration.edit("alice", "test", target, **change)

    assert stored(target) == set()
    entry = AuditEntry.objects.get(what="target.edit")
    assert entry.detail["cleared"] == ["collector", "operator"]
    assert list(entry.detail["changed"]) == list(change)


def test_a_new_user_forgets_that_login_alone() -> None:
    target = register(operator_user="operator", operator_password="other")

    registration.edit("alice", "test", target, operator_user="somebody")

    assert stored(target) == {"collector"}


def test_a_password_given_with_the_new_address_is_stored_for_it() -> None:
    target = register(operator_user="operator", operator_password="other")

    changed = registration.edit("alice", "test", target, port=5433, password="new")

    assert stored(target) == {"collector"}
    assert password_of(changed, "collector") == "new"


def test_what_changes_nothing_of_the_address_keeps_the_passwords() -> None:
    target = register()

    changed = registration.edit(
        "alice", "test", target, tags=["eu"], environment="staging", intervals={"tables": 60}
    )

    assert stored(target) == {"collector"}
    assert (changed.tags, changed.environment.name) == (["eu"], "staging")


def test_an_empty_password_is_forgotten() -> None:
    target = register()

    registration.edit("alice", "test", target, password="")

    assert stored(target) == set()


def test_the_name_is_never_changed() -> None:
    with pytest.raises(ValidationError):
        registration.edit("alice", "test", register(), name="other")


def test_a_target_at_a_new_address_accepts_its_new_server() -> None:
    target = register()
    Target.objects.update(system_identifier="1", frozen_reason="Another server answers.")

    registration.edit("alice", "test", target, port=5433)

    target.refresh_from_db()
    assert (target.system_identifier, target.frozen_reason) == ("", "")


def test_disabling_and_enabling_are_written_down() -> None:
    target = register()

    registration.disable("alice", "test", target)
    assert not Target.objects.get().enabled
    registration.enable("alice", "test", target)

    assert Target.objects.get().enabled
    assert [entry.what for entry in AuditEntry.objects.order_by("id")] == [
        "target.add",
        "target.disable",
        "target.enable",
    ]


def fill(target: Target, *, hours: int) -> None:
    """Give a target a few hours of history in some tables."""
    now = timezone.now()
    history = HISTORY["databases"]
    for hour in range(hours):
        at = now - timedelta(hours=hour)
        for model in (history.samples, Snapshot):
            partitions.ensure_for(model, at)
        history.samples._default_manager.create(
            target_id=target.pk, database_id=0, datid=1, taken_at=at, target_at=at, change=0
        )
        Snapshot.objects.create(
            target_id=target.pk,
            database_id=0,
            probe="databases",
            taken_at=at,
            state="ok",
            interval_seconds=60,
        )
    history.latest._default_manager.create(
        target_id=target.pk, database_id=0, datid=1, since_at=now, changed_at=now
    )


def test_removing_a_target_removes_its_history_and_nobody_elses() -> None:
    target, other = register(), register(name="other")
    fill(target, hours=3)
    fill(other, hours=1)

    registration.remove("alice", "test", target)
    assert stored(target) == set()
    remove.delete_target(target.pk)
    remove.delete_target(target.pk)  # a message that comes twice

    assert list(Target.objects.all()) == [other]
    history = HISTORY["databases"]
    for model in (history.samples, history.latest, Snapshot):
        assert set(model._default_manager.values_list("target_id", flat=True)) == {other.pk}
    assert AuditEntry.objects.filter(what="target.remove", target_name="orders").exists()


@pytest.mark.parametrize("begun", [False, True])
def test_a_check_of_a_target_that_is_removed_meanwhile_ends_quietly(
    person: Callable[..., User], monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    target = register()
    asked = drafts.ask_check(person("admin"), target=target)

    def delete(*_: object) -> dict[str, Any]:
        registration.remove("alice", "test", target)
        remove.delete_target(target.pk)
        return {}

    monkeypatch.setattr(check, "check", delete)
    if not begun:
        delete()
    check.carry_out(str(asked.pk))

    assert not TargetCheck.objects.filter(pk=asked.pk).exists()


def test_a_target_that_is_not_marked_is_not_deleted() -> None:
    target = register()

    remove.delete_target(target.pk)

    assert Target.objects.filter(pk=target.pk).exists()


def test_a_check_of_a_draft_holds_its_passwords_sealed(person: Callable[..., User]) -> None:
    draft = {"host": "127.0.0.1", "port": 5432, "user": "collector"}

    check = drafts.ask_check(
        person("admin"), draft=draft, passwords={"collector": CANARY, "operator": ""}
    )

    row = TargetCheck.objects.get(pk=check.pk)
    assert set(row.sealed) == {"collector"}
    assert CANARY not in str(row.sealed) + str(row.draft)


@pytest.mark.parametrize("host", ["/tmp", "a,b", ""])
def test_a_draft_that_may_not_be_connected_to_is_refused(
    person: Callable[..., User], host: str
) -> None:
    with pytest.raises(ValidationError):
        drafts.ask_check(person("admin"), draft={"host": host, "user": "c"})

    assert TargetCheck.objects.count() == 0


def test_a_person_may_ask_for_ten_checks_a_minute(person: Callable[..., User]) -> None:
    user, other = person("admin"), person("admin")
    draft = {"host": "127.0.0.1", "user": "c"}
    for _ in range(drafts.CHECKS_AT_MOST):
        drafts.ask_check(user, draft=draft)

    with pytest.raises(ValidationError, match="10 is the limit: wait a minute"):
        drafts.ask_check(user, draft=draft)

    assert drafts.ask_check(other, draft=draft).asked_by == other


@pytest.mark.django_db(transaction=True)
def test_of_many_checks_at_once_no_more_than_the_limit_get_through(
    person: Callable[..., User],
) -> None:
    user, draft = person("admin"), {"host": "127.0.0.1", "user": "c"}

    def ask(_: int) -> str:
        try:
            drafts.ask_check(user, draft=draft)
        except ValidationError as error:
            return str(error.messages)
        finally:
            connection.close()
        return ""

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(24)))

    assert TargetCheck.objects.count() == answers.count("") == drafts.CHECKS_AT_MOST
    assert all("You asked for 10 checks" in said for said in set(answers) - {""})
