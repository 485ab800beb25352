"""What a snapshot costs the target and us, against the raw SQL in the same run.

    .venv/bin/python -m pytest -m bench -s tests/bench

Ratios of CPU time, interleaved; see docs/bench.md for the last table.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from monitors.collect.rounds import Run
from monitors.collect.sessions import Session
from monitors.history import partitions
from monitors.history.compare import Verdict, compare
from monitors.history.reading import Place
from monitors.history.write import column_types, copy_samples
from monitors.models import HISTORY, Lease, Target
from tests.bench import wide
from tests.servers import Server

pytestmark = [pytest.mark.bench, pytest.mark.django_db(transaction=True)]

ROUNDS = 5

# The floor: the functions under the views, relpages of everything, indexes
# without a join, statements without text, activity (docs/bench.md).
T4 = """
SELECT c.oid, n.nspname, c.relname, c.relkind, c.reltoastrelid, c.relpages, c.reltuples,
       c.relfrozenxid, c.relminmxid,
       pg_stat_get_numscans(c.oid), pg_stat_get_tuples_returned(c.oid),
       pg_stat_get_tuples_fetched(c.oid), pg_stat_get_tuples_inserted(c.oid),
       pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid),
       pg_stat_get_tuples_hot_updated(c.oid), pg_stat_get_live_tuples(c.oid),
       pg_stat_get_dead_tuples(c.oid), pg_stat_get_mod_since_analyze(c.oid),
       pg_stat_get_ins_since_vacuum(c.oid), pg_stat_get_last_vacuum_time(c.oid),
       pg_stat_get_last_autovacuum_time(c.oid), pg_stat_get_last_analyze_time(c.oid),
       pg_stat_get_last_autoanalyze_time(c.oid), pg_stat_get_vacuum_count(c.oid),
       pg_stat_get_autovacuum_count(c.oid), pg_stat_get_analyze_count(c.oid),
       pg_stat_get_autoanalyze_count(c.oid), pg_stat_get_blocks_fetched(c.oid),
       pg_stat_get_blocks_hit(c.oid)
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 't', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
S4 = "SELECT oid, relpages FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 't', 'm', 'i')"
I4 = """
SELECT indexrelid, pg_stat_get_numscans(indexrelid), pg_stat_get_tuples_returned(indexrelid),
       pg_stat_get_tuples_fetched(indexrelid), pg_stat_get_blocks_fetched(indexrelid),
       pg_stat_get_blocks_hit(indexrelid)
  FROM pg_index WHERE indexrelid >= 16384
"""
P3 = """
SELECT userid, dbid, queryid, toplevel, calls, total_exec_time, rows, shared_blks_hit,
       shared_blks_read, shared_blks_dirtied, temp_blks_read, temp_blks_written,
       shared_blk_read_time, wal_bytes
  FROM pg_stat_statements(false)
"""
A1 = "SELECT * FROM pg_stat_activity"
FLOOR = (T4, S4, I4, P3, A1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with wide.running("wide") as server:
        began = time.monotonic()
        wide.fill(server)
        print(f"\nwide is filled in {time.monotonic() - began:.0f} s")
        yield server


@pytest.fixture(scope="module")
def report() -> Iterator[wide.Report]:
    found = wide.Report()
    yield found
    print("\n" + found.text())


class Floor:
    """The raw SQL on one connection, binary, without jit and parallel workers."""

    def __init__(self, server: Server) -> None:
        self.connection: psycopg.Connection[Any] = server.connect(
            user="collector",
            dbname="shop",
            options="-c jit=off -c max_parallel_workers_per_gather=0",
        )
        self.pid = self.connection.info.backend_pid

    def run(self, *texts: str) -> tuple[float, float]:
        """Return (backend, client) CPU in ms."""
        backend, client = wide.cpu_ms(self.pid), time.thread_time()
        for text in texts:
            self.connection.execute(text, binary=True).fetchall()
        return wide.cpu_ms(self.pid) - backend, (time.thread_time() - client) * 1000


class Staying(Session):
    """A session whose backend stays after a round, so that its CPU time can be read."""

    def let_go(self) -> None:
        """Keep the connection."""


class Ours:
    """Howdah's full snapshot over kept connections: fast and slow probes together.

    `sizes` says whether it reads the exact sizes of the tables that changed.
    """

    def __init__(self, target: Target, *, sizes: bool = True) -> None:
        self.target = target
        self.sizes = sizes
        self.session = Staying(Lease.Kind.SLOW)

    def run(self, *names: str) -> tuple[float, float]:
        """Return (backend, client) CPU in ms."""
        run = Run(self.target, self.session, seconds=120)
        self.session.prepare(self.target)
        self.session.open(self.target, self.target.dbname, 60)  # the floor's is open too
        before = self.backends()
        client = time.thread_time()
        wanted = [HISTORY[name].probe for name in names]
        if not self.sizes:
            wanted = [replace(p, refine_sql="") if p.name == "tables" else p for p in wanted]
        run.take(wanted, only_due=False)
        spent = (time.thread_time() - client) * 1000
        assert {result.state for result in run.results} == {"ok"}, run.results
        after = self.backends()
        return sum(after.values()) - sum(before.get(pid, 0) for pid in after), spent

    def backends(self) -> dict[int, float]:
        assert self.session.kept is not None
        pid = self.session.kept.connection.info.backend_pid
        return {pid: wide.cpu_ms(pid)}


FULL = ("activity", "sessions", "progress", "databases", "statements", "tables", "indexes")


def test_a_full_snapshot_against_the_floor(
    server: Server, watch: Callable[..., Target], report: wide.Report
) -> None:
    """Goals 1 and 2: backend CPU of everything, without and with the sizes of what changed."""
    target = watch(server, name="wide", dbname="shop", include=["shop"])
    floors: dict[tuple[bool, str], list[float]] = defaultdict(list)
    ours: dict[tuple[bool, str], list[float]] = defaultdict(list)
    clients: list[float] = []
    with wide.crowd(server):
        primer = Ours(target)
        for _ in range(TABLES_TO_PRIME):
            primer.run(*FULL)  # texts, sizes and definitions are read once
        primer.session.close()
        for sizes in (False, True) * ROUNDS:
            floor, snapshot = Floor(server), Ours(target, sizes=sizes)
            for run in ("fresh", "kept"):
                change_some(server)
                floors[sizes, run].append(floor.run(*FLOOR)[0])
                backend, client = snapshot.run(*FULL)
                ours[sizes, run].append(backend)
            clients.append(client)
            floor.connection.close()
            snapshot.session.close()
    for (sizes, run), spent in ours.items():
        what = f"with exact sizes of {CHANGED} changed tables" if sizes else "without exact sizes"
        bar = 1.25 if sizes else 1.15
        floor_ms, ours_ms = wide.median(floors[sizes, run]), wide.median(spent)
        ratio = ours_ms / floor_ms
        report.add(
            f"full snapshot {what}, {run} session, backend CPU",
            f"{ours_ms:.0f} ms / floor {floor_ms:.0f} ms = {ratio:.2f}",
            f"at most {bar}",
            reached=ratio <= bar,
        )
    report.add("the same, our own CPU", f"{wide.median(clients):.0f} ms", "told", reached=True)


def test_a_full_snapshot_of_a_small_server(
    watch: Callable[..., Target], report: wide.Report
) -> None:
    """Goals 1 and 2 where the statements themselves cost next to nothing."""
    with wide.running("small") as server:
        wide.fill_small(server)
        target = watch(server, name="small", dbname="shop", include=["shop"])
        floor, snapshot = Floor(server), Ours(target)
        raw, taken, client = [], [], []
        for step in range(SMALL_ROUNDS + WARM):
            wide.transact(server)
            floor_ms = floor.run(*FLOOR)[0]
            backend, own = snapshot.run(*FULL)
            if step >= WARM:
                raw.append(floor_ms)
                taken.append(backend)
                client.append(own)
        floor.connection.close()
        snapshot.session.close()
    ratio = wide.median(taken) / wide.median(raw)
    report.add(
        "full snapshot of a small server with exact sizes, kept session, backend CPU",
        f"{wide.median(taken):.1f} ms / floor {wide.median(raw):.1f} ms = {ratio:.2f}",
        "told: the goal is that of wide",
        reached=True,
    )
    report.add("the same, our own CPU", f"{wide.median(client):.0f} ms", "told", reached=True)


SMALL_ROUNDS, WARM = 40, 10
TABLES_TO_PRIME = 40
CHANGED = 300


def change_some(server: Server) -> None:
    """Let 3 % of the tables change, as the goals assume."""
    with server.connect(dbname="shop") as shop:
        for number in range(2, wide.TABLES, max(wide.TABLES // CHANGED, 1)):
            shop.execute(f"UPDATE t{number} SET v = v WHERE id = 1")
        shop.execute("SELECT pg_stat_force_next_flush()")
        shop.execute("SELECT 1")


def test_statements_against_the_floor(
    server: Server, watch: Callable[..., Target], report: wide.Report
) -> None:
    """Goal 3: what statements cost the target, and everything together."""
    target = watch(server, name="wide-statements", dbname="shop", include=["shop"])
    floor, ours = Floor(server), Ours(target)
    for _ in range(3):
        ours.run("statements")
        floor.run(P3)
    raw, taken, client = [], [], []
    for _ in range(ROUNDS * 2):
        raw.append(floor.run(P3)[0])
        backend, own = ours.run("statements")
        taken.append(backend)
        client.append(own)
    floor.connection.close()
    ours.session.close()
    ratio = wide.median(taken) / wide.median(raw)
    everything = wide.median(taken) + wide.median(client)
    report.add(
        f"{wide.STATEMENTS} statements, backend CPU",
        f"{wide.median(taken):.1f} ms / floor {wide.median(raw):.1f} ms = {ratio:.2f}",
        "at most 1.2",
        reached=ratio <= 1.2,
    )
    report.add(
        "statements with storing and our own CPU, in floors",
        f"{everything:.1f} ms = {everything / wide.median(raw):.1f} floors",
        "at most 2.5 (a fifth of the peer's 12.5)",
        reached=everything / wide.median(raw) <= 2.5,
    )


def test_storing_against_binary_copy(
    server: Server, watch: Callable[..., Target], report: wide.Report
) -> None:
    """Goal 11: CPU of storing changed rows, client and backend, against COPY BINARY of the same rows."""
    target = watch(server, name="ingest")
    history = HISTORY["databases"]
    columns = history.sample.columns()
    count = 20_000
    partitions.make_ahead(timezone.now())
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [backend] = cursor.fetchone()

    def rows(step: int) -> list[tuple[Any, ...]]:
        fixed = {"datname": "d", "encoding": "UTF8", "stats_reset": timezone.now()}
        return [
            tuple(n if c == "datid" else fixed.get(c, n * 7 + step) for c in columns)
            for n in range(count)
        ]

    def measured(work: Callable[[], None]) -> float:
        began, own = wide.cpu_ms(backend), time.thread_time()
        work()
        return wide.cpu_ms(backend) - began + (time.thread_time() - own) * 1000

    place = Place(history, target.pk, 0)
    verdict = Verdict(first=False, new_epoch=False, reset=False, whole_reset=False)
    before = {row[:1]: (row, ()) for row in rows(0)}
    ours, raw, orm = [], [], []
    for step in range(1, ROUNDS + 1):
        comparison = compare(history.sample, before, rows(step), verdict)
        before = comparison.rows
        at = timezone.now()
        ours.append(measured(partial(copy_samples, place, comparison, at, at, 60.0)))
        raw.append(measured(partial(copy_raw, history, target.pk, rows(step))))
        orm.append(measured(partial(insert_orm, history, target.pk, columns, rows(step)[:2000])))
    per_row = wide.median(ours) / count * 1000
    raw_row = wide.median(raw) / count * 1000
    orm_row = wide.median(orm) / 2000 * 1000
    report.add(
        "storing a changed row, CPU of client and backend",
        f"{per_row:.1f} us / COPY BINARY {raw_row:.1f} us = {per_row / raw_row:.2f}",
        "at most 1.3",
        reached=per_row / raw_row <= 1.3,
    )
    report.add(
        "the same against bulk_create",
        f"{orm_row:.1f} us = {orm_row / per_row:.1f} times ours",
        "at least 13 times",
        reached=orm_row / per_row >= 13,
    )


def copy_raw(history: Any, target_id: int, rows: list[tuple[Any, ...]]) -> None:
    """COPY BINARY of ready rows with the same columns, nothing compared or computed."""
    sample = history.sample
    kept = [sample.columns().index(n) for n in (*sample.counters, *sample.gauges, *sample.facts)]
    columns = (
        *("target_id", "database_id", "taken_at", "target_at", "interval_seconds", "change"),
        *sample.key,
        *sample.counters,
        *sample.gauges,
        *sample.facts,
    )
    at = timezone.now()
    ready = [(target_id, 0, at, at, 60.0, 0, row[0], *(row[i] for i in kept)) for row in rows]
    with connection.cursor() as cursor:
        table = history.samples._meta.db_table
        text = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
        with cursor.copy(text) as copy:
            copy.set_types(column_types(history.samples, columns))
            for row in ready:
                copy.write_row(row)


def insert_orm(
    history: Any, target_id: int, columns: tuple[str, ...], rows: list[tuple[Any, ...]]
) -> None:
    """The same by bulk_create."""
    at = timezone.now()
    names = {field.name for field in history.samples._meta.get_fields()}
    history.samples._default_manager.bulk_create(
        [
            history.samples(
                target_id=target_id,
                database_id=0,
                taken_at=at,
                target_at=at,
                interval_seconds=60.0,
                change=0,
                **{c: v for c, v in zip(columns, row, strict=True) if c in names},
            )
            for row in rows
        ]
    )
