"""Partitioned tables: in the lists, with a page of their own, and told when nobody analyzed them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from django.urls import reverse
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.findings import keep, thresholds
from monitors.models import HISTORY, Database, FindingRecord, Fleet, Target
from tests.people import browser_of, person
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


@pytest.fixture
def events(server: Server, worker_id: str) -> Iterator[str]:
    """A table with two partitions, one of which is partitioned too; 900 rows, 300 of them dead."""
    name = f"events_{worker_id}"
    statements = (
        "DROP TABLE IF EXISTS {name}",
        "CREATE TABLE {name} (id int, kind int) PARTITION BY RANGE (id)",
        "CREATE TABLE {a} PARTITION OF {name} FOR VALUES FROM (0) TO (500)",
        "CREATE TABLE {b} PARTITION OF {name} FOR VALUES FROM (500) TO (1000) PARTITION BY LIST (kind)",
        "CREATE TABLE {c} PARTITION OF {b} DEFAULT",
        "INSERT INTO {name} SELECT g, 1 FROM generate_series(1, 900) AS g",
        "DELETE FROM {name} WHERE id % 3 = 0",
    )
    names = {
        "name": sql.Identifier(name),
        **{part: sql.Identifier(f"{name}_{part}") for part in "abc"},
    }
    with server.connect(user="owner", dbname="shop") as setup:
        for statement in statements:
            setup.execute(sql.SQL(statement).format(**names))
    yield name  # whoever leaves hands its counts in
    with server.connect(user="owner", dbname="shop") as cleanup:
        cleanup.execute(sql.SQL("DROP TABLE {name}").format(**names))


def counted(target: Target, name: str) -> dict[str, int | None]:
    """Take a snapshot; return the live rows of the table and its partitions."""
    take_now(target)
    latest = HISTORY["tables"].latest._default_manager.filter(
        target_id=target.pk, gone_at=None, relname__startswith=name
    )
    return dict(latest.values_list("relname", "n_live_tup"))


def test_it_is_in_the_list_with_a_page_and_the_sums_of_its_partitions(
    server: Server, watch: Callable[..., Target], events: str, eventually: Callable[..., None]
) -> None:
    target = watch(server)
    eventually(
        lambda: (
            counted(target, events)
            == {events: None, f"{events}_a": 333, f"{events}_b": None, f"{events}_c": 267}
        ),
        seconds=30,
    )
    viewer = browser_of(person("viewer", "viewer"))

    listed = json.loads(
        viewer.get(f"/targets/{target.name}/vacuum/?filter=all&format=json&q={events}").getvalue()
    )
    rows = {row["relname"]: row for row in listed}
    assert rows[events]["autovacuum_enabled"] is None
    assert rows[events]["vacuum_threshold"] is None
    assert rows[f"{events}_a"]["autovacuum_enabled"] is True
    due = json.loads(
        viewer.get(f"/targets/{target.name}/vacuum/?filter=off&format=json").getvalue()
    )
    assert events not in {row["relname"] for row in due}
    aged = json.loads(viewer.get(f"/targets/{target.name}/wraparound/?format=json").getvalue())
    assert events not in {row["relname"] for row in aged}

    database = Database.objects.get(target=target, datname="shop")
    place = reverse("table", args=[target.name, database.datid, rows[events]["relid"]])
    [whole] = json.loads(viewer.get(f"{place}?format=json").getvalue())
    assert (whole["n_live_tup"], whole["n_dead_tup"]) == (600, 300)
    assert whole["size_bytes"] > 0
    text = viewer.get(place).content.decode()
    for part in (f"{events}_a", f"{events}_b", f"{events}_c", "nobody ever has", "in 2 partitions"):
        assert part in text
    assert "off for this table" not in text


def test_one_that_was_never_analyzed_is_told_until_it_is(
    server: Server, watch: Callable[..., Target], events: str, eventually: Callable[..., None]
) -> None:
    target = watch(server)
    limits = {("partitioned_unanalyzed", "min_rows"): 100}
    thresholds.change("a", "test", Fleet(pk=1), limits)
    eventually(lambda: counted(target, events)[f"{events}_c"] == 267, seconds=30)

    keep.keep(target.pk, {"tables"})

    row = FindingRecord.objects.get(
        target=target, advisor="partitioned_unanalyzed", object_name=f"public.{events}"
    )
    assert "has 600 rows in 2 partitions and was never analyzed as a whole" in row.title
    with server.connect(user="owner", dbname="shop") as session:
        session.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(events)))

    def is_resolved() -> bool:
        take_now(target)
        keep.keep(target.pk, {"tables"})
        row.refresh_from_db()
        return row.resolved_at is not None

    eventually(is_resolved)  # 14's collector takes its time
