"""The Connections page: who holds them, what is left, who connects for each request, and a full server."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from urllib.parse import quote

import psycopg
import pytest
from django.urls import reverse
from django.utils import timezone

from dashboard.embedded.postgres import embedded_programs
from monitors.collect.rounds import Run, take_now
from monitors.collect.sessions import SESSIONS
from monitors.findings import judge, keep, thresholds
from monitors.history.window import Window
from monitors.models import FindingRecord, Lease
from monitors.probes import PROBES
from monitors.rows import churn, connections
from tests import servers
from tests.conftest import EMBEDDED_MAJOR
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db

READ = ["activity", "sessions", "connections", "databases", "logins"]


@pytest.fixture
def shown(browse):
    """A function from a target and a query to the page's text, as a dba sees it."""
    client = browse("dba")

    def get(target, query=""):
        response = client.get(reverse("connections", args=[target.name]) + query)
        assert response.status_code == 200
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


@pytest.fixture
def limited(embedded):
    """A limit for a role and a database of the server, while the test runs."""
    with embedded.connect() as setup:
        setup.execute("ALTER ROLE owner CONNECTION LIMIT 8")
        setup.execute("ALTER DATABASE shop CONNECTION LIMIT 40")
        yield
        setup.execute("ALTER ROLE owner CONNECTION LIMIT -1")
        setup.execute("ALTER DATABASE shop CONNECTION LIMIT -1")


def test_it_shows_who_holds_them_the_limits_and_a_button_for_who_rests(
    embedded, watch, live, shown, limited
):
    target = watch(embedded, operator_user="operator")
    sessions = [
        live(embedded, user="owner", dbname="shop", application_name=f"app-{1000 + n}")
        for n in range(3)
    ]
    live(embedded, user="owner", dbname="shop", application_name="<b>", autocommit=False).execute(
        "SELECT 1"
    )
    take_now(target, READ)

    text = shown(target)

    pid = sessions[0].info.backend_pid
    assert 'q=app-#backends"' in text
    assert "app-*" in text
    assert f'name="pid" value="{pid}"' in text
    assert "<b>" not in text.replace("<b>sc", "").partition("Who holds them")[2].partition("How")[0]
    groups = {row["name"]: row for row in json.loads(shown(target, "?format=json"))}
    assert tuple(groups["app-*"]) == connections.COLUMNS
    assert (groups["app-*"]["backends"], groups["app-*"]["idle"]) == (3, 3)
    assert groups["<b>"]["idle_in_transaction"] == 1
    by_user = json.loads(shown(target, "?format=json&by=usename"))
    assert {row["name"]: row["backends"] for row in by_user}["owner"] == 4
    limits = {row["name"]: row for row in json.loads(shown(target, "?format=json&of=limits"))}
    assert (limits["owner"]["used"], limits["owner"]["connection_limit"]) == (4, 8)
    assert limits["shop"]["kind"] == "database"
    assert limits["shop"]["used"] >= 4
    idle = json.loads(shown(target, "?format=json&of=idle"))
    assert pid in [row["pid"] for row in idle]


def test_rows_are_what_their_types_say(embedded, watch, live, limited):
    target = watch(embedded)
    take_now(target, READ)
    live(embedded, user="owner", dbname="shop")
    take_now(target, READ)
    window = Window.last("1h", timezone.now())

    clients, now = connections.clients_of(target, window)
    [group, *_] = connections.groups_of(target, window, "state", 97)
    [database, *_] = churn.churn_of(target, window, churn.counted(target, window))

    assert_typed(group, connections.GroupRow)
    assert_typed(connections.idle_of(clients, now)[0], connections.IdleRow)
    assert_typed(connections.limits_of(target, window, clients)[0], connections.LimitRow)
    assert_typed(connections.ages_of(clients, now)[0], connections.AgeRow)
    assert_typed(database, churn.ChurnRow)
    assert sum(row["backends"] for row in connections.ages_of(clients, now)) == len(clients)


