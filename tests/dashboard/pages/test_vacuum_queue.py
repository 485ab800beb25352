"""The queue of autovacuum, its export, and the same by command."""

from __future__ import annotations

import io
import json
import re
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from monitors.models import HISTORY, Database, Snapshot, Target, VacuumRun
from monitors.rows import vacuuming
from monitors.rows.queue import QUEUE_COLUMNS, QueueRow
from monitors.rows.running import RUNNING_COLUMNS, RunningRow
from tests.typed import assert_typed


@pytest.fixture
def queue(shop, browse):
    """A function from a query to the page's text, as a viewer sees it."""
    client, address = browse("viewer"), reverse("vacuum-queue", args=[shop.name])

    def get(query: str = "") -> str:
        response = client.get(address + query)
        assert response.status_code == 200
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


@pytest.fixture
def tables(shop, place):
    """A function that adds tables as if they had been read, none of them due by itself."""
    latest = HISTORY["tables"].latest._default_manager
    like = latest.filter(target_id=shop.pk, relid=place["relid"]).values(
        "database_id", "relfrozenxid", "relminmxid", "since_at", "changed_at"
    )[0]
    latest.filter(target_id=shop.pk).exclude(relid=place["relid"]).delete()
    HISTORY["catalogs"].latest._default_manager.filter(target_id=shop.pk).delete()

    def add(relid: int, **fields):
        values = {
            "schemaname": "public", "relname": f"t{relid}", "relkind": "r", "reltuples": 1000.0,
            "relpages": 10, "n_live_tup": 1000, "n_dead_tup": 0, "n_ins_since_vacuum": 0,
            "n_mod_since_analyze": 0, "toastrelid": 0, "pg_class_ctid": f"(0,{relid})",
        }  # fmt: skip
        latest.create(target_id=shop.pk, relid=relid, **{**like, **values, **fields})

    return add


