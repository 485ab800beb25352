"""Targets come, change and go: every change is checked, sealed and in the audit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from monitors import queue
from monitors.audit import entries
from monitors.kinds import PGBOUNCER, POSTGRES
from monitors.models import (
    Environment,
    Lease,
    ProbeState,
    Target,
    TargetSecret,
)
from monitors.pg import hosts
from monitors.pg.errors import Unreachable
from monitors.probes import probes_of
from monitors.targets.remove import DELETE_SECONDS
from monitors.targets.secrets import SecretUnreadable, seal_password

log = logging.getLogger(__name__)

FIELDS = (
    "host",
    "port",
    "dbname",
    "user",
    "operator_user",
    "allow_superuser",
    "sslmode",
    "require_auth",
    "include",
    "exclude",
    "environment",
    "tags",
    "intervals",
    "cores",
    "demo",
)
"""What `edit` may change; name and kind never."""
USUAL = {POSTGRES: (5432, "postgres"), PGBOUNCER: (6432, "pgbouncer")}
"""Port and entry database where none is given."""
ADDRESS = ("host", "port", "sslmode", "require_auth")
"""Changing one of these clears both passwords: they would go to somebody else."""
SHORTEST_SECONDS = 1
LONGEST_SECONDS = 24 * 3600

Login = TargetSecret.Login


def add(  # noqa: PLR0913 - one keyword a field
    user_name: str,
    source: str,
    *,
    name: str,
    kind: str = Target.Kind.POSTGRES,
    host: str,
    port: int | None = None,
    dbname: str | None = None,
    user: str,
    password: str = "",
    operator_user: str = "",
    operator_password: str = "",
    environment: str = "production",
    sslmode: str | None = None,
    require_auth: str = "",
    include: tuple[str, ...] | list[str] = (),
    exclude: tuple[str, ...] | list[str] = (),
    tags: tuple[str, ...] | list[str] = (),
    intervals: Mapping[str, float] | None = None,
    cores: int | None = None,
    demo: bool = False,
    allow_superuser: bool = False,
) -> Target:
    """Save a new target with its passwords sealed; connects to nothing.

    Raises ValidationError with a message for each field. Passwords that are
    empty are not stored.
    """
    target = Target(name=name, kind=kind, demo=demo)
    usual_port, usual_dbname = USUAL.get(kind, USUAL[POSTGRES])
    assign(
        target,
        {
            "host": host,
            "port": usual_port if port is None else port,
            "dbname": usual_dbname if dbname is None else dbname,
            "user": user,
            "operator_user": operator_user,
            "allow_superuser": allow_superuser,
            "sslmode": sslmode or default_sslmode(host),
            "require_auth": require_auth,
            "include": list(include),
            "exclude": list(exclude),
            "environment": environment,
            "tags": list(tags),
            "intervals": dict(intervals or {}),
            "cores": cores,
        },
    )
    validate(target)
    with transaction.atomic():
        target.save()
        given = {Login.COLLECTOR: password, Login.OPERATOR: operator_password}
        store_passwords(target, {login: text for login, text in given.items() if text})
        entries.add(
            "target.add",
            user_name,
            source,
            target_name=target.name,
            address=target.address,
            kind=target.kind,
            fields=described(target),
            passwords=sorted(login.value for login, text in given.items() if text),
        )
    return target


def edit(
    user_name: str,
    source: str,
    target: Target,
    *,
    password: str | None = None,
    operator_password: str | None = None,
    **fields: Any,
) -> Target:
    """Change a target; a password of None stays, '' is forgotten.

    A new host, port, TLS mode or authentication clears both stored passwords,
    a new user that login's, unless a new one is given here. Raises
    ValidationError with a message for each field.
    """
    with transaction.atomic():
        target = Target.objects.select_for_update(of=("self",)).get(pk=target.pk)
        before = described(target)
        assign(target, fields)
        validate(target)
        after = described(target)
        changed = {
            name: [before[name], after[name]] for name in after if before[name] != after[name]
        }
        given = {Login.COLLECTOR: password, Login.OPERATOR: operator_password}
        cleared = cleared_logins(set(changed)) - {
            login for login, text in given.items() if text is not None
        }
        if changed.keys() & {"host", "port"}:
            forget_identity(target)
        target.save()
        forget_passwords(target, cleared | {login for login, text in given.items() if text == ""})
        store_passwords(target, {login: text for login, text in given.items() if text})
        reset_circuit(target, timezone.now())
        entries.add(
            "target.edit",
            user_name,
            source,
            target_name=target.name,
            changed=changed,
            passwords=sorted(login.value for login, text in given.items() if text),
            cleared=sorted(login.value for login in cleared),
        )
    return target


def enable(user_name: str, source: str, target: Target) -> None:
    """Watch a target again; a target that was frozen accepts the server that answers now."""
    with transaction.atomic():
        target.enabled = True
        if target.frozen_reason:
            forget_identity(target)
        target.save()
        reset_circuit(target, timezone.now())
        entries.add("target.enable", user_name, source, target_name=target.name)


def disable(user_name: str, source: str, target: Target) -> None:
    """Stop reading a target and acting on it; its history stays."""
    with transaction.atomic():
        target.enabled = False
        target.save(update_fields=["enabled"])
        entries.add("target.disable", user_name, source, target_name=target.name)


def remove(user_name: str, source: str, target: Target) -> bool:
    """Hide a target and have a worker delete it with all its history.

    Returns False when the broker did not take the task: the sweep asks again.
    """
    with transaction.atomic():
        target.enabled = False
        target.deleting_at = timezone.now()
        target.save(update_fields=["enabled", "deleting_at"])
        TargetSecret.objects.filter(target=target).delete()
        entries.add(
            "target.remove", user_name, source, target_name=target.name, address=target.address
        )
    return queue.send("delete_target", target.pk, queue="requests", expires=DELETE_SECONDS)


def assign(target: Target, fields: Mapping[str, Any]) -> None:
    """Set fields of an unsaved or locked target; the environment by its name."""
    for name, value in fields.items():
        if name not in FIELDS:
            raise ValidationError({name: f"A target's {name} can't be changed."})
        if name == "environment" and isinstance(value, str):
            setattr(target, name, environment_named(value))
        elif name == "sslmode" and not value:
            target.sslmode = default_sslmode(target.host)
        else:
            setattr(target, name, value)


def environment_named(name: str) -> Environment:
    """Return an environment; raises ValidationError that names those there are."""
    found = Environment.objects.filter(name=name).first()
    if found is None:
        known = ", ".join(Environment.objects.values_list("name", flat=True)) or "none yet"
        raise ValidationError({"environment": f"There is no environment {name}. Known: {known}."})
    return found


def default_sslmode(host: str) -> str:
    """Return `disable` for this machine itself, else `verify-full`."""
    return Target.SSLMode.DISABLE if hosts.is_loopback(host) else Target.SSLMode.VERIFY_FULL


def validate(target: Target) -> None:
    """Raise ValidationError with all that is wrong with a target, by field."""
    problems: dict[str, list[str]] = {}
    try:
        target.full_clean()
    except ValidationError as error:
        problems = dict(error.message_dict)
    try:
        hosts.check_host(target.host)
    except Unreachable as error:
        problems.setdefault("host", []).append(str(error))
    wrong = wrong_intervals(target.intervals, target.kind)
    if wrong:
        problems.setdefault("intervals", []).append(wrong)
    if any("\x00" in text for text in (target.user, target.operator_user, target.dbname)):
        problems.setdefault("user", []).append("Names can't contain a NUL character.")
    if problems:
        raise ValidationError(problems)


def wrong_intervals(intervals: Any, kind: str) -> str:
    """Return what is wrong with {probe: seconds} of a kind of target, '' where nothing is."""
    names = {probe.name for probe in probes_of(kind)}
    if not isinstance(intervals, dict):
        return "Intervals are given as probe=seconds."
    for name, seconds in intervals.items():
        if name not in names:
            return f"There is no probe {name}. Known: {', '.join(sorted(names))}."
        if (
            isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS
        ):
            return f"{name}: give {SHORTEST_SECONDS} to {LONGEST_SECONDS} seconds."
    return ""


def described(target: Target) -> dict[str, Any]:
    """Return a target's fields as the audit keeps them; no secret is among them."""
    return {
        name: target.environment.name if name == "environment" else getattr(target, name)
        for name in FIELDS
    }


