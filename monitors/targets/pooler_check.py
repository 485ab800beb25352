"""Connects to a pooler's console and says what works there, and the lines that make the rest work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from monitors.actions import actions_of
from monitors.kinds import PGBOUNCER
from monitors.models import Target, TargetSecret
from monitors.pg import connect, console, console_door, hosts
from monitors.pg.errors import Unreachable, reason_of
from monitors.probes import probes_of
from monitors.rules import pooler

Login = TargetSecret.Login
SECONDS = 5.0
NO_OPERATOR = "Give the target an operator login that admin_users of pgbouncer.ini names."


def check(target: Target, passwords: Mapping[str, str | None]) -> dict[str, Any]:
    """Return what works with a pooler's logins, with the keys that a server's check has.

    Raises Unreachable or psycopg.Error where the collector can't connect.
    """
    with opened(target, target.user, passwords.get(Login.COLLECTOR)) as connection:
        version, version_text = console.version_of(connection)
        with connect.deadline(connection, SECONDS):
            config = console.config_of(connection)
            shown = console.show(connection, "DATABASES")
        reasons = {probe.name: why_not(connection, probe.show) for probe in probes_of(PGBOUNCER)}
    problem = operator_problem(target, passwords, config)
    lines = console.lines_for(target.user, target.operator_user)
    return {
        "kind": PGBOUNCER,
        "version": version,
        "version_text": version_text,
        "in_recovery": None,
        "system_identifier": "",
        "roles": {
            Login.COLLECTOR.value: roles_of(config, target.user),
            Login.OPERATOR.value: roles_of(config, target.operator_user),
        },
        "extensions": [],
        "databases": [row["name"] for row in shown if row["name"] != console.DATABASE],
        "probes": [
            {"name": name, "works": not reason, "needs": reason and lines, "reason": reason}
            for name, reason in reasons.items()
        ],
        "actions": [
            {"name": name, **ability(problem or spec.lacks(version))}
            for name, spec in actions_of(PGBOUNCER).items()
        ],
        "warnings": warnings(target, version, config),
        "grants": lines,
    }


def opened(target: Target, user: str, password: str | None) -> psycopg.Connection:
    """Return a connection to the console; raises Unreachable."""
    address = connect.Address(
        target.host,
        target.port,
        user,
        console.DATABASE,
        target.sslmode,
        target.require_auth,
        password,
    )
    return console_door.open_console(address, purpose="check", seconds=SECONDS)


def why_not(connection: psycopg.Connection, what: str) -> str:
    """Return why the console does not show something, '' where it does."""
    try:
        with connect.deadline(connection, SECONDS):
            console.show(connection, what)
    except (psycopg.Error, Unreachable) as error:
        return reason_of(error)
    return ""


def operator_problem(
    target: Target, passwords: Mapping[str, str | None], config: Mapping[str, str]
) -> str:
    """Return what keeps the operator from acting, '' where nothing does."""
    user = target.operator_user
    if not user:
        return NO_OPERATOR
    try:
        opened(target, user, passwords.get(Login.OPERATOR)).close()
    except (psycopg.Error, Unreachable) as error:
        return f"The operator login can't connect: {reason_of(error)}"
    if not console.is_admin(config, user):
        return console.NOT_ADMIN.format(user=user)
    return ""


def ability(problem: str) -> dict[str, Any]:
    """Return whether something works, and what is in its way."""
    return {"works": not problem, "needs": problem}


def roles_of(config: Mapping[str, str], user: str) -> list[str]:
    """Return which lists of pgbouncer.ini name a user."""
    lists = ("stats_users", "admin_users")
    return [name for name in lists if user and user in console.listed(config.get(name, ""))]


def warnings(target: Target, version: int, config: Mapping[str, str]) -> list[str]:
    """Return what works but should not stay as it is."""
    said = [pooler.outdated(version)]
    if console.is_admin(config, target.user):
        said.append(f"{target.user} is among admin_users: reading needs only stats_users.")
    if target.operator_user == target.user:
        said.append("One login reads and acts: two logins keep the reader harmless.")
    if target.sslmode != Target.SSLMode.VERIFY_FULL and not hosts.is_loopback(target.host):
        said.append(
            f"sslmode {target.sslmode} does not prove which pooler answers: use verify-full."
        )
    return [text for text in said if text]
