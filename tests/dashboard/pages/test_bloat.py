"""The Bloat page and its export, over a target that was really read."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from dashboard.pages.bloat import DrawnBloatRow, with_sparks
from monitors.collect.rounds import take_now
from monitors.history.window import Window
from monitors.models import HISTORY, Mark
from monitors.rows.bloat import COLUMNS, bloat_of
from tests.typed import assert_typed

MB = 1024**2
PROMISED = {
    "database",
    "schemaname",
    "relname",
    "indexrelname",
    "bloat_pct",
    "bloat_bytes",
    "method",
    "measured_at",
    "size_bytes",
}


@pytest.fixture
def read(shop, browse):
    """A function from a query to the page's text, as an operator sees it."""
    client, address = browse("operator"), reverse("bloat", args=[shop.name])

    def get(query: str = "") -> str:
        response = client.get(address + query)
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


@pytest.fixture
def objects(shop):
    """A function that adds objects as if they had been read: objects(relid, bloat_bytes=…)."""
    latest = HISTORY["bloat"].latest
    like = latest._default_manager.filter(target_id=shop.pk).values(
        "database_id", "since_at", "changed_at"
    )[0]

    def add(relid: int, **fields):
        size, waste = fields.get("size_bytes", 50 * MB), fields.get("bloat_bytes")
        values = {
            "schemaname": "public",
            "relname": f"t{relid}",
            "relkind": "r",
            "tablerelid": relid,
            "size_bytes": size,
            "bloat_pct": None if waste is None else 100 * waste / size,
            "method": None if waste is None else "approx",
            "measured_at": None if waste is None else timezone.now(),
            "fillfactor": 100,
            "not_estimated": "",
        }
        latest._default_manager.create(
            target_id=shop.pk, relid=relid, **{**like, **values, **fields}
        )

    return add


def names(text: str) -> list[str]:
    return re.findall(r'<tr id="row-\d+-(\d+)"', text)


def test_where_nothing_may_be_read_it_says_what_to_grant(read, objects):
    objects(1, not_estimated="unreadable")
    text = read()

    assert "How much is wasted is not known" in text
    assert "pg_read_all_data" in text
    assert "Install pgstattuple" in text
    assert "wasted-data" not in text  # no line of zeros


def test_what_wastes_most_comes_first_and_what_is_not_known_last(read, objects):
    objects(1, bloat_bytes=5 * MB)
    objects(2, bloat_bytes=9 * MB)

    assert names(read())[:2] == ["2", "1"]
    assert names(read("?sort=bloat_bytes"))[:2] == ["1", "2"]


def test_no_share_is_shown_of_what_is_small(read, objects):
    objects(1, size_bytes=9 * MB, bloat_bytes=8 * MB)
    objects(2, size_bytes=11 * MB, bloat_bytes=8 * MB)

    text = read()
    small, large = (
        re.findall(rf'<tr id="row-\d+-{relid}".*?</tr>', text, re.DOTALL)[0] for relid in (1, 2)
    )

    assert "No share is shown" in small
    assert '73<span class="unit">%' in large


def test_of_what_no_waste_is_known_the_largest_comes_first(read, objects):
    objects(1, bloat_bytes=5 * MB)
    for relid, size in ((2, 30 * MB), (3, None), (4, 70 * MB)):
        objects(relid, size_bytes=size, not_estimated="never_analyzed")

    assert [name for name in names(read()) if name in {"1", "2", "3", "4"}] == ["1", "4", "2", "3"]
    assert '70<span class="unit">MB' in read()


def test_tabs_divide_tables_indexes_and_schemas(read, objects):
    objects(1, bloat_bytes=5 * MB)
    objects(2, bloat_bytes=6 * MB, relkind="i", indexrelname="t1_pkey", tablerelid=1)
    objects(3, bloat_bytes=7 * MB, relkind="t", relname="t1", tablerelid=1)

    assert "2" not in names(read("?tab=tables"))
    assert {"1", "3"} <= set(names(read("?tab=tables")))
    assert names(read("?tab=indexes"))[0] == "2"
    assert "TOAST of" in read("?tab=tables")
    [row] = [
        one for one in json.loads(read("?tab=schemas&format=json")) if one["schemaname"] == "public"
    ]
    assert (row["table_bytes"], row["index_bytes"]) == (12 * MB, 6 * MB)


