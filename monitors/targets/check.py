"""Connects to a target and says what works there, and what would make the rest work."""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from django.core.exceptions import ValidationError
from django.utils import timezone
from psycopg.errors import InsufficientPrivilege

from monitors import words
from monitors.action import Action, Refused
from monitors.actions import ACTIONS, create_extension
from monitors.models import Target, TargetCheck, TargetSecret
from monitors.pg import connect, doors, extensions, hosts, rights
from monitors.pg.doors import Door
from monitors.pg.errors import Unreachable, own_fault, reason_of
from monitors.pg.extensions import Installed, Reset
from monitors.pg.identity import Identity, read_identity
from monitors.pg.rights import Owner, Rights
from monitors.probe import HIDDEN, NEWEST_MAJOR, OLDEST_MAJOR, Probe
from monitors.probes import PROBES
from monitors.probes.bloat import PROBE as BLOAT
from monitors.probes.statements import PROBE as STATEMENTS
from monitors.targets import databases, register, trial
from monitors.targets.grant_script import grant_script
from monitors.targets.secrets import SecretUnreadable, unseal_password
from monitors.targets.trial import Trial

SECONDS = 15.0
DATABASES_AT_MOST = 20
Login = TargetSecret.Login
PGSTATTUPLE = BLOAT.measuring.extension if BLOAT.measuring else ""
BLIND = (
    "Of tables that this login may not read, no bloat is estimated: their statistics are hidden."
)
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
class Inside:
    """What one login found in one database."""

    owners: list[Owner]
    closed_schemas: list[str]
    """Schemas with tables that the login may not use."""
    blind: bool
    """Whether it has tables whose statistics the login may not read."""
    scan: str | None
    """The GRANT that lets it call pgstattuple, '' where it may, None where that is missing."""
    statements: Home | None
    """None where pg_stat_statements is missing."""
    no_extensions: str
    """Why nobody can tell which extensions it has, '' where that is known."""
    trial: Trial


@dataclass(frozen=True)
class Seen:
    """What one login found."""

    server: Identity
    rights: Rights
    extensions: list[dict[str, Any]]
    install: dict[str, str]
    """Extension that may be installed from here -> what that needs first, '' where it can be."""
    inside: dict[str, Inside]
    """By the name of a database, of those that are read, at most 20."""
    closed: dict[str, str]
    """Databases that are read and can't be entered -> why and what helps."""
    left: int
    """So many more that are read were not looked at."""
    broken: dict[str, tuple[str, str]]
    """Probe -> why its SQL does not run and the GRANT that helps, '' where it does."""
    unread: dict[str, str]
    """What of the server could not be read -> why, and the GRANT that helps."""
    entry: Trial | None
    """What stands in the way of signals, which are sent from the entry database; of an operator."""

    @property
    def statements(self) -> Home | None:
        """Where pg_stat_statements is read, None where no database that is read has it."""
        homes = (one.statements for one in self.inside.values())
        return next((home for home in homes if home is not None), None)


