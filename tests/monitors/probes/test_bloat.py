"""Bloat on real servers: estimated, measured, never invented, and true after a rewrite."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.history import settle
from monitors.history.latest import read_latest
from monitors.models import HISTORY, Mark, Target
from monitors.probes.bloat import PICK_SQL
from monitors.rules import bloat
from tests import bloated
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]

ESTIMATE_POINTS = 6.0
"""How far an estimate may be from the truth, in percent of the size: docs/bloat.md says so."""
APPROX_POINTS = 2.0
MEASURED_POINTS = 6.0
LISTS_POINTS = 12.0
"""Of few equal keys: their long lists leave the end of each page empty, which density calls waste."""

Rows = dict[str, dict[str, Any]]


@pytest.fixture
def reader(server: Server, worker_id: str) -> Iterator[str]:
    """A login that may read statistics and data."""
    name = f"reader_{worker_id}_{secrets.token_hex(3)}"
    with server.connect() as setup:
        setup.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE pg_monitor, pg_read_all_data").format(
                sql.Identifier(name), sql.Literal(server.password)
            )
        )
        yield name
        setup.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def place(server: Server, worker_id: str) -> Iterator[str]:
    """An empty database of the test's own."""
    name = f"bloat_{worker_id}_{secrets.token_hex(3)}"
    with server.connect() as setup:
        setup.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield name
        setup.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def seeded(server: Server, place: str) -> str:
    """A database with tables and indexes of known bloat."""
    with server.connect(dbname=place) as setup:
        bloated.seed(setup)
    return place


def read(target: Target) -> Rows:
    """Take a snapshot; return the objects by name."""
    results = take_now(target, ["databases", "bloat"])
    assert {(r.probe, r.state, r.error) for r in results} == {
        ("databases", "ok", ""),
        ("bloat", "ok", ""),
    }
    return {name_of(row): row for row in read_latest("bloat", target.pk)}


def name_of(row: dict[str, Any]) -> str:
    if row["relkind"] == "t":
        return f"toast of {row['relname']}"
    return str(row["indexrelname"] or row["relname"])


def share(waste: float, size: float) -> float:
    return 100 * waste / size


def test_estimates_and_measurements_agree_with_what_a_rewrite_gives_back(
    server: Server, watch: Callable[..., Target], reader: str, seeded: str
) -> None:
    target = watch(server, user=reader, dbname=seeded, include=[seeded])
    estimated = read(target)
    with server.connect(dbname=seeded) as setup:
        setup.execute("CREATE EXTENSION pgstattuple")
    measured = read(target)
    with server.connect(dbname=seeded) as setup:
        sizes, exact = bloated.sizes(setup), exactly(setup, measured)
        truth = bloated.rewritten(setup)

    assert {row["method"] for name, row in estimated.items() if "toast" not in name} == {"estimate"}
    assert estimated["toast of toasted"]["bloat_bytes"] is None
    assert estimated["toast of toasted"]["not_estimated"] == "toast"
    assert {row["method"] for row in measured.values()} == {"approx"}
    wrong = {}
    for name, (_, size) in sizes.items():
        true = share(truth[name], size)
        if estimated[name]["bloat_bytes"] is not None:
            said = estimated[name]["bloat_pct"]
            if abs(said - true) > ESTIMATE_POINTS and name != "toasted":
                wrong[name, "estimate"] = (said, true)
        said = measured[name]["bloat_pct"]
        if abs(said - share(exact[name], size)) > APPROX_POINTS:
            wrong[name, "approx"] = (said, share(exact[name], size))
        points = LISTS_POINTS if name.endswith("_kind") else MEASURED_POINTS
        if abs(share(exact[name], size) - true) > points and name != "toasted":
            wrong[name, "exact"] = (share(exact[name], size), true)
    assert wrong == {}


def exactly(setup: Any, rows: Rows) -> dict[str, float]:
    """Return the wasted bytes by pgstattuple and pgstatindex, by name."""
    found = {}
    for name, row in rows.items():
        keys: tuple[str, ...]
        if row["relkind"] == "i":
            values = setup.execute(
                "SELECT index_size, leaf_pages, avg_leaf_density, empty_pages, deleted_pages"
                " FROM pgstatindex(%s::oid::regclass)",
                [row["relid"]],
            ).fetchone()
            keys = ("size", "leaf_pages", "density", "empty", "deleted")
        else:
            values = setup.execute(
                "SELECT table_len, dead_tuple_len, free_space, tuple_count"
                " FROM pgstattuple(%s::oid::regclass)",
                [row["relid"]],
            ).fetchone()
            keys = ("size", "dead", "free", "rows")
        figures = dict(zip(keys, values, strict=True))
        judged = settle.judged(row, row, row["relkind"], figures, bloat.EXACT, row["measured_at"])
        found[name] = judged["bloat_bytes"]
    return found