def cleared_logins(changed: set[str]) -> set[Login]:
    """Return the logins whose password must not go where a target points now."""
    if changed & set(ADDRESS):
        return set(Login)
    users = {"user": Login.COLLECTOR, "operator_user": Login.OPERATOR}
    return {login for name, login in users.items() if name in changed}


def forget_identity(target: Target) -> None:
    """Accept whichever server answers next at a target's address."""
    target.system_identifier = ""
    target.frozen_reason = ""
    target.timeline = None
    target.in_recovery = None
    target.server_version = None
    target.version_text = ""


def store_passwords(target: Target, passwords: Mapping[Login, str]) -> None:
    """Seal a login's password for the workers; raises ValidationError without a key."""
    for login, password in passwords.items():
        user = login_user(target, login)
        try:
            sealed, key = seal_password(password, target.host, target.port, user)
        except SecretUnreadable as error:
            raise ValidationError({"password": str(error)}) from None
        TargetSecret.objects.update_or_create(
            target=target, login=login, defaults={"sealed": sealed, "key_id": key}
        )


def forget_passwords(target: Target, logins: set[Login]) -> None:
    """Delete stored passwords."""
    TargetSecret.objects.filter(target=target, login__in=logins).delete()


def login_user(target: Target, login: str) -> str:
    """Return the user name of one of a target's two logins."""
    return target.user if login == Login.COLLECTOR else target.operator_user


def reset_circuit(target: Target, now: datetime) -> None:
    """Try a target at once, after an edit or when somebody asks."""
    Lease.objects.filter(target=target).update(due_at=now, failures=0)
    ProbeState.objects.filter(target=target).update(due_at=now)
