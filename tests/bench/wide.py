"""The two servers that figures are taken on, and how CPU time is read.

`wide` has 10,000 tables and 5,000 statements, `small` the four tables of pgbench.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from dashboard.embedded import processes
from dashboard.embedded.postgres import Cluster, embedded_programs
from tests import servers
from tests.servers import Server

TABLES = int(os.environ.get("BENCH_TABLES", "10000"))
STATEMENTS = int(os.environ.get("BENCH_STATEMENTS", "5000"))
IDLE, ACTIVE, WAITING = 100, 15, 5

SETTINGS = {
    **servers.SETTINGS,
    "log_statement": "none",
    "max_connections": "300",
    "shared_buffers": "256MB",
    "max_locks_per_transaction": "512",
    "pg_stat_statements.max": "10000",
    "autovacuum": "off",
}

FILL = """
DO $$
BEGIN
  FOR n IN {first}..{last} LOOP
    EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text)', n);
    EXECUTE format('INSERT INTO t%s SELECT g, md5(g::text) FROM generate_series(1, 100) AS g', n);
    EXECUTE format('CREATE INDEX ON t%s (v)', n);
    EXECUTE format('UPDATE t%s SET v = v WHERE id <= 20', n);
  END LOOP;
END $$
"""


@contextmanager
def running(name: str) -> Iterator[Server]:
    """Run an empty server of this benchmark's own."""
    with servers.home() as folder:
        cluster = Cluster(name, folder / name, embedded_programs(), "secret-of-bench", SETTINGS)
        cluster.initialized(cluster.initialize())
        cluster.start(processes.free_port())
        cluster.wait()
        servers.create_roles(cluster, 18)
        try:
            yield Server(18, cluster.port, cluster.password, str(cluster.log))
        finally:
            cluster.stop()


def fill(server: Server) -> None:
    """Make the tables, each with two indexes and dead rows, and the distinct statements."""
    with server.connect(dbname="shop") as shop:
        shop.execute("SET client_min_messages = error")
        for first in range(1, TABLES + 1, 500):
            last = min(first + 499, TABLES)
            shop.execute(FILL.format(first=first, last=last))
        shop.execute("ANALYZE")
        for number in range(STATEMENTS):
            bits = "".join("+-"[number >> bit & 1] + "1" for bit in range(13))
            shop.execute(f"SELECT 1{bits}")


SMALL = """
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
INSERT INTO pgbench_branches SELECT g, 0, '' FROM generate_series(1, 10) AS g;
INSERT INTO pgbench_tellers SELECT g, g / 10 + 1, 0, '' FROM generate_series(1, 100) AS g;
INSERT INTO pgbench_accounts SELECT g, g / 100000 + 1, 0, '' FROM generate_series(1, 1000000) AS g;
"""


def fill_small(server: Server) -> None:
    """Make the tables that pgbench makes at scale 10."""
    with server.connect(dbname="shop") as shop:
        shop.execute(SMALL)
        shop.execute("VACUUM ANALYZE")


def transact(server: Server) -> None:
    """Do what one of pgbench's transactions does."""
    with server.connect(dbname="shop") as shop:
        shop.execute("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 4711")
        shop.execute("UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 7")
        shop.execute("UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = 1")
        shop.execute("INSERT INTO pgbench_history VALUES (7, 1, 4711, 1, now(), '')")
        shop.execute("SELECT pg_stat_force_next_flush()")
        shop.execute("SELECT 1")


@contextmanager
def crowd(server: Server) -> Iterator[None]:
    """Hold sessions open: idle ones, active ones, and some that wait for a lock."""
    sessions: list[psycopg.Connection[Any]] = []
    try:
        for _ in range(IDLE):
            sessions.append(server.connect(dbname="shop", application_name="idle"))
        holder = server.connect(dbname="shop", application_name="holder", autocommit=False)
        holder.execute("LOCK TABLE t1 IN ACCESS EXCLUSIVE MODE")
        sessions.append(holder)
        for number in range(ACTIVE + WAITING):
            session = server.connect(dbname="shop", application_name="active")
            text = "SELECT count(*) FROM t1" if number < WAITING else "SELECT pg_sleep(3600)"
            session.pgconn.send_query(text.encode())
            sessions.append(session)
        time.sleep(0.5)
        yield
    finally:
        for session in sessions:
            session.close()


def cpu_ms(pid: int) -> float:
    """Return the CPU time that a process has used, in ms, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def median(values: list[float]) -> float:
    """Return the middle value."""
    return sorted(values)[len(values) // 2]


class Report:
    """Rows of the table that the run prints: goal, figure, bar, whether it is reached."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str]] = []

    def add(self, what: str, figure: str, bar: str, *, reached: bool) -> None:
        """Keep a row."""
        self.rows.append((what, figure, bar, "reached" if reached else "MISSED"))

    def text(self) -> str:
        """Return the rows as a Markdown table."""
        head = "| what | figure | goal | |\n|---|---|---|---|\n"
        return head + "\n".join(f"| {' | '.join(row)} |" for row in self.rows)
