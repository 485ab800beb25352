"""Connects to a target and says what works there, and what would make the rest work."""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from django.core.exceptions import ValidationError
from django.utils import timezone

from monitors import registration, snapshot
from monitors.action import Action
from monitors.actions import ACTIONS
from monitors.grants import MAINTAIN_MAJOR, grant_script
from monitors.models import Target, TargetCheck, TargetSecret
from monitors.pg import connect, extensions, hosts, rights
from monitors.pg.errors import Unreachable, own_fault, reason_of
from monitors.pg.extensions import Installed, Reset
from monitors.pg.identity import Identity, read_identity
from monitors.pg.relations import quoted
from monitors.pg.rights import Rights
from monitors.probe import NEWEST_MAJOR, OLDEST_MAJOR, Probe
from monitors.probes import PROBES
from monitors.probes.statements import PROBE as STATEMENTS
from monitors.secrets import SecretUnreadable, unseal_password

SECONDS = 15.0
DATABASES_AT_MOST = 20
Login = TargetSecret.Login
NOT_INSTALLED = "The extension pg_stat_statements is installed in no database that is read."


class CheckFailed(Exception):
    """No check was possible; its text says why."""


@dataclass(frozen=True)
class Home:
    """The first database that has pg_stat_statements."""

    dbname: str
    installed: Installed
    broken: tuple[str, str]
    """Why its probe's SQL does not run there and the GRANT that helps, '' where it does."""
    reset: Reset | None


@dataclass(frozen=True)
class Seen:
    """What one login found."""

    server: Identity
    rights: Rights
    extensions: list[dict[str, Any]]
    foreign_owners: dict[str, bool]
    """Of tables that it can't maintain for want of membership -> is a superuser; before 17."""
    strangers: dict[str, bool]
    """Owners of tables whose options it can't set -> is a superuser; of an operator alone."""
    broken: dict[str, tuple[str, str]]
    """Probe -> why its SQL does not run and the GRANT that helps, '' where it does."""
    statements: Home | None
    """None where no database that is read has it."""


