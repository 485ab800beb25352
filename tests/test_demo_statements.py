"""The demonstration's statements are slow in the ways that they are said to be, and bounded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dashboard.embedded import databases, demo, processes
from dashboard.embedded.postgres import Cluster, embedded_programs
from tests import servers

PASSWORD = "of-the-demonstration"
Shop = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server as the demonstration has it."""
    with servers.home() as folder:
        made = Cluster(
            "demo", folder / "demo", embedded_programs(), PASSWORD, databases.DEMO_SETTINGS
        )
        made.initialized(made.initialize())
        made.start(processes.free_port())
        try:
            made.wait()
            passwords = dict.fromkeys(("shop", databases.COLLECTOR, databases.OPERATOR), PASSWORD)
            databases.prepare_demo(made, passwords)
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Iterator[Cluster]:
    """The server with the demonstration's tables."""
    logins = {"PGHOST": "127.0.0.1", "PGPORT": str(cluster.port), "PGUSER": "shop"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**logins, "PGPASSWORD": PASSWORD}.items():
            patch.setenv(name, value)
        demo.prepare()
        yield cluster


@pytest.fixture
def shop(prepared: Cluster) -> Iterator[Shop]:
    """A session of the shop's owner, with counters that begin at 0."""
    with prepared.connect(dbname="shop") as superuser:
        superuser.execute("SELECT public.pg_stat_statements_reset()")
    with prepared.connect(user="shop", dbname="shop") as session:
        session.execute("SET work_mem = '256kB'")
        yield session


def cost(cluster: Cluster, statement: str, column: str) -> float:
    """Return what pg_stat_statements counts for one of the demonstration's statements."""
    words = " ".join(statement.split())[:40]
    with cluster.connect(dbname="shop") as superuser:
        row = superuser.execute(
            sql.SQL(
                "SELECT coalesce(sum({}), 0)::float8 FROM public.pg_stat_statements"
                " WHERE regexp_replace(query, '\\s+', ' ', 'g') LIKE '%%' || %s || '%%'"
            ).format(sql.Identifier(column)),
            [words],
        ).fetchone()
    assert row is not None
    return float(row[0])


def plan(shop: Shop, statement: str, values: dict[str, Any]) -> str:
    """Return a statement's plan as text."""
    explained = sql.SQL("EXPLAIN {}").format(sql.SQL(statement))
    return "\n".join(line for (line,) in psycopg.ClientCursor(shop).execute(explained, values))


def test_one_reads_a_whole_table(shop: Shop) -> None:
    assert "Seq Scan on products" in plan(shop, demo.SCAN, {"pattern": "%12345%"})


def test_one_sorts_on_disk(prepared: Cluster, shop: Shop) -> None:
    demo.sort(shop)

    assert cost(prepared, demo.SORT, "temp_blks_written") > 100


def test_one_compares_all_with_all(shop: Shop) -> None:
    assert "Nested Loop" in plan(shop, demo.COMPARE, {"customer": 400})


def test_one_is_quick_and_asked_far_too_often(prepared: Cluster, shop: Shop) -> None:
    demo.look_up(shop)

    calls = cost(prepared, demo.LOOKUP, "calls")
    assert calls == demo.LOOKUPS
    assert cost(prepared, demo.LOOKUP, "total_exec_time") / calls < 1


def test_one_becomes_slower_as_its_table_grows_and_quick_when_that_is_emptied(
    prepared: Cluster, shop: Shop
) -> None:
    """Blocks, not milliseconds: they say the same on a busy machine."""

    def blocks() -> float:
        before = cost(prepared, demo.VISITORS, "shared_blks_hit")
        before += cost(prepared, demo.VISITORS, "shared_blks_read")
        shop.execute(demo.VISITORS, {"pattern": "%/sale/1%"})
        after = cost(prepared, demo.VISITORS, "shared_blks_hit")
        return after + cost(prepared, demo.VISITORS, "shared_blks_read") - before

    def rows() -> int:
        row = shop.execute("SELECT count(*) FROM public.visits").fetchone()
        assert row is not None
        return int(row[0])

    shop.execute("TRUNCATE public.visits")
    demo.grow_visits(shop)
    quick = blocks()
    most = 0
    while rows() > most:
        most = rows()
        slow = blocks()
        demo.grow_visits(shop)
    again = blocks()

    assert demo.VISITS_AT_MOST <= most <= demo.VISITS_AT_MOST + 2 * demo.VISITS_A_BEAT
    assert rows() == demo.VISITS_A_BEAT
    assert slow > 20 * quick
    assert again < 5 * quick


@pytest.mark.slow
def test_they_run_by_themselves(
    prepared: Cluster, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    with prepared.connect(dbname="shop") as superuser:
        superuser.execute("SELECT public.pg_stat_statements_reset()")
    child = processes.start(
        "demo",
        [sys.executable, "-m", "dashboard.embedded.demo"],
        log=tmp_path / "demo.log",
        env=dict(os.environ),
    )
    try:
        for statement in (demo.SCAN, demo.SORT, demo.COMPARE, demo.LOOKUP, demo.VISITORS):

            def has_run(statement: str = statement) -> bool:
                return cost(prepared, statement, "calls") > 0

            eventually(has_run, seconds=60)
    finally:
        child.stop()
