"""Connects to a target and says what works there, and what would make the rest work."""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from typing import Any

import psycopg
from django.core.exceptions import ValidationError
from django.utils import timezone

from monitors.actions import actions_of
from monitors.kinds import POSTGRES
from monitors.models import Target, TargetCheck, TargetSecret
from monitors.pg.errors import Unreachable, own_fault, reason_of
from monitors.probes import probes_of
from monitors.targets import databases, drafts, pooler_check, register
from monitors.targets.abilities import action_result, look_as_operator, probe_result, warnings
from monitors.targets.grant_script import grant_script
from monitors.targets.secrets import SecretUnreadable, unseal_password
from monitors.targets.survey import look

Login = TargetSecret.Login


class CheckFailed(Exception):
    """No check was possible; its text says why."""


def check(
    subject: Target | Mapping[str, Any], passwords: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return what works with a target's logins; connects once with each.

    Keys: kind, version, version_text, in_recovery, system_identifier, roles,
    extensions, databases, probes, actions, warnings, grants. Raises
    CheckFailed where the collector can't connect.
    """
    target = subject if isinstance(subject, Target) else drafts.draft_target(subject)
    try:
        if target.kind == Target.Kind.PGBOUNCER:
            return pooler_check.check(target, passwords)
        seen = look(target, target.user, passwords.get(Login.COLLECTOR))
    except (Unreachable, psycopg.Error) as error:
        raise CheckFailed(reason_of(error)) from None
    operator, operator_problem = look_as_operator(target, passwords)
    found = [row["datname"] for row in seen.rights.databases]
    names = [name for name in found if databases.is_included(target, name)]
    return {
        "kind": POSTGRES,
        "version": seen.server.server_version,
        "version_text": seen.server.version_text,
        "in_recovery": seen.server.in_recovery,
        "system_identifier": seen.server.system_identifier or "",
        "roles": {
            Login.COLLECTOR.value: sorted(seen.rights.roles),
            Login.OPERATOR.value: sorted(operator.rights.roles) if operator else [],
        },
        "extensions": seen.extensions,
        "databases": names,
        "probes": [probe_result(probe, seen) for probe in probes_of(POSTGRES)],
        "actions": [
            {"name": name, **action_result(spec, target, operator, operator_problem)}
            for name, spec in actions_of(POSTGRES).items()
        ],
        "warnings": warnings(target, seen, operator),
        "grants": grant_script(
            seen.server.server_version // 10000,
            collector=target.user,
            operator=target.operator_user,
            databases=names,
        ),
    }


def stored_passwords(target: Target) -> dict[str, str | None]:
    """Return a saved target's passwords by login; raises SecretUnreadable."""
    return {
        row.login: unseal_password(
            bytes(row.sealed),
            row.key_id,
            target.host,
            target.port,
            register.login_user(target, row.login),
        )
        for row in TargetSecret.objects.filter(target=target)
    }


def carry_out(check_id: str) -> None:
    """Answer a check that the web asked for, once, and forget its passwords.

    Which logins had one stays known: a draft is not saved without them.
    """
    checks = TargetCheck.objects.filter(pk=check_id)
    row = checks.select_related("target__environment").first()
    if row is None or row.done_at is not None:  # gone with its target, or answered
        return
    try:
        row.result = check(*subject_of(row))
    except (CheckFailed, SecretUnreadable) as error:
        row.error = str(error)[:500]
    except ValidationError as error:
        row.error = " ".join(error.messages)[:500]
    finally:
        if fault := sys.exception():
            row.error = own_fault(fault)[:500]
        # Not saved as a row: with its target it may be gone by now, and it stays so.
        checks.update(
            result=row.result,
            error=row.error,
            sealed=dict.fromkeys(row.sealed, ""),
            done_at=timezone.now(),
        )


def subject_of(row: TargetCheck) -> tuple[Target, dict[str, str | None]]:
    """Return what to check and with which passwords; raises SecretUnreadable, ValidationError.

    A stored password goes only to the address, user and TLS mode that it was
    entered for.
    """
    subject = drafts.draft_target(row.draft) if row.draft else row.target
    if subject is None:
        message = "The target was removed."
        raise CheckFailed(message)
    passwords: dict[str, str | None] = {}
    if row.target is not None and same_place(subject, row.target):
        stored = stored_passwords(row.target)
        passwords |= {
            login: password
            for login, password in stored.items()
            if register.login_user(subject, login) == register.login_user(row.target, login)
        }
    for login, text in row.sealed.items():
        key, _, box = text.partition(":")
        user = register.login_user(subject, login)
        passwords[login] = unseal_password(
            base64.b64decode(box), key, subject.host, subject.port, user
        )
    return subject, passwords


def same_place(draft: Target, target: Target) -> bool:
    """Return whether a draft connects as its target does."""
    return all(getattr(draft, name) == getattr(target, name) for name in register.ADDRESS)