def check(
    subject: Target | Mapping[str, Any], passwords: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return what works with a target's logins; connects once with each.

    Keys: version, version_text, in_recovery, system_identifier, roles,
    extensions, databases, probes, actions, warnings, grants. Raises
    CheckFailed where the collector can't connect.
    """
    target = subject if isinstance(subject, Target) else registration.draft_target(subject)
    try:
        seen = look(target, target.user, passwords.get(Login.COLLECTOR))
    except (Unreachable, psycopg.Error) as error:
        raise CheckFailed(reason_of(error)) from None
    operator, operator_problem = look_as_operator(target, passwords)
    found = [row["datname"] for row in seen.rights.databases]
    names = [name for name in found if registration.is_included(target, name)]
    return {
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
        "probes": [probe_result(probe, seen) for probe in PROBES],
        "actions": [
            {"name": name, **action_result(spec, target, operator, operator_problem)}
            for name, spec in ACTIONS.items()
        ],
        "warnings": warnings(target, seen, operator),
        "grants": grant_script(
            seen.server.server_version // 10000,
            collector=target.user,
            operator=target.operator_user,
            databases=names,
        ),
    }


def look(target: Target, user: str, password: str | None, *, acts: bool = False) -> Seen:
    """Connect as one login and read what it sees; raises Unreachable, psycopg.Error."""
    address = connect.Address(
        host=target.host,
        port=target.port,
        user=user,
        dbname=target.dbname,
        sslmode=target.sslmode,
        require_auth=target.require_auth,
        password=password or None,
    )
    with opened(address, counted=acts) as connection:
        server = read_identity(connection)
        found = rights.read_rights(connection)
        installed = rights.read_extensions(connection)
        problems = {
            probe.name: broken(connection, probe, server) for probe in PROBES if not probe.extension
        }
    home = find_statements(address, databases_of(target, found), server)
    problems[STATEMENTS.name] = home.broken if home else (NOT_INSTALLED, "")
    owners = all_foreign_owners(address, target, found) if acts else {}
    kept: dict[str, bool] = {}
    if not found.has("pg_maintain"):
        own = {row["datname"] for row in found.databases if row["owns"]}
        kept = merged(seen for name, seen in owners.items() if name not in own)
    return Seen(server, found, installed, kept, merged(owners.values()), problems, home)


@contextlib.contextmanager
def opened(address: connect.Address, *, counted: bool = False) -> Iterator[psycopg.Connection]:
    """Open a read-only connection for a few short reads; raises Unreachable."""
    connection = connect.open_target(
        address,
        purpose="check",
        statement_timeout_ms=5000,
        lock_timeout_ms=500,
        read_only=True,
        deadline_seconds=SECONDS,
        counted=counted,
    )
    try:
        with connect.deadline(connection, SECONDS):
            yield connection
    finally:
        connection.close()


def all_foreign_owners(
    address: connect.Address, target: Target, found: Rights
) -> dict[str, dict[str, bool]]:
    """Return {database: owners of its tables that a login is no member of -> is a superuser}.

    At most 20 databases are asked. Who owns a database may vacuum all its
    tables, but not alter them.
    """
    asked = [
        row["datname"]
        for row in found.databases
        if row["may_connect"] and registration.is_included(target, row["datname"])
    ]
    owners = {}
    for name in asked[:DATABASES_AT_MOST]:
        with opened(address.in_database(name)) as connection:
            owners[name] = rights.foreign_owners(connection)
    return owners


def merged(owners: Iterable[Mapping[str, bool]]) -> dict[str, bool]:
    """Return the owners of several databases as one dict."""
    return {name: is_super for found in owners for name, is_super in found.items()}


def databases_of(target: Target, found: Rights) -> list[str]:
    """Return the databases that are read, the entry database first, at most 20."""
    names = [
        row["datname"]
        for row in found.databases
        if row["may_connect"] and registration.is_included(target, row["datname"])
    ]
    return list(dict.fromkeys([target.dbname, *names]))[:DATABASES_AT_MOST]


def find_statements(address: connect.Address, names: list[str], server: Identity) -> Home | None:
    """Return where pg_stat_statements is, None where no database has it."""
    for name in names:
        with opened(address.in_database(name)) as connection:
            installed = extensions.find(connection, STATEMENTS.extension)
            if installed is not None:
                problem = broken(connection, STATEMENTS, server, installed)
                return Home(name, installed, problem, extensions.find_reset(connection))
    return None


def broken(
    connection: psycopg.Connection,
    probe: Probe,
    server: Identity,
    installed: Installed | None = None,
) -> tuple[str, str]:
    """Return why a probe's SQL can't run and the GRANT that helps, '' where it can."""
    version = installed.version if installed else ""
    text = probe.sql_for(server.server_version, version)
    if text is None:
        return snapshot.too_old(probe, server, version), ""
    return rights.reason_not_to_read(connection, extensions.in_schema(text, installed))


def look_as_operator(
    target: Target, passwords: Mapping[str, str | None]
) -> tuple[Seen | None, str]:
    """Return what the operator login sees, or None and why there is nothing to see."""
    if not target.operator_user:
        return None, "Give the target an operator login."
    try:
        return look(target, target.operator_user, passwords.get(Login.OPERATOR), acts=True), ""
    except (Unreachable, psycopg.Error) as error:
        return None, f"The operator login can't connect: {reason_of(error)}"


def probe_result(probe: Probe, seen: Seen) -> dict[str, Any]:
    """Return {name, works, needs, reason} of a probe; needs is the statement that helps."""
    user = quoted(seen.rights.rolname)
    grant = probe.needs.replace("<collector>", user) or f"GRANT pg_monitor TO {user};"
    reason, missing = seen.broken[probe.name]
    if missing:
        grant = missing
    elif probe.extension and seen.statements is not None:
        grant = statements_need(seen.statements, user, reason)
    hides = probe.needs_all_statistics and not seen.server.reads_all_stats
    if not reason and hides:
        reason = snapshot.HIDDEN
    return {
        "name": probe.name,
        "works": not reason,
        "needs": grant if reason else "",
        "reason": reason,
    }


def statements_need(home: Home, user: str, reason: str) -> str:
    """Return the statement that lets a login read pg_stat_statements where it is installed."""
    if not reason:
        return f"GRANT pg_monitor TO {user};"
    if home.reset is not None and not home.reset.usage:
        return f"GRANT USAGE ON SCHEMA {quoted(home.installed.schema)} TO {user};"
    return "ALTER EXTENSION pg_stat_statements UPDATE;"


def action_result(spec: Action, target: Target, seen: Seen | None, problem: str) -> dict[str, Any]:
    """Return {works, needs} of an action; needs is a statement or what to do."""
    if seen is None:
        return {"works": False, "needs": problem}
    if seen.server.in_recovery and not spec.on_standby:
        return {"works": False, "needs": "A standby is read only: register the primary."}
    if seen.rights.superuser and not target.allow_superuser:
        return {
            "works": False,
            "needs": "The operator is a superuser: use a lesser role, or allow it for this target.",
        }
    if seen.server.server_version // 10000 < spec.since:
        return {"works": False, "needs": f"It came with PostgreSQL {spec.since}."}
    needs = NEEDS[spec.right](seen)
    return {"works": not needs, "needs": needs}


def signal_needs(seen: Seen) -> str:
    """Return the GRANT that lets a login signal others, '' where it may."""
    missing = [
        role for role in ("pg_signal_backend", "pg_read_all_stats") if not seen.rights.has(role)
    ]
    user = quoted(seen.rights.rolname)
    return f"GRANT {', '.join(missing)} TO {user};" if missing else ""


def maintain_needs(seen: Seen) -> str:
    """Return the GRANT that lets a login vacuum all tables it saw, '' where it may."""
    if seen.rights.has("pg_maintain"):
        return ""
    user = quoted(seen.rights.rolname)
    if seen.server.server_version >= MAINTAIN_MAJOR * 10000:
        return f"GRANT pg_maintain TO {user};"
    owners = [quoted(name) for name, superuser in seen.foreign_owners.items() if not superuser]
    # Membership in a superuser would give everything: its tables are left out.
    return f"GRANT {', '.join(owners)} TO {user};" if owners else ""


def own_needs(seen: Seen) -> str:
    """Return the GRANT that lets a login alter all tables it saw, '' where it may.

    pg_maintain does not: only the owner of a table sets its options.
    """
    owners = [quoted(name) for name, superuser in seen.strangers.items() if not superuser]
    user = quoted(seen.rights.rolname)
    return f"GRANT {', '.join(owners)} TO {user};" if owners else ""


def install_needs(seen: Seen) -> str:
    """Return what a superuser must run, '' where it is installed or the login is one."""
    return "" if seen.statements or seen.rights.superuser else STATEMENTS.needs


def reset_needs(seen: Seen) -> str:
    """Return what lets a login reset pg_stat_statements, '' where it may."""
    if seen.statements is None:
        return STATEMENTS.needs
    return seen.statements.reset.needs if seen.statements.reset else ""


def scan_needs(seen: Seen) -> str:
    """Return the GRANT that lets a login call pgstattuple, '' where it may."""
    user = quoted(seen.rights.rolname)
    may = seen.rights.has("pg_stat_scan_tables") or seen.rights.has("pg_monitor")
    return "" if may else f"GRANT pg_stat_scan_tables TO {user};"


NEEDS: dict[str, Callable[[Seen], str]] = {
    "signal": signal_needs,
    "maintain": maintain_needs,
    "own": own_needs,
    "superuser": install_needs,
    "reset": reset_needs,
    "scan": scan_needs,
}
"""What an action's right takes -> the statement that gives it, '' where it is there."""


def warnings(target: Target, seen: Seen, operator: Seen | None) -> list[str]:
    """Return what works but should not stay as it is."""
    said = []
    major = seen.server.server_version // 10000
    if major > NEWEST_MAJOR:
        said.append(f"PostgreSQL {major} is not tested: {OLDEST_MAJOR} to {NEWEST_MAJOR} are.")
    if seen.rights.superuser:
        said.append(f"{target.user} is a superuser: reading statistics needs only pg_monitor.")
    superusers = [
        name for name, is_super in (operator.foreign_owners if operator else {}).items() if is_super
    ]
    if superusers and seen.server.server_version < MAINTAIN_MAJOR * 10000:
        said.append(
            f"Tables of the superuser {superusers[0]} can't be vacuumed from here:"
            " ALTER TABLE … OWNER TO a role that is none."
        )
    if operator and operator.rights.superuser:
        said.append(f"{target.operator_user} is a superuser: the actions here need far less.")
    if target.operator_user == target.user:
        said.append("One login reads and acts: two logins keep the reader harmless.")
    if target.sslmode != Target.SSLMode.VERIFY_FULL and not hosts.is_loopback(target.host):
        said.append(
            f"sslmode {target.sslmode} does not prove which server answers: use verify-full."
        )
    if seen.server.in_recovery:
        said.append("This is a standby: it is read; what would change it is done on its primary.")
    said += [
        f"Not known of this server: {name.replace('_', ' ')}. {reason}"
        for name, reason in seen.server.unknown.items()
    ]
    user = quoted(seen.rights.rolname)
    said += [
        f"No statistics of {row['datname']}: GRANT CONNECT ON DATABASE {quoted(row['datname'])}"
        f" TO {user};"
        for row in seen.rights.databases
        if not row["may_connect"] and registration.is_included(target, row["datname"])
    ]
    return said


def stored_passwords(target: Target) -> dict[str, str | None]:
    """Return a saved target's passwords by login; raises SecretUnreadable."""
    return {
        row.login: unseal_password(
            bytes(row.sealed),
            row.key_id,
            target.host,
            target.port,
            registration.login_user(target, row.login),
        )
        for row in TargetSecret.objects.filter(target=target)
    }


def carry_out(check_id: str) -> None:
    """Answer a check that the web asked for, once, and forget its passwords.

    Which logins had one stays known: a draft is not saved without them.
    """
    row = TargetCheck.objects.select_related("target__environment").get(pk=check_id)
    if row.done_at is not None:
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
        row.sealed = dict.fromkeys(row.sealed, "")
        row.done_at = timezone.now()
        row.save()


def subject_of(row: TargetCheck) -> tuple[Target, dict[str, str | None]]:
    """Return what to check and with which passwords; raises SecretUnreadable, ValidationError.

    A stored password goes only to the address, user and TLS mode that it was
    entered for.
    """
    subject = registration.draft_target(row.draft) if row.draft else row.target
    if subject is None:
        message = "The target was removed."
        raise CheckFailed(message)
    passwords: dict[str, str | None] = {}
    if row.target is not None and same_place(subject, row.target):
        stored = stored_passwords(row.target)
        passwords |= {
            login: password
            for login, password in stored.items()
            if registration.login_user(subject, login) == registration.login_user(row.target, login)
        }
    for login, text in row.sealed.items():
        key, _, box = text.partition(":")
        user = registration.login_user(subject, login)
        passwords[login] = unseal_password(
            base64.b64decode(box), key, subject.host, subject.port, user
        )
    return subject, passwords


def same_place(draft: Target, target: Target) -> bool:
    """Return whether a draft connects as its target does."""
    return all(getattr(draft, name) == getattr(target, name) for name in registration.ADDRESS)
