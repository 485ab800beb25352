"""Whatever a long list can be sorted by, it is in that order, and the page shows the same as the export."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.urls import reverse

from dashboard.frame.listing import PAGE_SIZE, ordered
from dashboard.pages import bloat, vacuum, wraparound
from monitors.collect.rounds import take_now

PAGES = {
    "vacuum": (vacuum.SORTED, {"filter": "all"}),
    "bloat": (bloat.SORTED, {"tab": "all"}),
    "wraparound": (wraparound.SORTED, {}),
}


def comparable(value: Any) -> Any:
    """Give numbers back that JSON has as texts since they may have 64 bits."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d+", value) else value


@pytest.fixture
def tables(shop, embedded):
    """Tables of many kinds, really read: small, analyzed, with options, TOAST and indexes, empty."""
    with embedded.connect(dbname="shop") as connection:
        connection.execute("DROP SCHEMA IF EXISTS sorting CASCADE; CREATE SCHEMA sorting")
        connection.execute("CREATE TABLE sorting.empty (id int PRIMARY KEY)")
        for number, name in enumerate(("b_plain", "Odd Name", "a_plain", "c"), 1):
            connection.execute(f'CREATE TABLE sorting."{name}" (id int PRIMARY KEY, v text)')
            connection.execute(
                f'INSERT INTO sorting."{name}"'
                f" SELECT g, repeat(md5(g::text), 300) FROM generate_series(1, {100 * number}) AS g"
            )
            connection.execute(f'DELETE FROM sorting."{name}" WHERE id % {number + 1} = 0')
        connection.execute("ANALYZE sorting.a_plain; ALTER TABLE sorting.c SET (fillfactor = 70)")
        connection.execute("ALTER TABLE sorting.b_plain SET (autovacuum_vacuum_threshold = 7)")
    shop.refresh_from_db()
    take_now(shop)
    yield
    with embedded.connect(dbname="shop") as connection:
        connection.execute("DROP SCHEMA sorting CASCADE")


@pytest.mark.parametrize("name", PAGES)
def test_it_is_in_the_order_that_was_asked_for(shop, tables, browse, name):
    client, address = browse("operator"), reverse(name, args=[shop.name])
    columns, always = PAGES[name]
    for column in dict.fromkeys(columns):
        if column.endswith(wraparound.DATED) and "_forced_" in column:
            continue  # dates are ordered in memory, and have tests of their own
        for sort in (column, f"-{column}"):
            query = {**always, "sort": sort}
            response = client.get(address, {**query, "format": "json"})
            content = response.streaming_content if response.streaming else [response.content]
            rows = [
                {key: comparable(value) for key, value in row.items()}
                for row in json.loads(b"".join(content))
            ]
            assert len(rows) > 5
            if column in rows[0]:  # some are shown and not exported
                assert [row[column] for row in rows] == [
                    row[column] for row in ordered(rows, sort)
                ], sort
        shown = client.get(address, query).content.decode()
        relids = re.findall(r'<tr id="row-\d+-(\d+)"', shown)
        assert relids == [str(row["relid"]) for row in rows][:PAGE_SIZE], sort
