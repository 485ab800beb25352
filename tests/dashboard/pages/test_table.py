"""The page of one table."""

from __future__ import annotations

import json
import re

import pytest
from django.urls import reverse
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Action, Database, Target, VacuumRun
from monitors.models.history import Change
from monitors.rows.autovacuum import Explanation, PartRow, TriggerRow
from tests.typed import assert_typed


@pytest.fixture
def read(place, browse):
    """A function from a query to the page's text, as a DBA sees it."""
    client, address = browse("dba"), reverse("table", kwargs=place)

    def get(query: str = "") -> str:
        response = client.get(address + query)
        assert response.status_code == 200
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


def test_it_shows_the_table_and_every_chart(read, junk):
    text = read()

    assert junk.replace('"', "&quot;&quot;") in text
    for chart in ("dead", "live", "size"):
        data = json.loads(re.findall(rf'id="{chart}-data"[^>]*>(.*?)</template>', text)[0])
        assert len(data["series"]) == 1
    assert "autovacuum_enabled" in text


def test_where_rows_are_not_counted_those_of_toast_are_not_known_either(
    embedded, shop, browse, worker_id
):
    name = f"toasted_{worker_id}"
    with embedded.connect(user="owner", dbname="shop") as session:
        session.execute(f"DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (words text)")
        long = "SELECT string_agg(md5(g::text), '') FROM generate_series(1, 1000) AS g"
        session.execute(f"INSERT INTO {name} {long}")
        session.execute("SELECT pg_stat_force_next_flush()")
    take_now(shop, ["tables"])
    tables = HISTORY["tables"].latest._default_manager.values("database_id", "relid")
    row = tables.get(target_id=shop.pk, relname=name)
    place = [shop.name, Database.objects.get(pk=row["database_id"]).datid, row["relid"]]
    client = browse("dba")

    counted = client.get(reverse("table", args=place)).content.decode()
    Target.objects.filter(pk=shop.pk).update(settings={**shop.settings, "track_counts": "off"})
    uncounted = client.get(reverse("table", args=place)).content.decode()
    with embedded.connect(user="owner", dbname="shop") as session:
        session.execute(f"DROP TABLE {name}")

    assert re.search(r"TOAST table</dt><dd>\d+ live rows, \d+ dead", counted)
    assert re.search(r"TOAST table</dt><dd>[^<\d]+ live rows, [^<\d]+ dead", uncounted)


def test_it_says_why_dead_rows_are_not_known(embedded, shop, browse, worker_id):
    name = f"anew_{worker_id}"
    with embedded.connect(user="owner", dbname="shop") as session:
        options = "autovacuum_vacuum_threshold = 1000000, autovacuum_analyze_threshold = 1000000"
        session.execute(f"CREATE TABLE {name} (id int) WITH ({options})")
        session.execute(f"INSERT INTO {name} SELECT generate_series(1, 5000)")
        session.execute(f"DELETE FROM {name} WHERE id <= 1234")
        session.execute("SELECT pg_stat_force_next_flush()")
        session.execute(f"VACUUM FULL {name}")
    take_now(shop, ["tables"])
    tables = HISTORY["tables"].latest._default_manager.values("database_id", "relid")
    row = tables.get(target_id=shop.pk, relname=name)
    place = [shop.name, Database.objects.get(pk=row["database_id"]).datid, row["relid"]]

    page = browse("dba").get(reverse("table", args=place)).content.decode()
    with embedded.connect(user="owner", dbname="shop") as session:
        session.execute(f"DROP TABLE {name}")

    assert "is not known until the next VACUUM or ANALYZE: the server counts 1,234" in page


@pytest.mark.parametrize("action", ["vacuum", "analyze", "vacuum_full"])
def test_it_offers_each_action_on_a_table(read, place, action):
    assert f'action="{reverse("action-new", args=[place["name"], action])}"' in read()


def test_a_vacuum_that_ran_is_listed_and_marked(read, shop, place):
    database = Database.objects.get(target=shop, datid=place["datid"])
    now = timezone.now()
    VacuumRun.objects.create(
        target_id=shop.pk, database_id=database.pk, relid=place["relid"], kind="autoanalyze", count=2,
        exactness="counted", ended_at=now, seen_at=now, by="autovacuum",
    )  # fmt: skip
    VacuumRun.objects.create(
        target_id=shop.pk, database_id=database.pk, relid=place["relid"], kind="vacuum", count=1,
        exactness="timed", ended_at=now, seen_at=now, seconds=754, phases={"scanning heap": 60.0},
    )  # fmt: skip

    text = read()

    assert "autoanalyze 2 times" in text
    assert "VACUUM by hand" in text
    assert "12 min 34 s" in text
    chart = json.loads(re.findall(r'id="dead-data"[^>]*>(.*?)</template>', text)[0])
    assert [mark["kind"] for mark in chart["marks"]].count("vacuum") == 2


