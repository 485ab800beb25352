"""Whether the connections that applications may open fit into what a server admits.

What is reckoned with is full load: every pool of every process has all of its connections open,
as it has when the database is slow, which is when it matters.

Source: https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-MAX-CONNECTIONS
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from monitors import words
from monitors.rules import refusals
from monitors.rules.connections import CHURN_SESSIONS, CHURN_TRANSACTIONS

TIGHT = 0.15
"""Where less of the usable connections is left, a deploy or a new service takes it away."""
DEFAULT_MAX_CONNECTIONS = 100
DEFAULT_RESERVED = 3  # superuser_reserved_connections
MEGABYTE = 1024 * 1024
LEAST_MB, MOST_MB = 5, 10
"""What a backend takes by itself, roughly: it grows with the tables and plans that it has seen."""

FITS, IS_TIGHT, EXCEEDS = "fits", "tight", "exceeds"
VERDICTS = (FITS, IS_TIGHT, EXCEEDS)
"""From good to bad."""
USABLE = "max_connections - reserved"
CLIENTS = "max_client_conn"
MEMORY = "memory"
POOL = "pool_size + max_overflow"
POOLER = "default_pool_size"


@dataclass(frozen=True)
class Surge:
    """What a rolling deploy starts before the old instances end, as Kubernetes' maxSurge has it."""

    instances: int = 0
    pct: float = 0  # of a service's instances, rounded up

    def of(self, instances: int) -> int:
        """Return how many more run for a while."""
        return self.instances + math.ceil(instances * self.pct / 100)


@dataclass(frozen=True)
class Service:
    """What opens connections: so many processes on so many instances, a pool in each."""

    name: str = ""
    instances: int = 1
    processes: int = 1
    pool_size: int = 5
    max_overflow: int = 10
    extra: int = 0  # beside the pools: cron jobs, migrations
    connection_limit: int | None = None  # of its role
    database: str = ""
    via_pgbouncer: bool = False

    @property
    def per_process(self) -> int:
        """How many connections one process may have."""
        return self.pool_size + self.max_overflow

    def pools(self, surge: Surge) -> int:
        """Return how many processes run while a deploy goes on, each with its pool."""
        return (self.instances + surge.of(self.instances)) * self.processes

    def connections(self, surge: Surge) -> int:
        """Return how many it has open at most."""
        return self.pools(surge) * self.per_process + self.extra


@dataclass(frozen=True)
class Pool:
    """What a PgBouncer keeps for one pair of user and database."""

    database: str
    user: str
    pool_size: int = 20
    reserve_pool_size: int = 0

    @property
    def most(self) -> int:
        """How many server connections it may have."""
        return self.pool_size + self.reserve_pool_size


@dataclass(frozen=True)
class PgBouncer:
    """PgBouncers that are set up alike; each process (`so_reuseport`) has pools of its own.

    0 of a `max_…_connections` is no limit. `max_client_conn` holds for each process.
    """

    processes: int = 1
    pools: tuple[Pool, ...] = ()
    max_db_connections: int = 0
    max_user_connections: int = 0
    max_client_conn: int = 100

    @property
    def server_connections(self) -> int:
        """How many connections all of them may open to the server."""
        by_database: dict[str, int] = {}
        by_user: dict[str, int] = {}
        for pool in self.pools:
            by_database[pool.database] = by_database.get(pool.database, 0) + pool.most
            by_user[pool.user] = by_user.get(pool.user, 0) + pool.most
        most = min(
            sum(capped(size, self.max_db_connections) for size in by_database.values()),
            sum(capped(size, self.max_user_connections) for size in by_user.values()),
        )
        return self.processes * most


def capped(size: int, cap: int) -> int:
    """Return a size under a cap, of which 0 is none."""
    return min(size, cap) if cap else size


@dataclass(frozen=True)
class Limits:
    """What a server admits, and what of it is kept for others than the services."""

    max_connections: int = DEFAULT_MAX_CONNECTIONS
    reserved: int = DEFAULT_RESERVED  # superuser_reserved_connections + reserved_connections
    for_privileged: int = 0  # reserved_connections among them
    monitoring: int = 0
    people: int = 0
    databases: Mapping[str, int] = field(
        default_factory=dict
    )  # CONNECTION LIMIT where there is one
    memory_mb: int | None = None  # that backends may take; None: not asked
    work_mem_mb: float = 4
    major: int | None = None

    @property
    def usable(self) -> int:
        """How many connections ordinary roles can have."""
        return max(self.max_connections - self.reserved, 0)

    @property
    def headroom(self) -> int:
        """How many are kept for people and monitoring."""
        return self.monitoring + self.people


@dataclass(frozen=True)
class Question:
    """Everything that a pool calculator is asked."""

    services: tuple[Service, ...] = ()
    limits: Limits = field(default_factory=Limits)
    surge: Surge = field(default_factory=Surge)
    pgbouncer: PgBouncer | None = None

    @property
    def direct(self) -> list[Service]:
        """The services that connect to the server itself."""
        return [one for one in self.services if not one.via_pgbouncer]

    def load(self, surge: Surge) -> int:
        """Return how many connections services and PgBouncers have open at most."""
        pooled = self.pgbouncer.server_connections if self.pgbouncer else 0
        return sum(one.connections(surge) for one in self.direct) + pooled


@dataclass(frozen=True)
class Check:
    """One limit: what is wanted of it, what it allows, and what clients are told beyond it."""

    limit: str
    wanted: int
    allowed: int
    share: float  # of full load that can be had before it breaks; below 1 it does
    errors: tuple[str, ...] = ()

    @property
    def breaks(self) -> bool:
        """Whether full load is more than it allows."""
        return self.wanted > self.allowed

    @property
    def share_pct(self) -> float:
        """How much of full load can be had before it breaks, 100 where all can."""
        return 100 * min(self.share, 1)


