"""What stands in the way of the operator's actions in one database, found by asking what they ask.

A right that is there by its role's name helps little where a function or view is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from monitors import words
from monitors.action import Action
from monitors.actions import actions_of
from monitors.kinds import POSTGRES
from monitors.pg import backends, extensions, options, pinned, relations, rights
from monitors.pg.identity import read_identity

NEVER = "2000-01-01 00:00:00.000000+00"
NOBODY = {"pid": "0", "backend_start": NEVER, "query_start": NEVER}
"""Names no backend: what is sent for it reaches nobody."""
CLASS_OID = 1259
"""pg_class, which every database has: a table to ask of what is asked of one."""


@dataclass(frozen=True)
class Session:
    """What the operator's sessions in a database begin with that keeps actions from their work."""

    writes: str = ""
    """What lets them write, '' where they may."""
    counts: str = ""
    """What makes their work count, '' where it does."""


@dataclass(frozen=True)
class Trial:
    """Why actions would be refused in one database and what helps, '' for what would not be."""

    server: str = ""
    """Nobody can tell which server answers: nothing is done to it."""
    session: Session = field(default_factory=Session)
    tables: str = ""
    """An action on a table could not look at it."""
    options: str = ""
    """One that sets a table's options could not look at those."""
    extensions: str = ""
    """One that uses an extension could not find it."""
    signals: dict[str, str] = field(default_factory=dict)
    """By the name of the action."""
    needs: dict[str, str] = field(default_factory=dict)
    """What an action says itself that the login lacks, by its name."""

    def hindrances(self, spec: Action) -> list[str]:
        """Return what stands in an action's way in this database."""
        if spec.settled is not None:
            return [self.server, self.signals.get(spec.name, "")]
        found = [self.server, self.session.counts, self.needs.get(spec.name, "")]
        if spec.right in {"own", "superuser"}:
            found.append(self.session.writes)
        if spec.right in {"own", "maintain", "vacuum"}:
            found.append(self.tables)
        if spec.name == "set_autovacuum":
            found.append(self.options)
        if spec.right in {"reset", "scan", "superuser"}:
            found.append(self.extensions)
        return found


def read_session(connection: psycopg.Connection) -> Session:
    """Return what a new session begins with, and make it read only from here on.

    For a connection that was not made read only as it was opened.
    """
    found = pinned.begins_with(connection)
    login = rights.login_of(connection)
    pinned.set_session(connection, {"default_transaction_read_only": "on"})
    begins, source = found["default_transaction_read_only"]
    counts, counted_by = found["track_counts"]
    uncounted = counts == "off" and counted_by in {"user", "database user"}
    return Session(
        writes=begins_read_only(source, login, connection.info.dbname) if begins == "on" else "",
        counts=pinned.UNCOUNTED if uncounted else "",
    )


def begins_read_only(source: str, login: str, dbname: str) -> str:
    """Return the statement that lets sessions write, by where their setting comes from."""
    whose = {
        "user": f"ROLE {words.quoted(login)}",
        "database user": f"ROLE {words.quoted(login)} IN DATABASE {words.quoted(dbname)}",
        "database": f"DATABASE {words.quoted(dbname)}",
        "global": "ROLE ALL",
    }
    if source not in whose:
        return "Sessions of this server begin read only: default_transaction_read_only is on."
    return f"ALTER {whose[source]} RESET default_transaction_read_only;"


def try_out(connection: psycopg.Connection, session: Session) -> Trial:
    """Ask what actions ask before and while they act; nothing is changed, nobody is signalled.

    Raises psycopg.Error for what is no question of rights.
    """
    server = read_identity(connection, with_settings=False).unknown.get("system_identifier", "")
    of_backends = refusals(connection, [find_nobody, backends.myself, wait_for_nobody])
    signals = {
        name: " ".join([*of_backends, *refusals(connection, [explain(spec)])])
        for name, spec in actions_of(POSTGRES).items()
        if spec.settled is not None
    }
    return Trial(
        server=server,
        session=session,
        tables=" ".join(refusals(connection, TABLE_READS)),
        options=" ".join(refusals(connection, [read_options, read_settings])),
        extensions=" ".join(refusals(connection, [find_extension])),
        signals=signals,
        needs={name: lacking(connection, spec) for name, spec in actions_of(POSTGRES).items()},
    )


def lacking(connection: psycopg.Connection, spec: Action) -> str:
    """Return what an action says itself that the login lacks, or why it can't tell."""
    try:
        return spec.needs(connection)
    except InsufficientPrivilege as error:
        return rights.reason_with_remedy(connection, error)


Read = Callable[[psycopg.Connection], object]


def refusals(connection: psycopg.Connection, reads: Iterable[Read]) -> list[str]:
    """Return why reads are refused and the GRANT that helps, each reason once."""
    said = []
    for read in reads:
        try:
            read(connection)
        except InsufficientPrivilege as error:
            said.append(rights.reason_with_remedy(connection, error))
    return list(dict.fromkeys(said))


def explain(spec: Action) -> Read:
    """Return what has the server plan a signal: it checks the rights to it and sends none."""
    statement = spec.statement(NOBODY, {}, 0)
    return lambda connection: connection.execute(sql.SQL("EXPLAIN {}").format(statement))


def find_nobody(connection: psycopg.Connection) -> object:
    """Look for a backend as a signal's guard does."""
    return backends.find(connection, int(NOBODY["pid"]))


def wait_for_nobody(connection: psycopg.Connection) -> object:
    """Look for who waits behind a backend, as a signal's guard does."""
    return backends.waiters_behind(connection, int(NOBODY["pid"]))


def read_options(connection: psycopg.Connection) -> object:
    """Read a table's options."""
    return options.read(connection, CLASS_OID)


def read_settings(connection: psycopg.Connection) -> object:
    """Read what a table's options default to."""
    return options.settings(connection, ["autovacuum"])


def find_extension(connection: psycopg.Connection) -> object:
    """Look for an extension."""
    return extensions.find(connection, extensions.STATEMENTS)


TABLE_READS: tuple[Read, ...] = (
    lambda connection: relations.by_oid(connection, CLASS_OID),
    lambda connection: relations.measure(connection, CLASS_OID),
    lambda connection: relations.holders(connection, CLASS_OID, "AccessExclusiveLock"),
    lambda connection: relations.autovacuums(connection, CLASS_OID),
    backends.own,
)
"""What is read of a table before and while it is worked on."""
