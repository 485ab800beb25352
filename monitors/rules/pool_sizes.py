"""Which sizes would fit, and the lines of configuration that set them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from monitors.rules.pools import TIGHT, Question, Service

BURST = 9
"""One in so many connections of a pool is opened for bursts alone: `max_overflow`."""
ROUND = 10
SMALLEST_POOL = 5
HEADROOM = 1.3  # of the measured demand
PER_CORE = 4
BUSY_PER_CORE = 2
"""More active transactions than that for each core: the server is the limit, not the pool."""
USUAL_POOL = 20  # default_pool_size as PgBouncer has it
TIMES = " \N{MULTIPLICATION SIGN} "


@dataclass(frozen=True)
class Lines:
    """What to paste: for which tool, the lines, and what to know about them."""

    tool: str
    file: str  # where they go
    text: str
    note: str = ""


def most_per_process(question: Question, *, room: float = 0.0) -> int | None:
    """Return how many connections each process can have so that all fit, with a share left over.

    None where not even one fits, or no service connects by itself.
    """
    processes = sum(one.pools(question.surge) for one in question.direct)
    if not processes:
        return None
    limits = question.limits
    extra = sum(one.extra for one in question.direct)
    pooled = question.pgbouncer.server_connections if question.pgbouncer else 0
    budget = math.floor(limits.usable * (1 - room)) - limits.headroom - extra - pooled
    return budget // processes if budget >= processes else None


def max_connections_for(question: Question) -> int:
    """Return the max_connections that admits all with `TIGHT` left over, in round numbers."""
    needed = question.load(question.surge) + question.limits.headroom
    least = math.ceil(needed / (1 - TIGHT)) + question.limits.reserved
    return -(-least // ROUND) * ROUND


def recommended_pool(demand: float, cores: int | None) -> int:
    """Return the size of one pool for a measured demand of transactions that are open at once.

    Where the cores are not known nothing caps it.
    """
    size = max(math.ceil(round(demand * HEADROOM, 6)), SMALLEST_POOL)
    return size if cores is None else min(size, cores * PER_CORE)


def split(size: int) -> tuple[int, int]:
    """Return `pool_size` and `max_overflow` of a process that may have so many connections."""
    overflow = size // BURST
    return size - overflow, overflow


def lines_for(question: Question, size: int | None, pooled: int | None = None) -> list[Lines]:
    """Return the lines by which each process has `size` connections at most, None: no size fits.

    `pooled` is the size of one pool that all share, in a PgBouncer; None: its default, if that fits.
    """
    makers = (sqlalchemy, django, psycopg_pool, celery, hikari)
    of_processes = [make(size) for make in makers] if size else []
    return [*of_processes, pgbouncer(question, pooled), server(question)]


def sqlalchemy(size: int) -> Lines:
    """Return the lines for an engine of SQLAlchemy."""
    base, overflow = split(size)
    text = (
        "engine = create_engine(\n"
        "    url,\n"
        f"    pool_size={base},\n"
        f"    max_overflow={overflow},\n"
        "    pool_timeout=30,\n"
        "    pool_recycle=1800,\n"
        "    pool_pre_ping=True,\n"
        ")"
    )
    return Lines(
        "SQLAlchemy", "each process", text, "Never NullPool: it connects for each request."
    )


def django(size: int) -> Lines:
    """Return the lines for Django's own pool, which 5.1 and newer have with psycopg 3."""
    text = (
        "DATABASES = {\n"
        '    "default": {\n'
        '        "CONN_MAX_AGE": 0,  # the pool keeps them\n'
        f'        "OPTIONS": {{"pool": {{"min_size": 1, "max_size": {size}, "timeout": 30}}}},\n'
        "    },\n"
        "}"
    )
    note = (
        "From Django 5.1 on, with psycopg 3. Without its pool every thread keeps one connection "
        f'("CONN_MAX_AGE": 60): then run at most {size} threads in a process.'
    )
    return Lines("Django", "settings.py", text, note)


def psycopg_pool(size: int) -> Lines:
    """Return the line for psycopg's pool."""
    text = f"pool = ConnectionPool(conninfo, min_size=1, max_size={size}, timeout=30)"
    return Lines("psycopg_pool", "each process", text)


def celery(size: int) -> Lines:
    """Return the line for a worker of Celery."""
    note = "Prefork: each child is a process with one connection for each database that it uses."
    return Lines("Celery", "each worker", f"worker_concurrency = {size}", note)


def hikari(size: int) -> Lines:
    """Return the lines for HikariCP."""
    return Lines("HikariCP", "each JVM", f"maximumPoolSize={size}\nconnectionTimeout=30000")


def pgbouncer(question: Question, pooled: int | None) -> Lines:
    """Return the lines for one PgBouncer process that all services connect to."""
    limits = question.limits
    budget = max(math.floor(limits.usable * (1 - TIGHT)) - limits.headroom, 1)
    pool = min(pooled or USUAL_POOL, budget)
    reserve = min(max(pool // 4, 1), budget - pool)
    clients = sum(one.connections(question.surge) for one in question.services)
    text = (
        "pool_mode = transaction\n"
        f"default_pool_size = {pool}\n"
        f"reserve_pool_size = {reserve}\n"
        f"max_db_connections = {pool + reserve}\n"
        f"max_client_conn = {-(-max(clients, 1) * 12 // 1000) * 100}"
    )
    note = (
        "For one process and one pair of database and user; each further process has pools of its own."
        " Applications keep their pools, which are cheap now."
    )
    return Lines("PgBouncer", "pgbouncer.ini", text, note)


def server(question: Question) -> Lines:
    """Return the line that lets the server admit all as they are."""
    wanted = max_connections_for(question)
    note = "Needs a restart, and on a standby first: it must not have fewer than its primary."
    return Lines("PostgreSQL", "postgresql.conf", f"max_connections = {wanted}", note)


def spell(service: Service, question: Question) -> str:
    """Return a service's connections as a product: its instances, processes and pool, and what is beside."""
    more = question.surge.of(service.instances)
    instances = f"({service.instances} + {more})" if more else f"{service.instances}"
    factors = [text for text in (instances, f"{service.processes}") if text != "1"]
    pool = f"({service.pool_size} + {service.max_overflow})"
    product = TIMES.join([*factors, pool])
    return f"{product} + {service.extra}" if service.extra else product


def spell_sum(question: Question) -> str:
    """Return how what is needed comes about: services, then `20 of PgBouncer`, then `8 kept`."""
    terms = [spell(one, question) for one in question.direct]
    if question.pgbouncer is not None:
        terms.append(f"{question.pgbouncer.server_connections} of PgBouncer")
    if question.limits.headroom:
        terms.append(f"{question.limits.headroom} kept")
    return " + ".join(terms) or "0"