def test_it_says_of_each_trigger_how_far_it_is_and_of_each_setting_whence_it_comes(read):
    text = read()
    panel = text[text.index('aria-label="Autovacuum"') :]
    panel = panel[: panel.index("</section>")]

    for words in ("dead rows", "rows inserted since", "rows changed since", "age of relfrozenxid"):
        assert words in panel
    assert "Autovacuum is off here" in panel
    assert '<span class="strong">this table</span>' in panel  # autovacuum_enabled
    assert "<td>default</td>" in panel
    assert "autovacuum_freeze_max_age" in panel


def test_what_was_done_from_here_is_listed(read, shop, junk):
    quoted = junk.replace('"', '""')
    Action.objects.create(
        name="vacuum", target=shop, target_name=shop.name, state="succeeded", asked_by_name="dba",
        arguments={"database": "shop", "table": f'public."{quoted}"'}, effect="dead rows 2,000 to 0",
        finished_at=timezone.now(),
    )  # fmt: skip

    assert "dead rows 2,000 to 0" in read()


def test_its_export_is_its_one_row(read, place):
    (row,) = json.loads(read("?format=json"))

    assert row["relid"] == place["relid"]
    assert row["n_dead_tup"] == 2000


def test_a_table_that_never_was_is_not_found(place, browse):
    client = browse("dba")

    assert client.get(reverse("table", kwargs={**place, "relid": 1})).status_code == 404
    assert client.get(reverse("table", kwargs={**place, "datid": 1})).status_code == 404


def test_a_dropped_table_keeps_its_page_and_says_so(read, shop, place, embedded):
    HISTORY["tables"].latest._default_manager.filter(relid=place["relid"]).update(
        gone_at=timezone.now()
    )

    assert "This table is gone since" in read()


def test_a_second_snapshot_leaves_the_page_whole(read, shop):
    take_now(shop)

    assert "Dead rows" in read()


@pytest.fixture
def indexes(shop, place):
    """A function that adds an index as if it had been read: indexes(oid, idx_scan=…)."""
    database = Database.objects.get(target=shop, datid=place["datid"])

    def add(indexrelid: int, *, scans: int | None = None, **fields):
        now = timezone.now()
        where = {"target_id": shop.pk, "database_id": database.pk, "indexrelid": indexrelid}
        HISTORY["indexes"].latest._default_manager.create(
            **where,
            since_at=now,
            changed_at=now,
            relid=place["relid"],
            **{"indexrelname": f"i{indexrelid}", "relpages": 3, "indisvalid": True, **fields},
        )
        if scans is not None:
            HISTORY["indexes"].samples._default_manager.create(
                **where, taken_at=now, target_at=now, change=Change.CHANGED, idx_scan=scans
            )

    return add


def index_row(text: str, indexrelid: int) -> str:
    start = text.index(f'<tr id="index-{indexrelid}"')
    return text[start : text.index("</tr>", start)]


def test_indexes_show_scans_in_the_window_and_since(read, indexes):
    indexes(1, scans=1234, idx_scan=98765, indexdef="CREATE INDEX i1 ON t (a)")
    indexes(2, idx_scan=7, relpages=128)

    text = read()

    assert "1,234</td>" in index_row(text, 1)
    assert "98,765</td>" in index_row(text, 1)
    assert "<b>CREATE</b>" in index_row(text, 1)
    assert ">0</td>" in index_row(text, 2)
    assert "1<span" in index_row(text, 2)  # 128 pages are 1 MB
    assert "Size is an estimate" in text


def test_indexes_carry_what_they_are(read, indexes):
    indexes(1, indisprimary=True, indisunique=True)
    indexes(2, indisunique=True)
    indexes(3, indisvalid=False)

    text = read()

    badges = {
        oid: re.findall(r"badge.*?>(?:<svg.*?</svg>)?(\w+)<", index_row(text, oid))
        for oid in (1, 2, 3)
    }
    assert badges == {1: ["primary"], 2: ["unique"], 3: ["invalid"]}
    assert text.index('id="index-1"') < text.index('id="index-2"')


@pytest.mark.parametrize(("version", "shown"), [(150004, False), (160000, True)])
def test_the_last_scan_is_shown_where_the_server_says_it(read, indexes, shop, version, shown):
    indexes(1, last_idx_scan=timezone.now())
    Target.objects.filter(pk=shop.pk).update(server_version=version)

    assert ("Last scan" in read()) is shown


@pytest.mark.parametrize(("version", "offered"), [(180004, False), (190000, True)])
def test_from_19_on_it_can_be_repacked_while_it_is_used(shop, read, place, version, offered):
    shop.server_version = version
    shop.save()
    address = reverse("action-new", args=[place["name"], "repack"])

    assert (f'action="{address}"' in read()) is offered


def test_what_explains_autovacuum_is_what_its_types_say(browse, place):
    panel = browse("dba").get(reverse("table", kwargs=place)).context["autovacuum"]

    assert_typed(panel, Explanation)
    for part in panel["parts"]:
        assert_typed(part, PartRow)
        for trigger in part["triggers"]:
            assert_typed(trigger, TriggerRow)
