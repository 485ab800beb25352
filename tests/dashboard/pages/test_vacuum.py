"""The Vacuum page and its export."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from dashboard.pages.vacuum import DrawnTableRow, label_of, with_sparks
from monitors.history.window import Window
from monitors.models import HISTORY, Action
from monitors.models.history import Change
from monitors.rows.tables import COLUMNS, DeadRow, tables_of
from tests.typed import assert_typed


@pytest.fixture
def vacuum(shop, browse):
    """A function from a query to the page's text, as an operator sees it."""
    client, address = browse("operator"), reverse("vacuum", args=[shop.name])

    def get(query: str = "") -> str:
        response = client.get(address + query)
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


@pytest.fixture
def tables(shop):
    """A function that adds tables as if they had been read: tables(name=…, n_dead_tup=…)."""
    latest = HISTORY["tables"].latest
    rows = latest._default_manager.filter(target_id=shop.pk, relkind="r")
    like = rows.values("database_id", "relfrozenxid", "since_at", "changed_at")[0]

    def add(relid: int, **fields):
        values = {
            "schemaname": "public",
            "relkind": "r",
            "reltuples": 1000.0,
            "n_live_tup": 1000,
            "n_dead_tup": 0,
            "toastrelid": 0,
        }
        latest._default_manager.create(
            target_id=shop.pk,
            relid=relid,
            **{**like, **values, "relname": f"t{relid}", **fields},
        )

    return add


def names(text: str) -> list[str]:
    return re.findall(r'<tr id="row-\d+-(\d+)"', text)


def test_by_default_it_lists_what_has_more_than_a_thousand_dead_rows(vacuum, tables, place):
    tables(1, n_dead_tup=1000)
    tables(2, n_dead_tup=1001)

    found = names(vacuum())

    assert str(place["relid"]) in found
    assert "2" in found
    assert "1" not in found
    assert "1" in names(vacuum("?filter=all"))


def test_the_greatest_share_of_dead_rows_comes_first(vacuum, tables):
    tables(1, n_dead_tup=2000, n_live_tup=100_000)
    tables(2, n_dead_tup=1500, n_live_tup=10)

    found = names(vacuum())

    assert found.index("2") < found.index("1")


def test_it_sorts_by_any_column_either_way(vacuum, tables):
    for relid, dead in ((1, 5000), (2, 9000)):
        tables(relid, n_dead_tup=dead)

    assert names(vacuum("?sort=-n_dead_tup&q=public.t"))[:2] == ["2", "1"]
    assert names(vacuum("?sort=n_dead_tup&q=public.t"))[:2] == ["1", "2"]


def test_it_sorts_tables_with_few_dead_rows_by_their_limits(vacuum, tables):
    """Limits are worked out for what is listed, and for all only where they decide the order."""
    for relid, rows in ((1, 100.0), (2, 9000.0), (3, 500.0)):
        tables(relid, n_dead_tup=7, reltuples=rows)

    query = "?filter=all&q=public.t&sort="
    assert names(vacuum(f"{query}-vacuum_threshold")) == ["2", "3", "1"]
    assert names(vacuum(f"{query}threshold_pct")) == ["2", "3", "1"]
    found = json.loads(vacuum(f"{query}vacuum_threshold&format=json"))
    assert [row["vacuum_threshold"] for row in found] == [70, 150, 1850]


def test_fifty_rows_make_a_page_and_the_export_has_all(vacuum, tables):
    for relid in range(1, 61):
        tables(relid, n_dead_tup=2000 + relid)

    assert len(names(vacuum("?q=public.t"))) == 50
    assert len(names(vacuum("?q=public.t&page=2"))) == 10
    assert len(json.loads(vacuum("?q=public.t&page=2&format=json"))) == 60


def test_the_export_has_just_the_keys_that_are_promised(vacuum, place, junk):
    (row,) = json.loads(vacuum("?format=json"))

    assert tuple(row) == COLUMNS
    assert row["relname"] == junk
    assert row["relid"] == place["relid"]
    assert row["database"] == "shop"
    assert (row["n_live_tup"], row["n_dead_tup"]) == (1000, 2000)
    assert row["dead_pct"] == pytest.approx(200 / 3)
    assert row["autovacuum_enabled"] is False
    assert row["vacuum_threshold"] == 50
    assert row["threshold_pct"] == 4000
    assert row["xid_age"] >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", row["read_at"])


def test_csv_says_the_same_as_json(vacuum):
    (line,) = csv.DictReader(io.StringIO(vacuum("?format=csv"), newline=""))
    (row,) = json.loads(vacuum("?format=json"))

    assert list(line) == list(row)
    assert line["n_dead_tup"] == str(row["n_dead_tup"])
    assert line["autovacuum_enabled"] == "false"


def test_a_foreign_name_is_escaped_and_quoted(vacuum, tables):
    tables(1, n_dead_tup=5000, relname='<img src=x onerror="alert(1)">')

    text = vacuum()

    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def test_the_button_posts_the_table_as_postgresql_would_quote_it(vacuum, junk):
    text = vacuum()
    quoted = junk.replace('"', '""')
    expected = f'public."{quoted}"'.replace('"', "&quot;")

    assert f'name="table" value="{expected}"' in text
    assert 'name="analyze" value="true"' in text