def fill(server: Server, place: str, *statements: str) -> None:
    with server.connect(dbname=place) as setup:
        for statement in statements:
            setup.execute(statement)


def half_empty(name: str, rows: int = 20_000) -> list[str]:
    """Return statements that make a table of which every other row is gone, with an index."""
    return [
        f"CREATE TABLE {name} (id bigint, words text) WITH (autovacuum_enabled = false)",
        f"INSERT INTO {name} SELECT g, md5(g::text) FROM generate_series(1, {rows}) AS g",
        f"CREATE INDEX {name}_id ON {name} (id)",
        f"DELETE FROM {name} WHERE id % 2 = 0",
        f"VACUUM (ANALYZE) {name}",
    ]


def test_without_statistics_it_shows_no_number_instead_of_a_false_one(
    server: Server, watch: Callable[..., Target], place: str
) -> None:
    """The usual query says 90 % of whatever the login may not read."""
    fill(server, place, *half_empty("secret"), "CREATE TABLE idle AS SELECT 1 AS id")
    rows = read(watch(server, dbname=place, include=[place]))

    assert {name: row["not_estimated"] for name, row in rows.items()} == {
        "secret": "unreadable",
        "secret_id": "unreadable",
        "idle": "never_analyzed",
    }
    for row in rows.values():
        nothing = [row[key] for key in ("estimate_bytes", "bloat_bytes", "bloat_pct", "method")]
        assert nothing == [None] * 4
    assert rows["idle"]["size_bytes"] == 8192
    assert rows["secret"]["size_bytes"] > 1_000_000


def test_with_pgstattuple_pg_monitor_alone_is_enough(
    server: Server, watch: Callable[..., Target], place: str
) -> None:
    fill(
        server,
        place,
        *half_empty("secret"),
        "CREATE SCHEMA tools",
        "GRANT USAGE ON SCHEMA tools TO public",
    )
    fill(server, place, "CREATE EXTENSION pgstattuple SCHEMA tools")

    rows = read(watch(server, dbname=place, include=[place]))

    assert {row["method"] for row in rows.values()} == {"approx"}
    assert 45 < rows["secret"]["bloat_pct"] < 55
    assert 40 < rows["secret_id"]["bloat_pct"] < 55
    assert rows["secret"]["measured_at"] is not None


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("CREATE TABLE odd (who name, id int)", "name_column"),
        ("CREATE TABLE odd (id int)", "no_statistics"),
    ],
)
def test_what_statistics_can_not_tell_is_not_estimated(
    server: Server,
    watch: Callable[..., Target],
    reader: str,
    place: str,
    statement: str,
    reason: str,
) -> None:
    fill(
        server,
        place,
        statement,
        "INSERT INTO odd (id) SELECT g FROM generate_series(1, 5000) AS g",
        "VACUUM ANALYZE odd" if reason == "name_column" else "VACUUM odd",
    )
    [row] = read(watch(server, user=reader, dbname=place, include=[place])).values()

    assert (row["method"], row["not_estimated"]) == (None, reason)


def test_a_table_behind_row_security_is_not_estimated(
    server: Server, watch: Callable[..., Target], reader: str, place: str
) -> None:
    fill(server, place, *half_empty("guarded"), "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY")

    rows = read(watch(server, user=reader, dbname=place, include=[place]))

    assert rows["guarded"]["not_estimated"] == "unreadable"


def test_a_locked_table_delays_nothing_and_costs_itself_alone(
    server: Server, watch: Callable[..., Target], place: str
) -> None:
    fill(server, place, "CREATE EXTENSION pgstattuple", *half_empty("held"), *half_empty("free"))
    target = watch(server, dbname=place, include=[place])
    with server.connect(dbname=place, autocommit=False) as holder:
        holder.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
        since = server.log_size()
        rows = read(target)

    assert (rows["held"]["method"], rows["free"]["method"]) == (None, "approx")
    assert rows["held"]["size_bytes"] > 1_000_000
    assert "canceling statement due to lock timeout" not in server.log_text(since=since)
    assert read(target)["held"]["method"] == "approx"


