"""Indexes of a past moment, and since when counters count, are those of then."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Mark
from monitors.words import NONE

READ = ["databases", "tables", "indexes", "bloat", "statements"]
MADE = """
DROP TABLE IF EXISTS past_indexed;
CREATE TABLE past_indexed (id int CONSTRAINT past_pkey PRIMARY KEY, other int);
CREATE INDEX past_other ON past_indexed (other);
INSERT INTO past_indexed SELECT n, n FROM generate_series(1, 1000) AS n;
SELECT pg_stat_reset();
"""
USED = """
SET enable_seqscan = off;
SELECT id FROM past_indexed WHERE other = 5;
SELECT pg_stat_force_next_flush();
"""
CHANGED = """
ALTER INDEX past_other RENAME TO later_other;
ALTER TABLE past_indexed RENAME CONSTRAINT past_pkey TO later_pkey;
"""


@pytest.fixture
def run(embedded, shop):
    """A function that runs statements in the database shop and reads it."""

    def change(text: str) -> None:
        with embedded.connect(dbname="shop", autocommit=True) as superuser:
            for statement in text.strip().split(";\n"):
                superuser.execute(statement)
        take_now(shop, READ)

    return change


@pytest.fixture
def addresses(run, shop) -> dict[str, str]:
    """The pages of a table and of one of its indexes, which was scanned once."""
    run(MADE)
    run(USED)
    rows = HISTORY["indexes"].latest._default_manager.values("database_id", "indexrelid", "relid")
    index = rows.get(target_id=shop.pk, indexrelname="past_other")
    datid = shop.databases_by_id[index["database_id"]].datid
    return {
        "index": reverse("index", args=[shop.name, datid, index["indexrelid"]]),
        "table": reverse("table", args=[shop.name, datid, index["relid"]]),
        "queries": reverse("queries", args=[shop.name]),
    }


@pytest.fixture
def get(addresses, browse):
    """A function from a page, a moment and a query to the page's text."""
    client = browse("dba")

    def read(page: str, at: datetime | None = None, query: str = "") -> str:
        moment = f"&at={at.timestamp():.6f}" if at else ""
        response = client.get(f"{addresses[page]}?window=1h{moment}{query}")
        assert response.status_code == 200
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return read


def exported(get, at: datetime | None = None) -> dict[str, Any]:
    [row] = json.loads(get("index", at, "&format=json"))
    return dict(row)


def fact(text: str, name: str) -> str:
    """Return what the page says of a fact, without markup; moments to the microsecond."""
    [found] = re.findall(rf"<dt>{name}</dt><dd>(.*?)</dd>", text, re.DOTALL)
    found = re.sub(r'<time datetime="([^"]+)"', r"\1 <time", found)
    return re.sub(r"<[^>]+>", "", found).strip()


def listed(text: str) -> list[tuple[str, str]]:
    """Return the name and all scans of each index of the table's page, and since when they count."""
    [head] = re.findall(r'<th scope="col" class="num p1">(Since.*?)</th>', text, re.DOTALL) or [""]
    rows = re.findall(
        r'<tr id="index-\d+">.*?<a class="name"[^>]*>(.*?)</a>.*?<td class="num p1">(.*?)</td>',
        text,
        re.DOTALL,
    )
    return [("", re.sub(r"<[^>]+>", "", head)), *rows]


def counted(text: str) -> str:
    """Return since when statements are counted, as the Queries page says."""
    [found] = re.findall(r"pg_stat_statements ha[sd] counted since <time[^>]*>(.*?)</time>", text)
    return str(found)


def test_an_index_of_then_has_name_definition_and_scans_of_then(run, get):
    at = timezone.now()
    then, page = exported(get), get("index")
    assert (then["idx_scan"], then["indexrelname"]) == (1, "past_other")

    run(CHANGED + USED)

    assert exported(get)["indexrelname"] == "later_other"
    assert exported(get)["idx_scan"] == 2
    assert exported(get, at) == then

    run("SELECT pg_stat_reset()")

    assert exported(get)["idx_scan"] == 0
    # How often it was used until then is not known once its counter began anew.
    assert exported(get, at) == {**then, "idx_scan": None}
    text = get("index", at)
    assert fact(text, "Scans counted since") == fact(page, "Scans counted since")
    assert fact(get("index"), "Scans counted since") != fact(page, "Scans counted since")
    assert fact(text, "Last scan") not in {"never", ""}
    nothing = rf'<span class="zero">{NONE}</span>'
    assert re.search(rf'All scans</dt><dd class="tile-value">{nothing}</dd>', text)
    assert '<dd class="tile-note" title="not known any more">' in text


def test_a_table_of_then_has_the_indexes_of_then(run, get):
    at = timezone.now()
    then = listed(get("table"))
    assert [name for name, _ in then[1:]] == ["past_pkey", "past_other"]

    run(CHANGED)
    assert listed(get("table", at)) == then
    run("DROP INDEX later_other")
    assert listed(get("table", at)) == then
    run("SELECT pg_stat_reset()")

    since, *rows = listed(get("table", at))
    assert since == then[0]
    assert [name for name, _ in rows] == ["past_pkey", "past_other"]
    assert rows[1] == then[2]  # it was dropped before its counter could begin anew
    assert "Not known any more" in rows[0][1]


def test_the_indexes_of_a_table_that_was_dropped_since_are_those_of_then(run, get):
    at = timezone.now()
    then = listed(get("table"))

    run("DROP TABLE past_indexed")

    assert listed(get("table", at)) == then
    assert "This table is gone" not in get("table", at)
    assert "This table is gone" in get("table", timezone.now())
    assert "This index is gone" not in get("index", at)
    assert "This index is gone" in get("index", timezone.now())


def test_of_a_moment_before_the_first_reading_nothing_is_told_as_known(get):
    at = timezone.now() - timedelta(days=1)

    table, index = get("table", at), get("index", at)

    assert "No reading of the indexes by this moment is kept." in table
    assert "No index" not in table
    for name in ("Last scan", "Scans counted since"):
        assert fact(index, name) == "not known any more"
    row = exported(get, at)
    assert row["indexrelname"] == "past_other"
    assert {row[name] for name in ("scans", "idx_scan", "last_idx_scan", "size_bytes")} == {None}


def test_tables_of_one_name_are_those_of_then(run, get):
    run("DROP SCHEMA IF EXISTS past_other CASCADE;\nCREATE SCHEMA past_other")
    run("CREATE TABLE past_other.past_indexed (id int);\nSELECT count(*) FROM past_indexed")
    at = timezone.now()
    told = "past_other has a table of this name too"
    assert told in get("table")

    run("DROP SCHEMA past_other CASCADE")

    assert told in get("table", at)
    assert told not in get("table")


def test_statements_of_then_are_counted_since_then(run, get):
    at = timezone.now()
    then = counted(get("queries"))

    run("SELECT pg_stat_statements_reset()")
    second = timezone.now()
    later = counted(get("queries"))
    run("SELECT pg_stat_statements_reset()")

    assert counted(get("queries", at)) == then
    assert counted(get("queries", second)) == later
    Mark.objects.all().delete()
    assert "Since when pg_stat_statements had counted is not known any more." in get("queries", at)
