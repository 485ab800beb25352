"""Tables: what pg_stat_user_tables says, to the number."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Target
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]

SAME = (
    "seq_scan",
    "seq_tup_read",
    "n_tup_ins",
    "n_tup_upd",
    "n_tup_del",
    "n_tup_hot_upd",
    "n_live_tup",
    "n_dead_tup",
    "n_mod_since_analyze",
    "n_ins_since_vacuum",
    "vacuum_count",
    "autovacuum_count",
    "analyze_count",
    "autoanalyze_count",
    "last_vacuum",
    "last_analyze",
)
SINCE = {
    16: ("n_tup_newpage_upd", "last_seq_scan"),
    18: ("total_vacuum_time", "total_analyze_time"),
}


def test_it_agrees_with_the_view(
    server: Server, watch: Callable[..., Target], eventually: Callable[..., None]
) -> None:
    columns = [
        *SAME,
        *(n for major, names in SINCE.items() if server.major >= major for n in names),
    ]
    with server.connect(dbname="shop") as shop:
        shop.execute("DROP TABLE IF EXISTS agreed")
        shop.execute("CREATE TABLE agreed (id int PRIMARY KEY, v text)")
        shop.execute("INSERT INTO agreed SELECT g, 'x' FROM generate_series(1, 500) AS g")
        shop.execute("VACUUM ANALYZE agreed")
        shop.execute("UPDATE agreed SET v = 'y' WHERE id <= 50")
        shop.execute("DELETE FROM agreed WHERE id > 450")
        shop.execute("SELECT count(*) FROM agreed WHERE v = 'y'")
    with server.connect(dbname="shop") as shop:
        # The former session sends its counters when it ends; 14's collector takes a while.
        dead = "SELECT n_dead_tup = 100 FROM pg_stat_user_tables WHERE relname = 'agreed'"
        eventually(lambda: shop.execute(dead).fetchone() == (True,))
        target = watch(server)
        take_now(target, ["databases", "tables"])
        said = shop.execute(
            f"SELECT {', '.join(columns)} FROM pg_stat_user_tables WHERE relname = 'agreed'"
        ).fetchall()
        size = shop.execute("SELECT pg_total_relation_size('agreed')").fetchone()

    [row] = [row for row in read_latest("tables", target.pk) if row["relname"] == "agreed"]
    assert dict(zip(columns, said[0], strict=True)) == {name: row[name] for name in columns}
    assert row["n_dead_tup"] == 100
    assert (row["size_bytes"],) == size


def test_an_empty_toast_table_is_left_out_and_a_used_one_is_read(
    server: Server, watch: Callable[..., Target], eventually: Callable[..., None]
) -> None:
    with server.connect(dbname="shop") as shop:
        shop.execute("DROP TABLE IF EXISTS thin, wide")
        shop.execute("CREATE TABLE thin (v text)")
        shop.execute("CREATE TABLE wide (v text)")
        shop.execute("ALTER TABLE wide ALTER v SET STORAGE EXTERNAL")
        shop.execute("INSERT INTO wide VALUES (repeat('x', 50000))")
        toast = dict(
            shop.execute(
                "SELECT relname::text, reltoastrelid::bigint FROM pg_class"
                " WHERE relname IN ('thin', 'wide')"
            ).fetchall()
        )
    with server.connect(dbname="shop") as shop:  # 14's collector takes a while
        used = "SELECT pg_stat_get_tuples_inserted(%s::oid) > 0"
        eventually(lambda: shop.execute(used, [toast["wide"]]).fetchone() == (True,))
    target = watch(server)

    take_now(target, ["databases", "tables"])

    rows = {row["relid"]: row for row in read_latest("tables", target.pk)}
    assert toast["thin"] not in rows
    assert rows[toast["wide"]]["relkind"] == "t"
