"""Connections as arithmetic: what may be used, when it is used up, who connects again and again.

Pure: rows and counters come in, figures and sentences go out.

Source: https://www.postgresql.org/docs/current/runtime-config-connection.html and, for counters,
https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-DATABASE-VIEW
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from monitors import words
from monitors.advisor import HOUR, Hurt, Rate, Row
from monitors.rules import hurt
from monitors.rules.wraparound import NEARLY

IDLE = "idle"
OTHERS = "(others)"
"""What the probe names the origin of the smallest groups."""
REFUSED = "clients are refused"
CHURN_SESSIONS = 1
"""New sessions a second from which on it matters whether anybody uses them again."""
CHURN_TRANSACTIONS = 5
"""Of each new session: with fewer nobody does."""

CHANGING = re.compile(
    r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{8,}|[0-9]{4,}"
)
"""What in a name is made anew for each process or request, as the probe has it."""


def folded(application_name: str | None) -> str:
    """Return an application's name as the probe writes it: app-12345 is app-*."""
    return CHANGING.sub("*", application_name or "")


def usable(max_connections: int | None, reserved: int | None) -> int | None:
    """Return how many connections ordinary roles may have, None where that is not known.

    `reserved` is superuser_reserved_connections and, from 16 on, reserved_connections.
    """
    return None if max_connections is None else max(max_connections - (reserved or 0), 0)


def exhausted(used: int, limit: int, rate: Rate | None, now: datetime) -> Hurt:
    """Return when the last usable connection is taken, if their number has risen steadily."""
    if used >= limit:
        return Hurt(REFUSED, already=True)
    if rate is not None and rate.seconds >= NEARLY * HOUR and rate.per_second <= 0:
        return Hurt(f"{REFUSED}; no date: connections did not rise steadily in the last hour")
    return hurt.reaches(REFUSED, used, limit, rate, "connection", now)


def count_of(rows: Iterable[Row], column: str = "backends") -> int:
    """Return the sum of a column over rows of `connections` or `sessions`."""
    return sum(row[column] or 0 for row in rows)


def taken(rows: Iterable[Row]) -> int:
    """Return how many connections are taken by rows of a probe: it leaves out the one that reads."""
    return count_of(rows) + 1


def most_of(rows: Iterable[Row], column: str, by: str = "application_name") -> tuple[str, int]:
    """Return the value of `by` that has most of a column, and how much; ('', 0) without any."""
    sums: dict[str, int] = {}
    for row in rows:
        sums[row[by]] = sums.get(row[by], 0) + (row[column] or 0)
    return max(sums.items(), key=lambda pair: (pair[1], pair[0]), default=("", 0))


@dataclass(frozen=True)
class Churn:
    """How a database's clients connect: new sessions a second, what each of them does, how long it lives.

    None where no session began, or what is counted is not known.
    """

    per_second: float
    reuse: float | None  # transactions for each new session
    lifetime: float | None  # seconds of session time for each new session

    def is_per_request(self, most_reuse: float, most_seconds: float) -> bool:
        """Tell whether sessions end so soon that nobody can be reusing them."""
        return (self.reuse is not None and self.reuse < most_reuse) or (
            self.lifetime is not None and self.lifetime < most_seconds
        )


def churn_of(grown: Mapping[str, float | None], seconds: float | None) -> Churn | None:
    """Return the churn by what a database's counters grew by; None where the time is not known.

    Long sessions beside the short ones add to both means, so each is a most: of those that
    connect again and again the truth is below.
    """
    sessions = grown["sessions"]
    if not seconds or sessions is None:
        return None
    if not sessions:
        return Churn(0.0, None, None)
    transactions = sum(grown[name] or 0 for name in ("xact_commit", "xact_rollback"))
    lifetime = grown["session_time"]
    return Churn(
        sessions / seconds,
        transactions / sessions,
        None if lifetime is None else lifetime / 1000 / sessions,
    )


def idle_share(grown: Mapping[str, float | None]) -> float | None:
    """Return the share of the transactions' time in which they did nothing, in percent.

    None where no transaction was open.
    """
    idle, active = grown["idle_in_transaction_time"] or 0, grown["active_time"] or 0
    return 100 * idle / (idle + active) if idle + active > 0 else None


@dataclass(frozen=True)
class Guilty:
    """Who connects most in a database, by the new sessions that readings caught."""

    application_name: str  # folded; '': it says none
    usename: str
    hosts: Sequence[str]  # '' is a local socket
    sessions: int
    of: int  # all that were caught in this database

    @property
    def name(self) -> str:
        """Who it is in words: `checkout (user web)`, `user web, which sets no application_name`."""
        if self.application_name:
            return f"{self.application_name} (user {self.usename})"
        return f"user {self.usename}, which sets no application_name"

    @property
    def place(self) -> str:
        """Where it comes from: `10.0.0.7`, `a local socket`, `12 addresses`."""
        if len(self.hosts) > 1:
            return f"{len(self.hosts)} addresses"
        return self.hosts[0] if self.hosts and self.hosts[0] else "a local socket"


def guilty_of(newcomers: Iterable[Row], datname: str) -> Guilty | None:
    """Return who has most new sessions in a database, None where no reading caught one.

    `newcomers` are {datname, usename, application_name, client_addr, sessions}.
    """
    here = [row for row in newcomers if row["datname"] == datname]
    sums: dict[tuple[str, str], int] = {}
    for row in here:
        who = (folded(row["application_name"]), row["usename"] or "")
        sums[who] = sums.get(who, 0) + row["sessions"]
    if not sums:
        return None
    who, sessions = max(sums.items(), key=lambda pair: (pair[1], pair[0]))
    hosts = {
        row["client_addr"] or ""
        for row in here
        if (folded(row["application_name"]), row["usename"] or "") == who
    }
    return Guilty(*who, sorted(hosts), sessions, sum(sums.values()))


def terminate_idle() -> str:
    """Return the statement by which a superuser ends what has been idle for over ten minutes."""
    return (
        "-- as a superuser, in any database:\n"
        "SELECT pid, usename, application_name, pg_terminate_backend(pid)\n"
        "  FROM pg_stat_activity\n"
        " WHERE backend_type = 'client backend'\n"
        "   AND state = 'idle'\n"
        "   AND state_change < now() - interval '10 minutes';"
    )


def let_in(logins: Iterable[str]) -> str:
    """Return the statements that let some logins have reserved slots, from 16 on."""
    names = ", ".join(words.quoted(login) for login in sorted(logins))
    return (
        "ALTER SYSTEM SET reserved_connections = 5;  -- after a restart\n"
        f"GRANT pg_use_reserved_connections TO {names};"
    )
