"""What works for a login, probe by probe and action by action, and what would make the rest work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from monitors import words
from monitors.action import Action
from monitors.models import Target, TargetSecret
from monitors.pg import hosts, rights
from monitors.pg.errors import Unreachable, reason_of
from monitors.probe import HIDDEN, NEWEST_MAJOR, OLDEST_MAJOR, Probe
from monitors.probes.bloat import PROBE as BLOAT
from monitors.probes.statements import PROBE as STATEMENTS
from monitors.targets import survey
from monitors.targets.survey import PGSTATTUPLE, Home, Seen, look

Login = TargetSecret.Login
BLIND = (
    "Of tables that this login may not read, no bloat is estimated: their statistics are hidden."
)


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
            f" a check enters {survey.DATABASES_AT_MOST}."
        )
    said += [f"No statistics of {name}: {reason}" for name, reason in seen.closed.items()]
    return said