def test_autovacuum_switched_off_carries_a_badge(vacuum, tables):
    tables(1, n_dead_tup=5000)

    text = vacuum("?filter=all")
    row = text[text.index('-1"><td class="tight pick-cell">') :]

    assert "autovacuum off" in text
    assert "autovacuum off" not in row[: row.index("</tr>")]


def test_the_filters_count_what_they_show(vacuum, tables):
    tables(1, n_dead_tup=5000)
    tables(2, n_dead_tup=10)

    text = vacuum()

    for key in ("need", "due", "off", "all"):
        (count,) = re.findall(rf"filter={key}[^>]*>[^<]*?(\d+)</a>", text)
        assert int(count) == len(names(vacuum(f"?filter={key}")))


def test_toast_tables_are_not_in_the_list(vacuum, tables):
    tables(1, n_dead_tup=5000, relkind="t", relname="pg_toast_1", schemaname="pg_toast")

    assert "1" not in names(vacuum("?filter=all"))


def test_a_table_without_rows_has_no_dead_share(vacuum, tables):
    tables(1, n_dead_tup=0, n_live_tup=0)
    rows = {row["relid"]: row for row in json.loads(vacuum("?filter=all&format=json"))}

    assert rows[1]["dead_pct"] is None


def test_running_maintenance_shows_phase_and_percent(vacuum, shop, place):
    HISTORY["progress"].latest._default_manager.create(
        target_id=shop.pk, database_id=0, pid=4711, command="VACUUM", datname="shop",
        relid=place["relid"], phase="scanning heap", done=30, total=120, autovacuum=True,
        wraparound=True, started_at=shop.created_at, since_at=shop.created_at,
        changed_at=shop.created_at,
    )  # fmt: skip

    text = vacuum()

    assert "scanning heap" in text
    assert '<progress max="100" value="25"' in text
    assert "to prevent wraparound" in text


def test_an_action_stands_on_the_chart(vacuum, shop):
    now = timezone.now()
    action = Action.objects.create(
        name="vacuum", target=shop, target_name=shop.name, object_name="public.t", state="succeeded",
        asked_by_name="dba", started_at=now, finished_at=now,
    )  # fmt: skip
    text = vacuum()

    chart = json.loads(re.findall(r'id="dead-data"[^>]*>(.*?)</template>', text)[0])
    assert [mark["kind"] for mark in chart["marks"]] == ["action"]
    assert chart["marks"][0]["url"] == reverse("action", args=[action.pk])


def test_a_table_that_was_just_vacuumed_keeps_its_line(vacuum, shop, place, junk):
    HISTORY["tables"].latest._default_manager.filter(relid=place["relid"]).update(n_dead_tup=0)

    chart = json.loads(re.findall(r'id="dead-data"[^>]*>(.*?)</template>', vacuum())[0])

    labels = [one["label"] for one in chart["series"]]
    assert labels[0] == "All tables"
    assert any(junk.split()[0] in label for label in labels[1:])


def test_the_chart_has_the_worst_of_now_and_of_the_window(vacuum, tables, shop, place, junk):
    """Four tables of the present, unless one of the past had more."""
    for relid in range(1, 6):
        tables(relid, n_dead_tup=1000 + relid)
    HISTORY["tables"].latest._default_manager.filter(relid=place["relid"]).update(n_dead_tup=0)

    chart = json.loads(re.findall(r'id="dead-data"[^>]*>(.*?)</template>', vacuum())[0])

    first, *labels = [one["label"] for one in chart["series"][1:]]
    assert junk.split()[0] in first
    assert labels == ["public.t5", "public.t4", "public.t3"]


def test_tables_of_one_name_in_two_databases_are_told_apart():
    alike = [
        DeadRow(database_id=place, relid=1, database=name, table="public.t")
        for place, name in enumerate("ab")
    ]
    other = DeadRow(database_id=0, relid=2, database="a", table="public.u")

    labels = [label_of(row, [*alike, other]) for row in (*alike, other)]
    assert labels == ["a: public.t", "b: public.t", "public.u"]


def test_the_past_shows_what_stood_then(vacuum, shop, place):
    """A table that grew after a moment has its earlier number there."""
    samples = HISTORY["tables"].samples._default_manager
    values = samples.filter(target_id=shop.pk, relid=place["relid"]).values()[0]
    moment = values["taken_at"]
    later = moment + timedelta(milliseconds=5)
    samples.create(**{**values, "taken_at": later, "n_dead_tup": 9999, "change": Change.CHANGED})
    HISTORY["tables"].latest._default_manager.filter(
        target_id=shop.pk, relid=place["relid"]
    ).update(n_dead_tup=9999, changed_at=later)

    (now,) = json.loads(vacuum("?format=json"))
    at = (moment + timedelta(milliseconds=1)).isoformat().replace("+", "%2B")
    (then,) = json.loads(vacuum(f"?format=json&at={at}"))

    assert (now["n_dead_tup"], then["n_dead_tup"]) == (9999, 2000)


def test_nothing_to_see_has_words(vacuum, shop):
    HISTORY["tables"].latest._default_manager.update(n_dead_tup=0)

    assert "No table needs vacuum. Good." in vacuum()
    assert "No table has that in its name" in vacuum("?q=no-such-table")


def test_the_lines_of_the_page_are_typed(shop):
    window = Window.last("1h", timezone.now())
    rows = with_sparks(shop, window, tables_of(shop, window, (), {}))

    assert rows
    for row in rows:
        assert_typed(row, DrawnTableRow)
