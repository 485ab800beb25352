"""What our own database counts, orders and pages is what Python would have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from psycopg import sql

from monitors.history import objects
from monitors.history.latest import read_latest
from monitors.history.objects import Objects, Order
from monitors.models import Target
from monitors.rows import vacuuming
from monitors.rows.queue import may_be_due, near_due
from monitors.rules import autovacuum, wraparound
from tests.monitors.history.conftest import START
from tests.monitors.rules.test_autovacuum_queue import due, row
from tests.servers import Server

Keep = Callable[..., None]
IDS = [0, 1, 2, 3, 4, 1000, 2**31 - 2, 2**31, 2**31 + 1000, 2**32 - 1]


@pytest.fixture
def shop(db: None, embedded: Server, watch: Callable[..., Target]) -> Iterator[Target]:
    """A target that was really read, with a table that has a TOAST table and odd names."""
    from monitors.collect.rounds import take_now  # noqa: PLC0415 - after Django is set up

    with embedded.connect(dbname="shop") as connection:
        connection.execute("DROP SCHEMA IF EXISTS objects CASCADE; CREATE SCHEMA objects")
        connection.execute('CREATE TABLE objects."Half 50%" (id int, v text)')
        connection.execute("""INSERT INTO objects."Half 50%"
            SELECT 1, string_agg(md5(g::text), '') FROM generate_series(1, 1000) AS g""")
        connection.execute("CREATE TABLE objects.plain AS SELECT 1 AS id")
    target = watch(embedded, name="objects-1", dbname="shop", include=["shop"])
    take_now(target)
    target.refresh_from_db()
    yield target
    with embedded.connect(dbname="shop") as connection:
        connection.execute("DROP SCHEMA objects CASCADE")


def of_rows(rows: list[dict[str, Any]], what: objects.Term, where: objects.Term) -> list[Any]:
    """Evaluate an expression over rows as `latest` would hold them."""
    statement = sql.SQL(
        "SELECT {} FROM jsonb_populate_recordset(NULL::monitors_tables_latest, {}) WHERE {}"
    ).format(what, sql.Literal(json.dumps(rows)), where)
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return [value for (value,) in cursor.fetchall()]


@pytest.mark.django_db
@pytest.mark.parametrize("next_xid", [3, 1000, 2**31 + 5, 2**32 + 7, 5 * 2**32 - 1])
def test_ages_are_those_of_python(next_xid: int) -> None:
    rows = [{"relid": count, "relfrozenxid": xid} for count, xid in enumerate(IDS)]
    everywhere = objects.all_of()

    xids = of_rows(rows, objects.age("relfrozenxid", next_xid, 3), everywhere)
    multis = of_rows(rows, objects.age("relfrozenxid", next_xid), everywhere)

    assert xids == [autovacuum.xid_age(next_xid, xid) for xid in IDS]
    assert multis == [wraparound.mxid_age(next_xid, xid) for xid in IDS]


@pytest.mark.django_db
@pytest.mark.parametrize("version", [170000, 180004])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"autovacuum_vacuum_insert_threshold": "-1", "autovacuum_vacuum_scale_factor": "0.07"},
        {"autovacuum_vacuum_max_threshold": "60", "autovacuum_analyze_scale_factor": "0"},
        {"autovacuum_freeze_max_age": "100000", "autovacuum_vacuum_threshold": "0"},
    ],
)
def test_no_table_that_is_due_is_passed_over(version: int, settings: dict[str, str]) -> None:
    rows = [
        row(
            count * 3 + place,
            reltuples=float(count * 37 % 5000) - 1,
            relallfrozen=count % 3 * 90,
            relfrozenxid=100_000 + count,
            **{field: count * 3},
        )
        for count in range(1, 500)
        for place, field in enumerate(("n_dead_tup", "n_ins_since_vacuum", "n_mod_since_analyze"))
    ]
    rows += [row(9000 + step, relfrozenxid=1000 + step) for step in range(-3, 4)]
    rows += [row(9100, reloptions=["autovacuum_vacuum_threshold=1"], n_dead_tup=700)]
    for next_xid in (200_001_000, 200_500):
        near = may_be_due(settings, version, next_xid, 1)

        kept = set(of_rows(rows, objects.column("relid"), near))
        exact = due(*rows, settings=settings, version=version, next_xid=next_xid)

        assert {one.row["relid"] for one in exact} <= kept
        assert len(kept) < len(exact) + 20  # and hardly any other is looked at


def test_a_toast_table_comes_with_its_main_table(shop: Target) -> None:
    tables = Objects("tables", shop.pk)
    settings = {"autovacuum_vacuum_threshold": "-1", "autovacuum_vacuum_scale_factor": "0"}

    rows = near_due(
        tables,
        Objects("catalogs", shop.pk),
        settings,
        shop.server_version,
        vacuuming.visited_of(shop, None),
    )

    [main] = [one for one in rows if one["relname"] == "Half 50%"]
    assert main["toastrelid"] in {one["relid"] for one in rows if one["relkind"] == "t"}
    names = [(one["database_id"], one["relid"]) for one in rows]
    assert len(names) == len(set(names))


def test_the_past_is_what_it_was(target: Target, keep: Keep) -> None:
    keep(0, {1: {"numbackends": 1}, 2: {"numbackends": 9}, 3: {"numbackends": 3}})
    keep(1, {1: {"numbackends": 7}, 2: {"numbackends": 9}, 4: {"numbackends": 4}})
    keep(2, {1: {"numbackends": 8}, 2: {"numbackends": 9}})
    by = [Order(objects.column("numbackends"), greatest_first=True)]

    def backends(minutes: float, **page: Any) -> list[tuple[int, int]]:
        known = Objects("databases", target.pk, START + timedelta(minutes=minutes))
        return [(one["datid"], one["numbackends"]) for one in known.rows(order=by, **page)]

    assert backends(0.5) == [(2, 9), (3, 3), (1, 1)]
    assert backends(1.5) == [(2, 9), (1, 7), (4, 4)]
    assert backends(1.5, limit=1, offset=1) == [(1, 7)]
    assert backends(2.5) == [(2, 9), (1, 8)]
    now = Objects("databases", target.pk).rows(order=by)
    assert [(one["datid"], one["numbackends"]) for one in now] == [(2, 9), (1, 8)]


def test_pages_do_not_overlap_where_values_are_equal(target: Target, keep: Keep) -> None:
    keep(0, {number: {"numbackends": number % 2} for number in range(1, 21)})
    by = [Order(objects.column("numbackends"))]
    known = Objects("databases", target.pk)

    pages = [known.rows(order=by, limit=7, offset=start) for start in (0, 7, 14)]

    seen = [one["datid"] for page in pages for one in page]
    assert sorted(seen) == list(range(1, 21))
    assert len(seen) == 20


def test_what_is_not_known_comes_last_either_way(target: Target, keep: Keep) -> None:
    keep(0, {1: {"numbackends": 1}, 2: {}, 3: {"numbackends": 3}})
    known, column = Objects("databases", target.pk), objects.column("numbackends")

    for greatest_first, order in ((True, [3, 1, 2]), (False, [1, 3, 2])):
        rows = known.rows(order=[Order(column, greatest_first)])
        assert [one["datid"] for one in rows] == order


def test_groups_sum_what_is_known(target: Target, keep: Keep) -> None:
    keep(0, {1: {"numbackends": 1}, 2: {}, 3: {"numbackends": 3}})
    known = Objects("databases", target.pk)

    [group] = known.groups(["database_id"], ["numbackends"], ["datid"])

    assert (group["objects"], group["numbackends"], group["numbackends_known"]) == (3, 4, 2)
    assert group["datid"] == 3
    assert known.counts(
        all=objects.all_of(), some=objects.above(objects.column("numbackends"), 1)
    ) == {"all": 3, "some": 1}


def test_text_is_found_in_capitals_or_not_and_never_as_a_pattern(shop: Target) -> None:
    known = Objects("tables", shop.pk)

    def found(text: str) -> set[str]:
        rows = known.rows(objects.containing(text, "schemaname", "relname"))
        return {f"{one['schemaname']}.{one['relname']}" for one in rows}

    names = {f"{one['schemaname']}.{one['relname']}" for one in read_latest("tables", shop.pk)}
    assert found("OBJECTS.HALF") == {"objects.Half 50%"}
    assert "objects.plain" in names
    assert found("objects%") == set()
    assert found("%") == {one for one in names if "%" in one}
    assert found("'; DROP TABLE x; --") == set()