def check(
    subject: Target | Mapping[str, Any], passwords: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return what works with a target's logins; connects once with each.

    Keys: version, version_text, in_recovery, system_identifier, roles,
    extensions, databases, probes, actions, warnings, grants. Raises
    CheckFailed where the collector can't connect.
    """
    target = subject if isinstance(subject, Target) else register.draft_target(subject)
    try:
        seen = look(target, target.user, passwords.get(Login.COLLECTOR))
    except (Unreachable, psycopg.Error) as error:
        raise CheckFailed(reason_of(error)) from None
    operator, operator_problem = look_as_operator(target, passwords)
    found = [row["datname"] for row in seen.rights.databases]
    names = [name for name in found if databases.is_included(target, name)]
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
    with opened(address, read_only=not acts) as connection:
        server = read_identity(connection)
        session = trial.read_session(connection) if acts else None
        unread: dict[str, str] = {}
        found = rights.read_rights(connection)
        installed: list[dict[str, Any]] = tried(
            connection, "extensions", rights.read_extensions, [], unread
        )
        problems = {
            probe.name: broken(connection, probe, server) for probe in PROBES if not probe.extension
        }
        install = {name: install_problem(connection, name) for name in create_extension.ALLOWED}
        known = known_doors(connection, unread)
        tried(connection, "roles", rights.read_role, None, unread)
        entry = trial.try_out(connection, session) if session else None
    inside, closed, left = look_inside(address, target, known, server, acts=acts)
    seen = Seen(server, found, installed, install, inside, closed, left, problems, unread, entry)
    home = seen.statements
    missing = next(
        (one.no_extensions for one in inside.values() if one.no_extensions), NOT_INSTALLED
    )
    problems[STATEMENTS.name] = home.broken if home else (missing, "")
    return seen


T = TypeVar("T")


def tried(
    connection: psycopg.Connection,
    what: str,
    read: Callable[[psycopg.Connection], T],
    instead: T,
    unread: dict[str, str],
) -> T:
    """Return what is read; `instead` where the login has no right to it, the GRANT in `unread`."""
    try:
        return read(connection)
    except InsufficientPrivilege as error:
        unread[what] = rights.reason_with_remedy(connection, error)
        return instead


def known_doors(connection: psycopg.Connection, unread: dict[str, str]) -> list[Door]:
    """Return the databases; without the right to see locks one that is being dropped looks open."""
    found = tried(connection, "locks", doors.read_doors, None, unread)
    if found is None:
        found = doors.read_doors(connection, locks=False)
    return list(found.values())


def look_inside(
    address: connect.Address,
    target: Target,
    known: Iterable[Door],
    server: Identity,
    *,
    acts: bool,
) -> tuple[dict[str, Inside], dict[str, str], int]:
    """Return what is in each database that is read, why others can't be entered, and how many are left.

    One connection at a time, the entry database first, at most 20.
    """
    read = [
        door for door in known if not door.template and databases.is_included(target, door.datname)
    ]
    read += [door for door in known if door.datname == target.dbname and door not in read]
    inside: dict[str, Inside] = {}
    closed: dict[str, str] = {}
    left = 0
    for door in sorted(read, key=lambda one: (one.datname != target.dbname, one.datname)):
        if door.reason:
            closed[door.datname] = door.reason
        elif len(inside) == DATABASES_AT_MOST:
            left += 1
        else:
            try:
                with opened(address.in_database(door.datname), read_only=not acts) as connection:
                    inside[door.datname] = found_inside(connection, server, acts=acts)
            except (Unreachable, psycopg.Error) as error:
                closed[door.datname] = reason_of(error)
    return inside, closed, left


def found_inside(connection: psycopg.Connection, server: Identity, *, acts: bool) -> Inside:
    """Return what a login finds in the database that it is in; raises psycopg.Error."""
    session = trial.read_session(connection) if acts else None
    unread: dict[str, str] = {}
    owners: list[Owner] = tried(connection, "owners", rights.table_owners, [], unread)
    scan = tried(connection, "extensions", scan_problem, None, unread)
    return Inside(
        owners,
        rights.closed_schemas(connection),
        rights.is_blind(connection),
        scan,
        None if "extensions" in unread else find_statements(connection, server),
        unread.get("extensions", ""),
        trial.try_out(connection, session) if session else trial.Trial(),
    )


def scan_problem(connection: psycopg.Connection) -> str | None:
    """Return the GRANT that lets the login call pgstattuple, '' where it may; None without it."""
    installed = extensions.find(connection, PGSTATTUPLE)
    if installed is None:
        return None
    login = words.quoted(rights.login_of(connection))
    if not installed.usage:
        return f"GRANT USAGE ON SCHEMA {words.quoted(installed.schema)} TO {login};"
    may = extensions.may_call(connection, PGSTATTUPLE)
    return "" if may else f"GRANT pg_stat_scan_tables TO {login};"


def install_problem(connection: psycopg.Connection, name: str) -> str:
    """Return what must come before the login can install an extension here, '' where nothing."""
    try:
        facts = create_extension.facts_of(connection, name)
    except Refused as error:
        return str(error)
    except InsufficientPrivilege as error:
        return rights.reason_with_remedy(connection, error)
    statement = f"CREATE EXTENSION {name}"
    reason = create_extension.reason_not_to_create(facts, name, statement)
    return f"{statement};" if reason.endswith(f"{statement};") else reason


@contextlib.contextmanager
def opened(address: connect.Address, *, read_only: bool) -> Iterator[psycopg.Connection]:
    """Open a connection for a few short reads; raises Unreachable.

    One that is not read only becomes so once it is known what it began with (`trial.read_session`).
    """
    connection = connect.open_target(
        address,
        purpose="check",
        statement_timeout_ms=5000,
        lock_timeout_ms=500,
        read_only=read_only,
        deadline_seconds=SECONDS,
    )
    try:
        with connect.deadline(connection, SECONDS):
            yield connection
    finally:
        connection.close()


def find_statements(connection: psycopg.Connection, server: Identity) -> Home | None:
    """Return how pg_stat_statements is in this database, None where it is not."""
    installed = extensions.find(connection, STATEMENTS.extension)
    if installed is None:
        return None
    problem = broken(connection, STATEMENTS, server, installed)
    return Home(connection.info.dbname, installed, problem, extensions.find_reset(connection))


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
        return probe.tell_age(server.server_version, version), ""
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
    user = words.quoted(seen.rights.rolname)
    grant = probe.needs.replace("<collector>", user) or f"GRANT pg_monitor TO {user};"
    reason, missing = seen.broken[probe.name]
    if missing:
        grant = missing
    elif probe.extension and seen.statements is not None:
        grant = statements_need(seen.statements, user, reason)
    if (
        probe is BLOAT
        and not reason
        and any(one.blind and one.scan != "" for one in seen.inside.values())
    ):
        reason, grant = BLIND, f"GRANT pg_read_all_data TO {user};"
    hides = probe.needs_all_statistics and not seen.server.reads_all_stats
    if not reason and hides:
        reason = HIDDEN
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
        return f"GRANT USAGE ON SCHEMA {words.quoted(home.installed.schema)} TO {user};"
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
    needs = [*hindrances(spec, seen), NEEDS[spec.right](seen) if spec.right else ""]
    said = " ".join(dict.fromkeys(filter(None, needs)))
    return {"works": not said, "needs": said}


def hindrances(spec: Action, seen: Seen) -> list[str]:
    """Return what the server would refuse an action for beside the right to it, '' among them."""
    trials = (
        [seen.entry] if spec.settled is not None else [one.trial for one in seen.inside.values()]
    )
    return [said for one in trials if one is not None for said in one.hindrances(spec)]


def signal_needs(seen: Seen) -> str:
    """Return the GRANT that lets a login signal others, '' where it may."""
    needed = ("pg_signal_backend", "pg_read_all_stats")
    return seen.rights.gain(needed, seen.server.server_version)


def vacuum_needs(seen: Seen) -> str:
    """Return what lets a login vacuum all tables, '' where it may."""
    return owners_need(seen, "vacuum")


def maintain_needs(seen: Seen) -> str:
    """Return what lets a login reindex and cluster all tables, '' where it may."""
    return owners_need(seen, "maintain")


def own_needs(seen: Seen) -> str:
    """Return what lets a login alter all tables, '' where it may: pg_maintain does not."""
    return owners_need(seen, "own")


def owners_need(seen: Seen, right: str) -> str:
    """Return what gives a right to all tables of the databases that are read, '' where it is there."""
    owners = [owner for one in seen.inside.values() for owner in one.owners]
    needs = [rights.owners_need(owners, right, seen.rights, seen.server.server_version)]
    needs += [
        rights.open_schemas(one.closed_schemas, seen.rights, name)
        for name, one in seen.inside.items()
    ]
    return " ".join(filter(None, needs))


def install_needs(seen: Seen) -> str:
    """Return what must be run first, '' where the login may install what is missing, if anything."""
    there = {row["name"] for row in seen.extensions}
    if seen.statements is not None:
        there.add(STATEMENTS.extension)
    missing = [problem for name, problem in seen.install.items() if name not in there]
    return next((problem for problem in missing if problem), "")


def reset_needs(seen: Seen) -> str:
    """Return what lets a login reset pg_stat_statements, '' where it may."""
    if seen.statements is None:
        unknown = any(one.no_extensions for one in seen.inside.values())
        return "" if unknown else STATEMENTS.needs
    return seen.statements.reset.needs if seen.statements.reset else ""


def scan_needs(seen: Seen) -> str:
    """Return what lets a login call pgstattuple, '' where it may wherever that is installed."""
    found = [one.scan for one in seen.inside.values() if one.scan is not None]
    if not found:
        unknown = any(one.no_extensions for one in seen.inside.values())
        return "" if unknown else f"CREATE EXTENSION {PGSTATTUPLE};"
    return next((problem for problem in found if problem), "")


NEEDS: dict[str, Callable[[Seen], str]] = {
    "signal": signal_needs,
    "vacuum": vacuum_needs,
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
        for name, reason in {**seen.server.unknown, **seen.unread}.items()
    ]
    if seen.left:
        said.append(
            f"Of the databases that are read {seen.left} {'was' if seen.left == 1 else 'were'}"
            " not looked at:"
            f" a check enters {DATABASES_AT_MOST}."
        )
    said += [f"No statistics of {name}: {reason}" for name, reason in seen.closed.items()]
    return said


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
    subject = register.draft_target(row.draft) if row.draft else row.target
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