def test_an_object_whose_file_is_missing_costs_itself_alone(
    server: Server, watch: Callable[..., Target], seeded: str, reader: str
) -> None:
    """As every unlogged table's is on a standby."""
    with server.connect(dbname=seeded) as setup:
        setup.execute("CREATE EXTENSION pgstattuple")
        setup.execute("CREATE TABLE lost AS SELECT g AS id FROM generate_series(1, 20000) AS g")
        setup.execute("ANALYZE lost")
        setup.execute("CHECKPOINT")
        row = setup.execute(
            "SELECT current_setting('data_directory') || '/' || pg_relation_filepath('lost')"
        ).fetchone()
    assert row is not None
    Path(row[0]).unlink()
    target = watch(server, user=reader, dbname=seeded, include=[seeded])

    rows = read(target)

    assert {row["method"] for name, row in rows.items() if name != "lost"} >= {"approx"}
    assert rows["lost"]["method"] == "estimate"


def test_it_measures_no_more_than_its_budget_what_wastes_most_first(
    server: Server, watch: Callable[..., Target], place: str
) -> None:
    measuring = HISTORY["bloat"].probe.measuring
    assert measuring is not None
    fill(
        server,
        place,
        "CREATE EXTENSION pgstattuple",
        *half_empty("small", 4000),
        *half_empty("large", 20_000),
        "DELETE FROM large WHERE id % 4 = 1",
        "DELETE FROM small WHERE id % 4 = 1",
        "ANALYZE",
    )
    target = watch(server, dbname=place, include=[place])
    object.__setattr__(measuring, "objects", 1)
    try:
        rows = read(target)
        again = read(target)
    finally:
        object.__setattr__(measuring, "objects", 200)

    assert [name for name, row in rows.items() if row["method"]] == ["large"]
    assert sum(row["method"] is not None for row in again.values()) == 2

    object.__setattr__(measuring, "pages", 5)
    try:
        budgeted = read(watch(server, name="shop-2", dbname=place, include=[place]))
    finally:
        object.__setattr__(measuring, "pages", 20_000)
    assert budgeted["large"]["method"] is None
    with server.connect(dbname=place) as connection:
        costs = {
            relid: pages
            for relid, _, pages in connection.execute(
                PICK_SQL, {"keys": [row["relid"] for row in rows.values()]}
            )
        }
    assert costs[rows["large"]["relid"]] > 5


def test_vacuum_full_and_reindex_are_seen_marked_and_calibrate(
    server: Server, watch: Callable[..., Target], place: str
) -> None:
    fill(server, place, *half_empty("book", 60_000))
    target = watch(server, dbname=place, include=[place])
    before = read(target)

    fill(server, place, "VACUUM FULL book")
    rows = read(target)

    assert before["book"]["method"] is None
    for name in ("book", "book_id"):
        assert (rows[name]["method"], rows[name]["bloat_bytes"]) == ("after-rewrite", 0)
        assert rows[name]["fresh_bytes_per_row"] > 10
    marks = Mark.objects.filter(target=target, kind="rewrite")
    assert {mark.relid for mark in marks} == {row["relid"] for row in rows.values()}
    mark = marks.get(relid=rows["book"]["relid"])
    assert re.fullmatch(r"public\.book was rewritten: [0-9.]+ MB → [0-9.]+ MB\.", mark.text)

    fill(server, place, "DELETE FROM book WHERE id % 4 = 1", "VACUUM book")
    rows = read(target)

    assert rows["book"]["method"] == "after-rewrite"
    assert rows["book"]["bloat_pct"] == pytest.approx(50, abs=2)
    assert rows["book_id"]["bloat_pct"] == pytest.approx(50, abs=2)

    fill(server, place, "REINDEX INDEX book_id")
    rows = read(target)

    assert rows["book_id"]["bloat_bytes"] == 0
    assert rows["book"]["bloat_pct"] == pytest.approx(50, abs=2)


def test_an_index_that_was_rebuilt_concurrently_is_the_same_one_rewritten(
    server: Server, watch: Callable[..., Target], place: str
) -> None:
    fill(server, place, *half_empty("book", 40_000), "VACUUM book")
    target = watch(server, dbname=place, include=[place])
    before = read(target)["book_id"]

    fill(server, place, "REINDEX INDEX CONCURRENTLY book_id")
    after = read(target)["book_id"]

    assert before["relid"] != after["relid"]
    assert (after["method"], after["bloat_bytes"]) == ("after-rewrite", 0)


