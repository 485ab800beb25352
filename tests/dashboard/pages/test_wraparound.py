"""Ages and dates of databases and tables."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import datetime, timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.history import partitions
from monitors.history.rollup import hour_of
from monitors.models import HISTORY
from monitors.rows.table_ages import COLUMNS
from monitors.rows.wraparound import DATABASE_COLUMNS

RATE = 1_000_000  # ids an hour
DAYS = 14


@pytest.fixture
def shown(shop, browse):
    """A function from a query to the page's text, as an operator sees it."""
    client, address = browse("operator"), reverse("wraparound", args=[shop.name])

    def get(query: str = "") -> str:
        response = client.get(address + query)
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


@pytest.fixture
def history(shop):
    """Two weeks in which each hour used up a million ids, until now; gives the next id."""
    tables = HISTORY["databases"]
    assert tables.hours is not None
    latest = tables.latest._default_manager
    now = timezone.now()
    next_xid = 5_000_000_000
    for row in latest.filter(target_id=shop.pk).values("datid"):
        hours = [
            tables.hours(
                target_id=shop.pk, database_id=0, datid=row["datid"], changes=1, seconds=60,
                start_at=hour_of(now) - timedelta(hours=back), restarted=False, gone=False,
                next_xid=next_xid - RATE * (back - 1) - int(RATE * (now - hour_of(now)) / timedelta(hours=1)),
                next_mxid=1, xid_age=50_000_000 - RATE * (back - 1), mxid_age=0,
            )
            for back in range(DAYS * 24, 1, -1)
        ]  # fmt: skip
        for back in range(2, DAYS * 24 + 1):
            partitions.ensure_for(tables.hours, hour_of(now) - timedelta(hours=back))
        tables.hours._default_manager.bulk_create(hours)
    samples = tables.samples._default_manager.filter(target_id=shop.pk)
    samples.update(next_xid=next_xid, next_mxid=1, xid_age=50_000_000)
    latest.filter(target_id=shop.pk).update(
        next_xid=next_xid, next_mxid=1, xid_age=50_000_000, since_at=now - timedelta(days=DAYS)
    )
    return next_xid


def test_a_database_has_dates_with_their_interval(shown, history):
    rows = {row["database"]: row for row in json.loads(shown("?of=databases&format=json"))}

    row = rows["shop"]
    assert tuple(row) == DATABASE_COLUMNS
    assert row["xid_burn_per_hour"] == pytest.approx(RATE, rel=0.01)
    assert row["xid_pct"] == pytest.approx(100 * 50_000_000 / 2_144_483_647)
    # 150 M are left at 1 M an hour: 150 hours.
    left = (read(row["xid_forced_at"]) - timezone.now()) / timedelta(hours=1)
    assert left == pytest.approx(150, rel=0.02)
    assert read(row["xid_forced_earliest"]) < read(row["xid_forced_at"])
    assert read(row["xid_forced_at"]) < read(row["xid_forced_latest"])
    assert row["mxid_forced_at"] is None
    assert row["mxid_forced_why"] == "No id was used up in this history."


def read(text):
    return datetime.fromisoformat(text)


def test_the_page_says_the_burn_the_dates_and_how_well_they_were_tested(shown, history):
    text = shown()

    assert "Next forced vacuum" in text
    assert "How well this forecasts" in text
    assert re.search(r"transaction ids</td><td class=\"num\">7 d</td>", text)
    assert "times the forecast" in text
    assert "None was used up, so nothing was forecast." in text


def test_a_forced_vacuum_within_a_week_is_the_verdict(shown, history):
    assert re.search(r"Forced vacuums of \w+ begin about \d+ \w+", shown())


def test_without_history_there_is_no_date_and_it_says_why(shown, shop, embedded):
    assert "No history yet: a rate needs two snapshots." in shown()
    with embedded.connect() as session:
        session.execute("SELECT pg_current_xact_id()")
    take_now(shop, ["databases"])

    text = shown()

    assert "Needs an hour of history." in text
    assert "Not tested yet" in text or "None was used up" in text


def test_tables_are_listed_the_oldest_first_and_exported(shown, history, place, junk):
    tables = HISTORY["tables"].latest._default_manager.filter(relid=place["relid"])
    tables.update(relfrozenxid=(history - 42_000_000) % 2**32)

    rows = json.loads(shown("?format=json"))

    assert all(tuple(row) == COLUMNS for row in rows)
    ages = [row["xid_age"] for row in rows if row["xid_age"] is not None]
    assert ages == sorted(ages, reverse=True)
    [row] = [row for row in rows if row["relid"] == place["relid"]]
    assert row["relname"] == junk
    assert row["xid_age"] == 42_000_000
    assert row["xid_forced_limit"] == 200_000_000
    assert row["xid_forced_pct"] == 21
    lines = list(csv.DictReader(io.StringIO(shown("?format=csv"), newline="")))
    assert [line["relid"] for line in lines] == [str(one["relid"]) for one in rows]


def test_a_table_is_frozen_by_the_vacuum_action(shown, junk):
    text = shown()
    quoted = junk.replace('"', '""')
    name = f'public."{quoted}"'.replace('"', "&quot;")

    assert f'name="table" value="{name}"' in text
    assert 'name="freeze" value="true"' in text


@pytest.mark.parametrize("sort", ["label", "-mxid_age", "xid_forced_at", "-size_bytes"])
def test_it_sorts_and_filters(shown, junk, sort):
    assert shown(f"?sort={sort}").count('<tr id="row-') >= 1
    assert "No table has that in its name" in shown("?q=no-such-table")


def test_a_moment_in_the_past_shows_the_ages_of_then(shown, shop, embedded):
    then = timezone.now().isoformat().replace("+", "%2B")
    before = json.loads(shown("?of=databases&format=json"))
    with embedded.connect(dbname="shop") as session:
        for _ in range(5):
            session.execute("SELECT pg_current_xact_id()")
    take_now(shop, ["databases"])

    now = {row["database"]: row for row in json.loads(shown("?of=databases&format=json"))}
    past = {
        row["database"]: row for row in json.loads(shown(f"?of=databases&format=json&at={then}"))
    }

    assert past["shop"]["xid_age"] == {row["database"]: row for row in before}["shop"]["xid_age"]
    assert now["shop"]["xid_age"] >= past["shop"]["xid_age"] + 5


@pytest.fixture
def hasty(embedded, worker_id):
    """A table with a freeze age of its own."""
    name = f"hasty_{worker_id}"
    with embedded.connect(user="owner", dbname="shop") as owner:
        owner.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
        owner.execute(
            sql.SQL(
                "CREATE TABLE {} (id integer, note text) WITH (autovacuum_freeze_max_age = 150000)"
            ).format(sql.Identifier(name))
        )
        yield name
        owner.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))


def test_a_tables_own_freeze_age_counts_where_it_is_less(hasty, shown, shop):
    take_now(shop, ["tables"])

    [row] = [one for one in json.loads(shown("?format=json")) if one["relname"] == hasty]

    assert row["xid_forced_limit"] == 150_000
    assert row["mxid_forced_limit"] == 400_000_000
    assert "own limit" in shown(f"?q={hasty}")
