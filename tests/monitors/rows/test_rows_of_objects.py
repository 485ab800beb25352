"""Rows of tables, indexes, bloat, ages and holders, read from real servers, against their types."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.history.growth import Growth
from monitors.history.window import Window
from monitors.models import HISTORY, Database, Target
from monitors.rows import (
    bloat,
    bloat_groups,
    horizon,
    indexes,
    mentions,
    partitions,
    table_ages,
    tables,
    wraparound,
)
from tests.servers import Server
from tests.typed import assert_typed

pytestmark = [pytest.mark.django_db, pytest.mark.fleet, pytest.mark.usefixtures("all_readable")]

MADE = """
CREATE TABLE {name} (id int PRIMARY KEY, text text) WITH (autovacuum_enabled = off);
ALTER TABLE {name} ALTER text SET STORAGE EXTERNAL;
INSERT INTO {name} SELECT n, repeat(md5(n::text), 200) FROM generate_series(1, 300) AS n;
ANALYZE {name};
DELETE FROM {name} WHERE id <= 100;
CREATE TABLE {whole} (id int) PARTITION BY RANGE (id);
CREATE TABLE {part} PARTITION OF {whole} FOR VALUES FROM (1) TO (1000);
INSERT INTO {whole} SELECT generate_series(1, 100);
"""


@pytest.fixture
def name(server: Server, eventually: Callable[..., None]) -> Iterator[str]:
    """The name of a table with TOAST, an index and dead rows, beside a partitioned one."""
    name = f"typed_{secrets.token_hex(4)}"
    names = {"name": name, "whole": f"{name}_whole", "part": f"{name}_part"}
    named = {key: sql.Identifier(value) for key, value in names.items()}
    with server.connect(user="owner", dbname="shop") as session:
        session.execute(sql.SQL(MADE).format(**named))

    def dead() -> bool:
        with server.connect(dbname="shop") as session:  # 14 tells its statistics late
            return session.execute(
                "SELECT pg_stat_get_dead_tuples(%s::regclass)", [name]
            ).fetchone() == (100,)

    eventually(dead)
    yield name
    with server.connect(user="owner", dbname="shop") as session:
        session.execute(sql.SQL("DROP TABLE {name}, {whole}").format(**named))


@pytest.fixture
def target(server: Server, name: str, watch: Callable[..., Target], live: Any) -> Target:
    """A target that was read twice; in between statements named the table, and one goes on."""
    found = watch(server)
    take_now(found)
    holder = live(server, user="owner", dbname="shop", autocommit=False)
    holder.execute("SELECT pg_current_xact_id()")
    holder.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name)))
    with server.connect(user="owner", dbname="shop") as session:
        session.execute("SELECT pg_current_xact_id()")
    take_now(found)
    found.refresh_from_db()
    return found


@pytest.fixture(params=[True, False], ids=["now", "then"])
def window(request: pytest.FixtureRequest, target: Target) -> Window:
    """The last hour, as the present and as a moment of the past."""
    now = timezone.now()
    return Window(now - timedelta(hours=1), now, is_live=request.param)


def row_of(target: Target, window: Window, name: str) -> tables.TableRow:
    """Return the row of one table."""
    return next(row for row in tables.tables_of(target, window, (), {}) if row["relname"] == name)


def test_tables_are_typed(target, window, name):
    rows = tables.tables_of(target, window, (), {})
    worst = tables.worst_of(target, window, 2)

    assert {name, f"{name}_whole", f"{name}_part"} <= {row["relname"] for row in rows}
    assert worst
    for row in rows:
        assert_typed(row, tables.TableRow)
    for dead in worst:
        assert_typed(dead, tables.DeadRow)


def test_a_partitioned_table_is_typed(target, window, name):
    row = row_of(target, window, f"{name}_whole")
    parts = partitions.partitions_of(target, window, row)

    whole = partitions.sum_up(row, parts)

    assert [part["relname"] for part in parts] == [f"{name}_part"]
    assert_typed(parts[0], tables.TableRow)
    assert_typed(whole, partitions.WholeRow)
    assert whole["size_bytes"] == parts[0]["size_bytes"]


def test_indexes_are_typed(target, window, name):
    [row] = indexes.indexes_of(target, window, row_of(target, window, name))

    assert_typed(row, indexes.IndexRow)
    assert row["indexrelname"] == f"{name}_pkey"


def test_what_is_wasted_is_typed(target, window, name):
    rows = bloat.bloat_of(target, window, {})
    groups = bloat_groups.groups_of(target, window)
    mine = next(row for row in rows if row["relname"] == name and row["kind"] == "table")
    database = Database.objects.get(pk=mine["database_id"])

    last = bloat.last_known(target, window, database, mine["relid"])

    assert {"table", "index", "TOAST"} <= {row["kind"] for row in rows}
    for row in rows:
        assert_typed(row, bloat.BloatRow)
    for group in groups:
        assert_typed(group, bloat_groups.GroupRow)
    for schema in bloat_groups.by_schema(groups):
        assert_typed(schema, bloat_groups.SchemaRow)
    assert last is not None
    assert_typed(last, bloat.BloatRow)


def test_growth_is_typed(target, name):
    window = Window.last("1h", timezone.now())
    [relid] = (
        HISTORY["bloat"]
        .latest._default_manager.filter(target_id=target.pk, relname=name, relkind="r")
        .values_list("relid", flat=True)
    )
    [database_id] = {row["database_id"] for row in bloat.bloat_of(target, window, {})}
    rows = tables.rows_at("bloat", target, window, {"relid": relid})
    grown = {(database_id, relid): Growth(0.0, 8192.0, jumped=False)}

    [row] = bloat.complete(target, window, rows, grown, (), measured={database_id})

    assert_typed(row, bloat.BloatRow)
    assert row["growth_bytes"] == 8192


def test_statements_of_a_table_are_typed(target, window, name):
    table = row_of(target, window, name)

    named = mentions.statements_naming(target, window, table)

    assert named.rows
    for row in named.rows:
        assert_typed(row, mentions.MentionRow)
    for cost in mentions.costs_of(target, window, table):
        assert_typed(cost, mentions.Cost)


def test_nothing_names_a_table_whose_name_was_not_read(target, name):
    window = Window.last("1h", timezone.now())
    table = row_of(target, window, name)

    named = mentions.statements_naming(target, window, {**table, "relname": None})

    assert named.rows == []


def test_ages_are_typed(target, window, name):
    readings = wraparound.readings_of(target, window)
    databases = wraparound.databases_of(target, window, readings)
    rows = table_ages.tables_of(target, window)

    assert "shop" in {row["database"] for row in databases}
    for database in databases:
        assert_typed(database, wraparound.DatabaseRow)
        assert_typed(database["xid_forced"], wraparound.DateWords)
    assert {"r", "t"} <= {row["relkind"] for row in rows if name in row["label"]}
    for row in rows:
        assert_typed(row, table_ages.AgedRow)
    table_ages.add_dates(rows, window, readings)
    for row in rows:
        assert_typed(row, table_ages.AgedRow)
        assert_typed(table_ages.with_words(row, window.end), table_ages.SaidRow)


def test_holders_are_typed(target, window):
    rows = horizon.holders_of(target, window)

    assert rows
    for row in rows:
        assert_typed(row, horizon.HolderRow)
