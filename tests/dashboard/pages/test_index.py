"""The page of one index."""

from __future__ import annotations

import json
import re

import pytest
from django.urls import resolve, reverse
from django.utils import timezone

from dashboard.pages.index import JudgedRow, found
from monitors.collect.rounds import take_now
from monitors.history.window import Window
from monitors.models import HISTORY, Database
from tests.typed import assert_typed


@pytest.fixture
def address(embedded, shop, worker_id):
    """The page's address of an index that was read, of a table of the test's own."""
    name = f"indexed_{worker_id}"
    with embedded.connect(user="owner", dbname="shop") as setup:
        setup.execute(f"DROP TABLE IF EXISTS {name}")
        setup.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)")
        setup.execute(f"INSERT INTO {name} SELECT generate_series(1, 1000)")
        setup.execute(f"ANALYZE {name}")
    take_now(shop, ["tables", "indexes", "bloat"])
    row = (
        HISTORY["indexes"]
        .latest._default_manager.values("database_id", "indexrelid")
        .get(target_id=shop.pk, indexrelname=f"{name}_pkey")
    )
    database = Database.objects.get(pk=row["database_id"])
    yield reverse("index", args=[shop.name, database.datid, row["indexrelid"]])
    with embedded.connect(user="owner", dbname="shop") as cleanup:
        cleanup.execute(f"DROP TABLE {name}")


def test_it_shows_definition_use_and_why_its_waste_is_not_known(address, browse, worker_id):
    text = browse("viewer").get(address).content.decode()

    assert f"indexed_{worker_id}_pkey" in text
    assert "CREATE" in text
    assert "primary key" in text
    assert "The login may not see its statistics." in text
    assert "Size and waste" in text


def test_it_is_exported(address, browse, worker_id):
    response = browse("viewer").get(address, {"format": "json"})

    [row] = json.loads(b"".join(response.streaming_content))
    assert (row["database"], row["relname"]) == ("shop", f"indexed_{worker_id}")
    assert row["indexdef"].startswith("CREATE UNIQUE INDEX")
    assert (row["bloat_bytes"], row["method"]) == (None, None)
    assert row["size_bytes"] > 0


def test_an_unknown_index_is_not_found(shop, browse):
    assert browse("viewer").get(reverse("index", args=[shop.name, 1, 2])).status_code == 404


def test_the_tables_list_of_indexes_leads_to_it(address, browse, shop, worker_id):
    row = (
        HISTORY["tables"]
        .latest._default_manager.values("database_id", "relid")
        .get(target_id=shop.pk, relname=f"indexed_{worker_id}")
    )
    datid = Database.objects.get(pk=row["database_id"]).datid
    text = (
        browse("viewer")
        .get(reverse("table", args=[shop.name, datid, row["relid"]]))
        .content.decode()
    )

    assert f'href="{address}"' in text


@pytest.mark.parametrize("judged", [True, False])
def test_its_row_is_typed(address, shop, judged):
    place = resolve(address).kwargs
    database = Database.objects.get(target=shop, datid=place["datid"])
    if not judged:
        HISTORY["bloat"].latest._default_manager.all().delete()

    row = found(shop, Window.last("1h", timezone.now()), database, place["indexrelid"])

    assert (row["judged"] is not None) is judged
    assert_typed(row, JudgedRow)


def test_an_empty_index_has_no_entries_which_is_known(embedded, shop, address, browse, worker_id):
    with embedded.connect(user="owner", dbname="shop") as session:
        session.execute(f"TRUNCATE indexed_{worker_id}; ANALYZE indexed_{worker_id}")
        session.execute(f"VACUUM indexed_{worker_id}")
    take_now(shop, ["tables", "indexes", "bloat"])

    text = browse("viewer").get(address).content.decode()

    assert re.search(r"Entries</dt><dd class=\"tile-value\">0</dd>", text)