def test_schemas_and_databases_have_a_history_of_their_own(shop, read, objects):
    before = {"changed_at": timezone.now() - timedelta(hours=25)}
    objects(1, schemaname="alpha", bloat_bytes=5 * MB, **before)
    objects(2, schemaname="beta", bloat_bytes=9 * MB, **before)
    objects(3, schemaname="beta", bloat_bytes=2 * MB, relkind="i", indexrelname="i", **before)
    take_now(shop)

    def lines(query: str) -> dict[str, float]:
        [text] = re.findall(r'id="wasted-data">(.*?)</template>', read(query), re.DOTALL)
        return {
            one["label"]: next(value for value in reversed(one["values"]) if value is not None)
            for one in json.loads(text)["series"]
        }

    found = lines("?tab=schemas")
    assert (found["alpha"], found["beta"]) == (5 * MB, 11 * MB)
    assert found["All"] == 16 * MB
    assert lines("?database=shop")["shop"] == 16 * MB
    assert set(lines("")) == {"All", "alpha.t1", "beta.t2", "beta.i"}


def test_the_export_has_just_the_keys_that_are_promised(read, objects):
    objects(1, bloat_bytes=5 * MB)
    rows = json.loads(read("?format=json&q=public.t1"))
    [line] = csv.DictReader(io.StringIO(read("?format=csv&q=public.t1"), newline=""))

    [row] = rows
    assert tuple(row) == tuple(line) == COLUMNS
    assert set(COLUMNS) >= PROMISED
    assert (row["database"], row["bloat_bytes"], row["method"]) == ("shop", 5 * MB, "approx")


def test_fifty_make_a_page(read, objects):
    for relid in range(1, 61):
        objects(relid, bloat_bytes=relid * MB)

    assert len(names(read("?q=public.t"))) == 50
    assert len(json.loads(read("?q=public.t&format=json"))) == 60


def test_a_grower_is_what_wastes_more_than_at_the_windows_start(shop, read):
    latest = HISTORY["bloat"].latest._default_manager.filter(target_id=shop.pk)
    row = latest.values("database_id", "relid")[0]
    samples = HISTORY["bloat"].samples._default_manager
    for ago, waste in ((50, 10 * MB), (1, 25 * MB)):
        at = timezone.now() - timedelta(minutes=ago)
        samples.create(
            target_id=shop.pk,
            database_id=row["database_id"],
            relid=row["relid"],
            taken_at=at,
            target_at=at,
            change=0,
            bloat_bytes=waste,
            method="approx",
        )

    [grown] = json.loads(read("?tab=growers&format=json"))

    assert (grown["relid"], grown["growth_bytes"]) == (row["relid"], 15 * MB)
    assert str(row["relid"]) in names(read("?tab=growers"))


def test_a_rewrite_is_a_mark_here_and_on_no_other_objects_chart(shop, read, objects, browse, place):
    objects(1, bloat_bytes=5 * MB)
    Mark.objects.create(
        target=shop, at=timezone.now(), kind="rewrite", relid=1, text="public.t1 was rewritten."
    )

    assert "public.t1 was rewritten." in read()
    other = browse("viewer").get(reverse("table", kwargs=place)).content.decode()
    assert "public.t1 was rewritten." not in other


def test_in_the_past_it_shows_what_was_there(shop, read, objects):
    objects(1, bloat_bytes=5 * MB)
    text = read(f"?at={(timezone.now() - timedelta(days=2)).timestamp()}")

    assert "Nothing is known of that moment" in text


def test_another_tab_is_refused(shop, browse):
    response = browse("viewer").get(reverse("bloat", args=[shop.name]), {"tab": "gin"})

    assert response.status_code == 400


def test_a_measured_target_says_how_it_is_known(embedded, shop, read):
    with embedded.connect(dbname="shop") as setup:
        setup.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
        try:
            take_now(shop, ["bloat"])
        finally:
            setup.execute("DROP EXTENSION pgstattuple")

    text = read()

    assert "By pgstattuple" in text
    assert "pg_read_all_data" not in text


@pytest.mark.parametrize(("version", "offered"), [(180004, False), (190000, True)])
def test_from_19_on_a_table_can_be_repacked_from_here(shop, read, objects, version, offered):
    objects(1, bloat_bytes=30 * MB)
    shop.server_version = version
    shop.save()

    assert ("<span>Repack<" in read()) is offered


def test_the_lines_of_the_page_are_typed(shop):
    window = Window.last("1h", timezone.now())
    rows = with_sparks(shop, window, bloat_of(shop, window, {}))

    assert rows
    for row in rows:
        assert_typed(row, DrawnBloatRow)
