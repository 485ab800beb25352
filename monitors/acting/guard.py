"""What must hold before anything is sent: the action is known, its database and object are the ones."""

from __future__ import annotations

from dataclasses import replace

import psycopg

from monitors.acting import connections, known
from monitors.action import Action as Spec, Guarded, Measured
from monitors.actions import ACTIONS
from monitors.models import Action, Database, Target
from monitors.pg import extensions
from monitors.pg.errors import DatabaseClosed
from monitors.targets import logins

DATABASES_AT_MOST = 20


def spec_for(row: Action) -> Spec | None:
    """Return a row's action as it is with the row's arguments, None for an unknown one."""
    spec = ACTIONS.get(row.name)
    return spec.given(row.arguments) if spec else None


def guarded_now(connection: psycopg.Connection, row: Action, spec: Spec) -> Guarded:
    """Run an action's guard, which learns from the identity by which `logins` Howdah comes.

    Raises Refused, Changed or psycopg.Error.
    """
    logins = row.target.logins if row.target is not None else frozenset()
    guarded = spec.guard(connection, row.arguments, {**row.identity, "logins": logins})
    return replace(guarded, numbers=settled(row, guarded.numbers))


def settled(row: Action, numbers: Measured) -> Measured:
    """Return what an action measured of a table, with what the history knows of it."""
    return known.without_rewritten(row.target, row.identity, numbers) if row.target else numbers


def database_of(row: Action, target: Target) -> str:
    """Return the database to act in."""
    return str(row.arguments.get("database") or target.dbname)


def database_with(row: Action, spec: Spec, target: Target) -> str:
    """Return the first database that has an action's extension; the entry database if none has."""
    included = Database.objects.filter(target=target, included=True, gone_at=None)
    names = dict.fromkeys([target.dbname, *included.values_list("datname", flat=True)])
    for name in list(names)[:DATABASES_AT_MOST]:
        try:
            with connections.looking(logins.operator_address(target, name), row) as eye:
                if extensions.find(eye, spec.extension) is not None:
                    return name
        except DatabaseClosed:
            continue
    return target.dbname


Eye = tuple[psycopg.Connection, int]
"""A connection that looks, and the version of who answers."""