@pytest.fixture
def vacuuming_now(shop, place):
    """A function that lets a vacuum of the table `junk` run since some seconds, read each 10 s."""
    history = HISTORY["progress"]

    def run(pid: int = 4711, *, seconds: int = 300, pages: int = 3000, **fields):
        now = timezone.now()
        start = now - timedelta(seconds=seconds)
        total = 2 * pages
        facts = {
            "target_id": shop.pk, "database_id": 0, "pid": pid, "command": "VACUUM", "datname": "shop",
            "relid": place["relid"], "phase": "scanning heap", "total": total, "autovacuum": True,
            "wraparound": False, "started_at": start, "heap_blks_total": total,
            "heap_blks_vacuumed": 0, "index_vacuum_count": 0, "dead_tuple_bytes": 3 * 1024**2,
            "max_dead_tuple_bytes": 64 * 1024**2, "num_dead_item_ids": 1234,
            "wait_event_type": None, "wait_event": None,
        }  # fmt: skip
        for step in range(seconds // 10 + 1):
            at = start + timedelta(seconds=10 * step)
            done = pages * step * 10 // seconds
            values = {**facts, "done": done, "heap_blks_scanned": done, **fields}
            history.samples._default_manager.create(
                **values, taken_at=at, target_at=at, change=0, interval_seconds=10
            )
        history.latest._default_manager.create(**values, since_at=start, changed_at=now)

    return run


def relids(text: str) -> list[int]:
    return [row["relid"] for row in json.loads(text)]


def test_only_what_is_due_is_queued_in_the_order_of_pg_class(queue, tables):
    tables(3, n_dead_tup=251)
    tables(1, n_dead_tup=250)
    tables(2, n_mod_since_analyze=151, pg_class_ctid="(7,1)")
    tables(4, n_ins_since_vacuum=1201, pg_class_ctid="(0,2)")

    rows = json.loads(queue("?format=json"))

    assert [row["relid"] for row in rows] == [4, 3, 2]
    assert [row["does"] for row in rows] == ["vacuum", "vacuum", "analyze"]
    assert [row["position"] for row in rows] == [1, 2, 3]
    assert tuple(rows[0]) == QUEUE_COLUMNS
    assert rows[1]["score"] == pytest.approx(251 / 250)
    assert rows[1]["reason"] == "dead rows"


def test_from_19_on_the_greatest_score_comes_first(queue, tables, shop):
    tables(3, n_dead_tup=251)
    tables(2, n_dead_tup=9000, pg_class_ctid="(7,1)")
    assert relids(queue("?format=json")) == [3, 2]

    Target.objects.filter(pk=shop.pk).update(server_version=190000)

    assert relids(queue("?format=json")) == [2, 3]
    assert "takes the greatest score first" in queue()


def test_it_sorts_searches_and_exports_what_matches(queue, tables):
    for relid in range(1, 61):
        tables(relid, n_dead_tup=300 + relid)

    assert relids(queue("?format=json&sort=-score"))[0] == 60
    assert queue("?q=t1&format=csv").count("\n") == 12  # a head, t1 and t10 to t19
    assert queue().count('<tr id="due-') == 50
    assert queue("?page=2").count('<tr id="due-') == 10


def test_times_come_from_the_tables_own_runs(queue, tables, shop):
    [database] = Database.objects.filter(target=shop, datname="shop")
    now = timezone.now()
    for relid, lengths in ((1, (100, 20, 30)), (2, ())):
        tables(relid, n_dead_tup=300)
        for age, length in enumerate(lengths):
            VacuumRun.objects.create(
                target_id=shop.pk, database_id=database.pk, relid=relid, kind="autovacuum",
                exactness="timed", seconds=length, ended_at=now - timedelta(hours=age), seen_at=now,
            )  # fmt: skip
    tables(3, n_dead_tup=300)

    first, second, third = json.loads(queue("?format=json"))

    assert [row["expected_seconds"] for row in (first, second, third)] == [30, None, None]
    assert second["expected_start_at"] > first["expected_start_at"]
    assert third["expected_start_at"] is None  # after a table whose time is not known


def test_a_toast_table_is_queued_under_its_tables_name(queue, tables):
    tables(1, toastrelid=2)
    tables(2, relkind="t", schemaname="pg_toast", relname="pg_toast_1", n_dead_tup=300)

    [row] = json.loads(queue("?format=json"))

    assert row["toast_of"] == "public.t1"
    assert "TOAST of public.t1" in queue()


def test_a_table_that_a_worker_has_is_running(queue, tables, place, vacuuming_now):
    tables(1, n_dead_tup=300)
    vacuuming_now(relid=1)

    [row] = json.loads(queue("?format=json"))

    assert row["state"] == "running"


def test_a_running_vacuum_has_speed_eta_and_memory(queue, vacuuming_now):
    vacuuming_now()

    [row] = json.loads(queue("?view=running&format=json"))

    assert tuple(row) == RUNNING_COLUMNS
    assert row["pct"] == pytest.approx(50, abs=1)
    assert row["pages_per_second"] == pytest.approx(10, rel=0.02)
    assert row["eta_seconds"] == pytest.approx(300, rel=0.02)
    assert row["eta_error_pct"] < 1
    assert row["eta_of"] == "phase"  # what comes after the scan is not known
    assert row["dead_memory_pct"] == pytest.approx(100 * 3 / 64)


def test_why_it_is_slow_stands_on_the_page(queue, vacuuming_now):
    vacuuming_now(wait_event_type="Timeout", wait_event="VacuumDelay")

    text = queue()

    assert "It sleeps in 100 % of 24 samples for the cost limit" in text


def test_nothing_due_has_words(queue, tables, shop, place):
    assert "Nothing waits, and 1 table has passed a threshold" in queue()

    HISTORY["tables"].latest._default_manager.filter(relid=place["relid"]).delete()
    tables(1)
    assert "No table is due. Good." in queue()

    type(shop).objects.filter(pk=shop.pk).update(settings={})
    assert "settings have not been read yet" in queue()


def test_the_vacuum_page_shows_the_head_of_the_queue(browse, shop, tables):
    for relid in range(1, 9):
        tables(relid, n_dead_tup=300)

    text = browse("viewer").get(reverse("vacuum", args=[shop.name])).content.decode()

    assert text.count('<tr id="due-') == 5
    assert "8 in the queue" in text


def test_an_unknown_view_is_a_bad_request(browse, shop):
    address = reverse("vacuum-queue", args=[shop.name])

    assert browse("viewer").get(address, {"view": "x"}).status_code == 400


def test_the_command_says_the_same(shop, tables, vacuuming_now, queue):
    tables(1, n_dead_tup=300)
    vacuuming_now()
    out = io.StringIO()
    call_command("autovacuum", shop.name, "--json", stdout=out)

    said = json.loads(out.getvalue())

    assert out.getvalue().count("\n") == 1
    assert [row["relid"] for row in said["queue"]] == relids(queue("?format=json"))
    assert [row["pid"] for row in said["running"]] == [4711]
    assert said["workers"]["most"] == 3
    people = io.StringIO()
    call_command("autovacuum", shop.name, stdout=people)
    assert "1. shop: public.t1  vacuum (dead rows), score 1.20, waiting" in people.getvalue()
    assert "Workers: 1 of 3 busy" in people.getvalue()


def test_it_draws_the_busy_workers_beside_how_many_there_may_be(queue, vacuuming_now, shop):
    for second in range(0, 310, 10):
        Snapshot.objects.create(
            target_id=shop.pk, database_id=0, probe="progress", state="ok", interval_seconds=10,
            taken_at=timezone.now() - timedelta(seconds=300 - second),
        )  # fmt: skip
    vacuuming_now()
    vacuuming_now(4712, seconds=120)

    text = queue()

    chart = json.loads(re.findall(r'id="workers-data"[^>]*>(.*?)</template>', text)[0])
    [busy] = chart["series"]
    known = [value for value in busy["values"] if value is not None]
    assert (known[-1], max(known)) == (2, 2)
    assert 1 in known
    [limit] = chart["lines"]
    assert limit["value"] == int(shop.settings["autovacuum_max_workers"])
    assert limit["always"] is True


def test_a_catalog_is_queued_without_a_page(queue, tables, shop, place):
    """Nobody vacuums it by hand: it stands in the queue, and leads nowhere."""
    tables(1, n_dead_tup=900)
    like = (
        HISTORY["tables"]
        .latest._default_manager.filter(relid=place["relid"])
        .values("database_id", "relfrozenxid", "relminmxid", "since_at", "changed_at")[0]
    )
    HISTORY["catalogs"].latest._default_manager.create(
        target_id=shop.pk, relid=1255, schemaname="pg_catalog", relname="pg_proc", relkind="r",
        reltuples=1000.0, relpages=10, n_dead_tup=900, n_ins_since_vacuum=0, toastrelid=0,
        n_mod_since_analyze=0, pg_class_ctid="(0,0)", **like,
    )  # fmt: skip

    text = queue()

    assert '<span class="name">pg_catalog.pg_proc</span>' in text
    assert text.index("pg_catalog.pg_proc") < text.index("public.t1")
    assert f"/databases/{place['datid']}/tables/1255/" not in text


def test_rows_are_what_their_types_say(shop, tables, vacuuming_now):
    tables(1, n_dead_tup=300)
    tables(2, n_dead_tup=300, relname=None)
    vacuuming_now()
    vacuuming_now(pid=4712, relid=None)

    state = vacuuming.state_of(shop)

    assert len(state.queue) == len(state.running) == 2
    for due in state.queue:
        assert_typed(due, QueueRow)
    for running in state.running:
        assert_typed(running, RunningRow)