def test_truncate_calibrates_nothing(
    server: Server, watch: Callable[..., Target], place: str
) -> None:
    fill(server, place, *half_empty("book", 30_000))
    target = watch(server, dbname=place, include=[place])
    read(target)

    fill(server, place, "TRUNCATE book")
    rows = read(target)

    assert rows["book"]["method"] is None
    assert rows["book"]["fresh_bytes_per_row"] is None
    assert not Mark.objects.filter(target=target, kind="rewrite").exists()


def test_a_measurement_gives_way_when_its_object_has_changed(
    server: Server, watch: Callable[..., Target], reader: str, place: str
) -> None:
    fill(server, place, "CREATE EXTENSION pgstattuple", *half_empty("book"))
    target = watch(server, user=reader, dbname=place, include=[place])
    assert read(target)["book"]["method"] == "approx"

    fill(server, place, "DROP EXTENSION pgstattuple")
    assert read(target)["book"]["method"] == "approx"

    fill(server, place, "DELETE FROM book WHERE id % 4 = 1", "VACUUM ANALYZE book")
    row = read(target)["book"]

    assert row["method"] == "estimate"
    assert row["bloat_pct"] == pytest.approx(75, abs=ESTIMATE_POINTS)


def test_what_does_not_change_writes_nothing(
    server: Server,
    watch: Callable[..., Target],
    reader: str,
    place: str,
    eventually: Callable[..., None],
) -> None:
    fill(server, place, *half_empty("book"))
    target = watch(server, user=reader, dbname=place, include=[place])
    read(target)

    # Up to 14 an analyze reaches the statistics some time after it is done.
    eventually(lambda: [r.stored for r in take_now(target, ["bloat"])] == [0])


def test_an_estimate_that_vacuum_made_doubtful_is_until_the_next_analyze(
    server: Server,
    watch: Callable[..., Target],
    reader: str,
    place: str,
    eventually: Callable[..., None],
) -> None:
    target = watch(server, user=reader, dbname=place, include=[place])

    def is_told(*, doubtful: bool) -> bool:
        row = read(target)["filled"]
        return row["method"] == "estimate" and bloat.is_doubtful(row) == doubtful

    with server.connect(dbname=place) as session:
        session.execute("CREATE TABLE filled AS SELECT generate_series(1, 50000) AS id")
        session.execute("ANALYZE filled")
        eventually(lambda: is_told(doubtful=False))  # 14's collector takes its time

        session.execute("VACUUM filled")
        eventually(lambda: is_told(doubtful=True))

        session.execute("ANALYZE filled")
        eventually(lambda: is_told(doubtful=False))


def test_a_toast_table_that_was_never_vacuumed_is_told(
    server: Server,
    watch: Callable[..., Target],
    reader: str,
    place: str,
    eventually: Callable[..., None],
) -> None:
    target = watch(server, user=reader, dbname=place, include=[place])
    with server.connect(dbname=place) as setup:
        setup.execute("CREATE TABLE wide (id int, body text)")
        setup.execute("ALTER TABLE wide ALTER body SET STORAGE EXTERNAL")
        setup.execute(
            "INSERT INTO wide SELECT g, repeat(md5(g::text), 190) FROM generate_series(1, 600) AS g"
        )
        setup.execute("DELETE FROM wide WHERE id % 4 <> 0")
        setup.execute("CREATE TABLE narrow (id int, body text)")
        setup.execute("INSERT INTO narrow VALUES (1, 'x')")

    eventually(lambda: "toast of wide" in read(target))  # 14's collector takes its time
    rows = read(target)
    assert rows["toast of wide"]["bloat_bytes"] is None
    assert rows["toast of wide"]["not_estimated"] == "never_analyzed"
    assert "toast of narrow" not in rows  # nothing is in it

    with server.connect(dbname=place) as setup:
        setup.execute("CREATE EXTENSION pgstattuple")
        [(size,)] = setup.execute(
            "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'wide'"
        )
    measured = read(target)["toast of wide"]
    assert measured["size_bytes"] == size
    assert 65 < measured["bloat_pct"] < 80


