"""A pooler's own pages: its overview, rail, exports; a server's pages are none of it."""

from __future__ import annotations

import json

import pytest
from django.urls import reverse

from dashboard.pages import PAGES
from monitors.collect.rounds import take_now
from monitors.rows import fleet, pooler as pooler_rows
from tests import poolers
from tests.addresses import OF_POOLERS
from tests.monitors.probes.consoles import read_full
from tests.typed import assert_typed

PERSONS = ("anonymous", "stranger", "viewer", "dba", "admin")
pytestmark = pytest.mark.django_db


def told(response):
    """Return the rows of an export."""
    return json.loads(response.getvalue())


@pytest.fixture
def pool(pooler, crowd, watch_pooler, eventually):
    """A pooler that is full: two servers, six clients."""
    behind = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target = watch_pooler(behind, operator_user="operator")
    crowd(behind, 6, application_name="till")
    read_full(target, eventually)
    target.refresh_from_db()
    return target


def test_the_overview_shows_pools_and_databases(pool, browse):
    client = browse("dba")

    moved = client.get(f"/targets/{pool.name}/?window=6h")
    page = client.get(moved["Location"])
    pools = told(client.get(f"/targets/{pool.name}/pooler/?format=json&q=shop"))
    databases = told(client.get(f"/targets/{pool.name}/pooler/?format=json&of=databases"))

    assert moved["Location"] == f"/targets/{pool.name}/pooler/?window=6h"
    text = page.content.decode()
    assert (
        "The pool shop of owner is full: 4 clients wait for one of its 2 server connections" in text
    )
    assert f"PgBouncer {pool.version_text}" in text
    assert "PostgreSQL" not in page.context["frame"].rail[0].entries[0].title
    [row] = pools
    assert (row["database"], row["cl_waiting"], row["sv_active"], row["pool_size"]) == (
        "shop",
        4,
        2,
        2,
    )
    assert {one["name"]: one["pool_size"] for one in databases}["shop"] == 2
    shown = page.context["pools"]
    assert_typed(shown[0], pooler_rows.PoolRow)
    assert_typed(page.context["databases"][0], pooler_rows.PoolDatabaseRow)


@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_pages_of_servers_are_not_found_and_no_link_leads_there(pool, browse):
    client = browse("dba")

    status = {
        page.name: client.get(reverse(page.name, args=[pool.name])).status_code for page in PAGES
    }
    text = client.get(f"/targets/{pool.name}/pooler/").content.decode()

    assert {name for name, code in status.items() if code == 404} == {
        page.name for page in PAGES if "pgbouncer" not in page.kinds
    } - {"overview"}
    assert set(status.values()) == {200, 302, 404}
    for page in PAGES:
        if "pgbouncer" not in page.kinds and page.name != "overview":
            assert reverse(page.name, args=[pool.name]) not in text
    for name in ("horizon/", "vacuum/queue/", "batches/", "jobs/new/"):
        assert client.get(f"/targets/{pool.name}/{name}").status_code == 404


@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_who_may_see_a_server_may_see_a_pooler(pool, browse):
    answers = {
        name: [browse(who).get(reverse(name, args=[pool.name])).status_code for who in PERSONS]
        for name in OF_POOLERS
    }

    assert set(map(tuple, answers.values())) == {(302, 404, 200, 200, 404)}


def test_pages_of_poolers_are_not_found_of_a_server(shop, browse):
    for name in OF_POOLERS:
        assert browse("dba").get(reverse(name, args=[shop.name])).status_code == 404


@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_the_fleet_and_the_list_of_targets_show_what_it_has(pool, browse):
    client = browse("dba")

    [row] = told(client.get("/?format=json"))
    text = client.get("/").content.decode()
    client.get("/targets/")
    [typed] = fleet.fleet_of([pool], client.get("/").context["window"])

    assert (row["kind"], row["connections"], row["waiting"], row["state"]) == (
        "pgbouncer",
        6,
        4,
        "up",
    )
    assert row["longest_wait_seconds"] > 0
    assert row["blocked"] is row["n_dead_tup"] is row["xid_age"] is None
    assert "Clients that wait for a server connection" in text
    assert_typed(typed, fleet.FleetRow)
    [listed] = told(browse("admin").get("/targets/?format=json"))
    assert (listed["kind"], listed["state"]) == ("pgbouncer", "ok")


@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_the_past_is_what_was_read_then(pool, browse, live, eventually):
    from django.utils import timezone  # noqa: PLC0415

    then = timezone.now()
    take_now(pool)
    client = browse("dba")

    found = client.get(f"/targets/{pool.name}/pooler/", {"at": then.isoformat()})
    rows = client.get(f"/targets/{pool.name}/clients/", {"at": then.isoformat(), "format": "json"})

    assert {row["database"]: row["cl_waiting"] for row in found.context["pools"]}["shop"] == 4
    assert [row["application_name"] for row in told(rows)] == ["till"] * 6
    assert "is full: 4 clients wait" in found.content.decode()
