"""What one login finds on a server: its rights, databases, extensions, and what stands in the way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.errors import InsufficientPrivilege

from monitors import words
from monitors.action import Refused
from monitors.actions import create_extension
from monitors.kinds import POSTGRES
from monitors.models import Target
from monitors.pg import connect, doors, extensions, rights
from monitors.pg.doors import Door
from monitors.pg.errors import Unreachable, reason_of
from monitors.pg.extensions import Installed, Reset
from monitors.pg.identity import Identity, read_identity
from monitors.pg.rights import Owner, Rights
from monitors.probe import Probe
from monitors.probes import probes_of
from monitors.probes.bloat import PROBE as BLOAT
from monitors.probes.statements import PROBE as STATEMENTS
from monitors.targets import databases, trial
from monitors.targets.trial import Trial

DATABASES_AT_MOST = 20
PGSTATTUPLE = BLOAT.measuring.extension if BLOAT.measuring else ""


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
            probe.name: broken(connection, probe, server)
            for probe in probes_of(POSTGRES)
            if not probe.extension
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


SECONDS = 15.0

NOT_INSTALLED = "The extension pg_stat_statements is installed in no database that is read."
