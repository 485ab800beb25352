"""Bloat on real servers: estimated, measured, never invented, and true after a rewrite."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg import sql

from monitors import bloat
from monitors.history import series, settle
from monitors.models import HISTORY, Mark, Target
from monitors.probes.bloat import HEAP_SQL, PICK_SQL
from monitors.snapshot import take_now
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
    return {name_of(row): row for row in series.now("bloat", target.pk)}


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
        figures: dict[str, float]
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