def test_the_past_shows_who_held_them_then_and_ends_nobody(embedded, watch, live, shown):
    target = watch(embedded, operator_user="operator")
    session = live(embedded, user="owner", dbname="shop", application_name="departed")
    take_now(target, READ)
    then = quote(timezone.now().isoformat())
    session.close()
    take_now(target, READ)

    assert "departed" not in shown(target)
    text = shown(target, f"?at={then}")
    assert "departed" in text
    assert "actions/terminate_backend/" not in text


def test_a_connection_for_each_request_is_found_and_its_application_named(
    embedded, watch, shown, eventually
):
    target = watch(embedded)
    take_now(target, READ)
    began = counted(embedded)
    for number in range(12):
        with embedded.connect(user="owner", dbname="shop", application_name="php-shop") as request:
            request.execute("SELECT 1")
            if number == 11:  # a reading catches one of them
                eventually(lambda: counted(embedded) >= began + 11)
                take_now(target, READ)
    # a slow machine needs longer for them than ten minutes' worth of them may take
    limits = {"warning_sessions": 0.01, "min_seconds": 0}
    wanted = {("connection_churn", name): value for name, value in limits.items()}
    thresholds.change("alice", "test", target, wanted)

    keep.keep(target.pk, ["databases"])

    record = FindingRecord.objects.get(
        target=target, advisor="connection_churn", object_name="shop"
    )
    assert record.opened_at is not None
    assert "seen are of php-shop (user owner), from 127.0.0.1." in record.title
    assert "PHP: A PHP process forgets its connection" in record.why
    text = shown(target)
    assert record.title in text
    assert "php-shop (user owner), from 127.0.0.1" in text
    assert "PDO::ATTR_PERSISTENT" in text
    [row] = [
        row
        for row in json.loads(shown(target, "?format=json&of=databases"))
        if row["datname"] == "shop"
    ]
    assert row["sessions"] >= 11
    assert row["sessions_per_second"] > 0


def counted(server):
    """Return how many sessions of `shop` the server has counted."""
    with server.connect() as eye:
        row = eye.execute("SELECT sessions FROM pg_stat_database WHERE datname = 'shop'").fetchone()
    return row[0]


def test_too_many_clients_is_explained_while_it_lasts_and_while_howdah_is_shut_out(watch, shown):
    with ExitStack() as stack:
        folder = stack.enter_context(servers.home())
        _, server = stack.enter_context(
            servers.stoppable(EMBEDDED_MAJOR, embedded_programs(), folder, max_connections="12")
        )
        target = watch(server, operator_user="operator")
        take_now(target, READ)
        with SESSIONS.use(target.pk, Lease.Kind.FAST) as fast:
            fast.prepare(target)
            kept = fast.open(target, "postgres", 10)
            pool = fill(server, stack)
            with pytest.raises(psycopg.OperationalError, match="remaining connection slots"):
                server.connect(user="owner", dbname="shop")
            run_fast(target, fast)
            full = shown(target)
            found = {one.advisor: one for one in judge.find(target)}

            kept.connection.close()
            pool.append(server.connect(user="owner", application_name="pool"))  # takes its slot
            stack.callback(pool[-1].close)
            run_fast(target, fast)
            blind = shown(target)

    assert found["connections_near_limit"].hurts_already
    assert "Too many clients already" in full
    assert "All 9 connections that ordinary roles may have are taken." in full
    assert "Most of it is of <b>pool</b>" not in full  # groups were read before it came
    assert "pg_terminate_backend" in full
    assert "GRANT</b> pg_use_reserved_connections" in full
    assert "not even for Howdah" in blind
    assert "be reached for" in blind
    assert "Too many clients already" in blind
    assert "When it was last read: 9 of 9 usable connections are taken" in blind


def run_fast(target, session):
    """Read what the fast lease reads, over its own connection."""
    going = Run(target, session, 30)
    going.take(
        [probe for probe in PROBES if probe.name in {"activity", "sessions"}], only_due=False
    )


def fill(server, stack):
    """Open as many connections as the server lets an ordinary role have, as a pool too large does."""
    pool = []
    with suppress(psycopg.OperationalError):
        while True:
            pool.append(server.connect(user="owner", application_name="pool"))
            stack.callback(pool[-1].close)
    assert pool
    return pool