@dataclass(frozen=True)
class Answer:
    """Whether it fits, and what breaks first as load grows."""

    needed: int
    usable: int
    needed_without_deploy: int
    verdict: str
    first_limit: str
    errors: tuple[str, ...]
    checks: tuple[Check, ...]
    memory_least_bytes: int  # an estimate: backends alone
    memory_most_bytes: int  # and one sort or hash in each

    @property
    def left(self) -> int:
        """How many are left; negative where they don't suffice."""
        return self.usable - self.needed

    @property
    def only_deploy(self) -> bool:
        """Whether it fits but for the time of a deploy."""
        return self.needed > self.usable >= self.needed_without_deploy


def answer(question: Question) -> Answer:
    """Reckon full load against every limit."""
    limits, checks = question.limits, tuple(checks_of(question))
    first = min(checks, key=lambda check: check.share)
    needed = question.load(question.surge) + limits.headroom
    most_mb = needed * (MOST_MB + limits.work_mem_mb)
    return Answer(
        needed=needed,
        usable=limits.usable,
        needed_without_deploy=question.load(Surge()) + limits.headroom,
        verdict=verdict_of(question, checks, needed, most_mb),
        first_limit=first.limit,
        errors=first.errors,
        checks=checks,
        memory_least_bytes=needed * LEAST_MB * MEGABYTE,
        memory_most_bytes=int(most_mb * MEGABYTE),
    )


def verdict_of(question: Question, checks: tuple[Check, ...], needed: int, most_mb: float) -> str:
    """Return one of VERDICTS."""
    limits = question.limits
    if any(check.breaks for check in checks):
        return EXCEEDS
    if limits.usable - needed < TIGHT * limits.usable:
        return IS_TIGHT
    return IS_TIGHT if limits.memory_mb is not None and most_mb > limits.memory_mb else FITS


def checks_of(question: Question) -> Iterator[Check]:
    """Yield every limit, the server's first and the pools themselves last."""
    limits, load = question.limits, question.load(question.surge)
    needed = load + limits.headroom
    yield Check(
        USABLE,
        needed,
        limits.usable,
        share_of(load, limits.usable - limits.headroom),
        refusals.slots_taken(limits.major, limits.reserved, limits.for_privileged),
    )
    yield from connection_limits(question)
    if question.pgbouncer is not None:
        clients = [one for one in question.services if one.via_pgbouncer]
        wanted = sum(one.connections(question.surge) for one in clients)
        allowed = question.pgbouncer.processes * question.pgbouncer.max_client_conn
        share = share_of(wanted, allowed)
        yield Check(CLIENTS, wanted, allowed, share, (refusals.NO_MORE_CLIENTS,))
    if limits.memory_mb is not None:
        allowed = limits.memory_mb // LEAST_MB
        yield Check(MEMORY, needed, allowed, share_of(load, allowed - limits.headroom))
    yield pool_itself(question)


def connection_limits(question: Question) -> Iterator[Check]:
    """Yield the limits of databases and roles that the services meet."""
    wanted: dict[str, int] = {}
    for one in question.direct:
        most = one.connections(question.surge)
        wanted[one.database] = wanted.get(one.database, 0) + most
        if one.connection_limit is not None:
            name = one.name or "the service"
            share = share_of(most, one.connection_limit)
            title = f"CONNECTION LIMIT of the role of {name}"
            errors = (refusals.role_full("…"),)
            yield Check(title, most, one.connection_limit, share, errors)
    for datname, allowed in question.limits.databases.items():
        if datname in wanted:
            most = wanted[datname]
            title = f"CONNECTION LIMIT of database {words.quoted(datname)}"
            errors = (refusals.database_full(datname),)
            yield Check(title, most, allowed, share_of(most, allowed), errors)


def pool_itself(question: Question) -> Check:
    """Return the limit that is met where no other is before: the pools, by their own size."""
    if not question.services:
        load = question.load(question.surge)
        return Check(POOLER, load, load, 1.0, (refusals.QUERY_WAIT,))
    widest = question.services[0]
    most = sum(one.connections(question.surge) for one in question.services)
    error = refusals.pool_exhausted(widest.pool_size, widest.max_overflow)
    return Check(POOL, most, most, 1.0, (error,))


def share_of(wanted: int, allowed: int) -> float:
    """Return how much of what is wanted can be had: 1 is all of it."""
    if wanted <= 0:
        return math.inf if allowed >= 0 else 0.0
    return max(allowed, 0) / wanted


# What a running server shows

NEAR = 0.8  # of the usable connections
MOSTLY = 0.5  # of those that are open

PER_REQUEST, TOO_LARGE = "per_request", "too_large"


@dataclass(frozen=True)
class Traffic:
    """What a server's own counters say of how it is connected to; None is not known."""

    sessions_per_second: float | None = None
    xacts_per_session: float | None = None
    open: int | None = None
    idle: int | None = None
    usable: int | None = None


def mistakes_in(traffic: Traffic) -> list[str]:
    """Return which of the two usual mistakes show: a connection a request, and pools too large."""
    found = []
    rate, reuse = traffic.sessions_per_second, traffic.xacts_per_session
    comes_often = rate is not None and rate >= CHURN_SESSIONS
    if comes_often and reuse is not None and reuse < CHURN_TRANSACTIONS:
        found.append(PER_REQUEST)
    if traffic.open and traffic.idle is not None and traffic.usable is not None:
        is_near = traffic.open >= NEAR * traffic.usable
        if is_near and traffic.idle > MOSTLY * traffic.open:
            found.append(TOO_LARGE)
    return found