def test_no_index_that_was_just_made_is_told_wasted(
    server: Server, watch: Callable[..., Target], reader: str, place: str
) -> None:
    """Beside NULLs, in part of a table, and of types whose widths statistics cut."""
    fill(
        server,
        place,
        # Of all rows: how many of a sample are NULL, and how many bytes they have, is chance.
        "SET default_statistics_target = 1000",
        "CREATE TABLE fresh AS SELECT (g % 100)::smallint AS s,"
        " CASE WHEN g % 2 <> 0 THEN g * 1.37 END AS n,"
        " CASE WHEN g % 5 <> 0 THEN now() END AS ts,"
        " CASE WHEN g % 3 <> 0 THEN repeat('z', g % 20) END AS b,"
        " CASE WHEN g % 7 <> 0 THEN ARRAY['a', g::text] END AS words"
        " FROM generate_series(1, 60000) AS g",
        "CREATE INDEX fresh_part ON fresh (n) WHERE n IS NOT NULL",
        "CREATE INDEX fresh_part_words ON fresh (words) WHERE words IS NOT NULL",
        "CREATE INDEX fresh_part_two ON fresh (n, ts) WHERE n > 0",
        "CREATE INDEX fresh_words ON fresh (words)",
        "CREATE INDEX fresh_four ON fresh (s, n, ts, b)",
        "ANALYZE fresh",
        "CREATE EXTENSION pgstattuple",
    )
    with server.connect(dbname=place) as setup:
        density = setup.execute(
            "SELECT min(i.avg_leaf_density) FROM pg_class AS c"
            " CROSS JOIN LATERAL pgstatindex(c.oid::regclass) AS i WHERE c.relname ~ '^fresh_'"
        ).fetchone()
        setup.execute("DROP EXTENSION pgstattuple")

    rows = read(watch(server, user=reader, dbname=place, include=[place]))

    assert density is not None
    assert density[0] > 89  # of a fillfactor of 90: there is nothing to give back
    told = {name: row["bloat_pct"] for name, row in rows.items() if row["relkind"] == "i"}
    assert len(told) == 5
    assert {name: pct for name, pct in told.items() if pct is None or pct > 1.5} == {}


def test_a_table_that_was_never_vacuumed_has_a_size_and_no_waste(
    server: Server, watch: Callable[..., Target], reader: str, place: str
) -> None:
    fill(
        server,
        place,
        *(
            f"CREATE TABLE {name} WITH (autovacuum_enabled = off) AS"
            " SELECT generate_series(1, 50000) AS id"
            for name in ("loaded", "held")
        ),
    )
    target = watch(server, user=reader, dbname=place, include=[place])
    with server.connect(dbname=place) as session:
        [(size,)] = session.execute("SELECT pg_relation_size('loaded')")
    with server.connect(dbname=place, autocommit=False) as holder:
        holder.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
        rows = read(target)

    row = rows["loaded"]
    assert (row["size_bytes"], row["bloat_bytes"], row["method"]) == (size, None, None)
    assert row["not_estimated"] == "never_analyzed"
    assert rows["held"]["size_bytes"] is None  # nothing waits for it
    assert read(target)["held"]["size_bytes"] == size


def test_a_table_that_was_made_again_was_not_rewritten(
    server: Server, watch: Callable[..., Target], place: str
) -> None:
    making = (
        "CREATE TABLE again AS SELECT generate_series(1, 60000) AS id",
        "CREATE INDEX again_id ON again (id)",
        "ANALYZE again",
    )
    fill(server, place, *making)
    target = watch(server, dbname=place, include=[place])
    read(target)

    fill(server, place, "DROP TABLE again", *making)
    rows = read(target)

    assert rows["again_id"]["size_bytes"] > settle.MARKED_BYTES
    assert not Mark.objects.filter(target=target, kind="rewrite").exists()


def test_what_alter_table_writes_anew_is_marked(
    server: Server, watch: Callable[..., Target], place: str
) -> None:
    fill(
        server,
        place,
        "CREATE TABLE altered AS SELECT generate_series(1, 60000) AS id",
        "ANALYZE altered",
    )
    target = watch(server, dbname=place, include=[place])
    read(target)

    fill(server, place, "ALTER TABLE altered ALTER id TYPE bigint")
    read(target)

    mark = Mark.objects.get(target=target, kind="rewrite")
    assert re.fullmatch(r"public\.altered was rewritten: [0-9.]+ MB → [0-9.]+ MB\.", mark.text)
