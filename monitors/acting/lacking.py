"""Which right the operator login lacks for what the server refused, as the server tells it."""

from __future__ import annotations

from typing import Any

import psycopg

from monitors.acting import connections
from monitors.action import Action as Spec, Refused
from monitors.models import Action
from monitors.pg import connect, extensions, rights
from monitors.pg.errors import Unreachable
from monitors.targets import logins
from monitors.targets.secrets import SecretUnreadable

SECONDS = 5.0


def find_remedy(row: Action, spec: Spec, dbname: str, error: psycopg.Error | None = None) -> str:
    """Return what gives the login that which it lacks for an action, '' where it lacks nothing known.

    `error` is what the server refused, None where it only warned. Asks over a connection of its
    own: the one that was refused may be gone, or in a transaction that failed.
    """
    if row.target is None:
        return ""
    try:
        address = logins.operator_address(row.target, dbname)
        with connections.looking(address, row) as eye, connect.deadline(eye, SECONDS):
            grant = rights.remedy(eye, error) if error is not None else ""
            if grant:
                return f"In the database {dbname}: {grant}"
            if not spec.right:
                return rights.to_run(spec.needs(eye))
            return right_lacking(eye, spec.right, row.identity)
    except (psycopg.Error, Unreachable, SecretUnreadable, Refused):
        return ""


def right_lacking(connection: psycopg.Connection, right: str, identity: dict[str, Any]) -> str:
    """Return what gives the login the right that an action takes, '' where it has it."""
    login, version = rights.read_rights(connection), connection.info.server_version
    if right == "signal":
        return rights.to_run(login.gain(["pg_signal_backend"], version))
    if right == "scan":
        return rights.to_run(login.gain(["pg_stat_scan_tables"], version))
    if right == "reset":
        reset = extensions.find_reset(connection)
        return rights.to_run(reset.needs) if reset else ""
    if right == "superuser":
        return "" if login.superuser else "A superuser may do that."
    relid = identity.get("relid")
    if relid is None:
        return ""
    owners = rights.table_owners(connection, relid)
    needs = [
        rights.to_run(rights.owners_need(owners, right, login, version)),
        rights.open_schemas(
            rights.closed_schemas(connection, relid), login, connection.info.dbname
        ),
    ]
    return " ".join(filter(None, needs))
