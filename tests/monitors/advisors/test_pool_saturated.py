"""A full pool: when it is one, how bad, and by which of three causes; on a real pooler too."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.pool_saturated import ADVISOR
from monitors.collect.rounds import take_now
from monitors.findings import judge, keep
from monitors.models import FindingRecord
from monitors.rules.pooler import Behind
from tests import poolers
from tests.monitors.advisors.rows import FULL, advise, pool, pool_config, pool_database
from tests.monitors.probes.consoles import read_full

WAITS = pool(**FULL, maxwait_seconds=2.0)
FOUND = {"pooler_pools": [WAITS], "pooler_databases": [pool_database()]}
"""Facts in which it finds something."""
KEY = ("shop", "till")


def found(row=WAITS, database=None, **facts):
    given = {"pooler_pools": [row], "pooler_databases": [database or pool_database()], **facts}
    return advise(ADVISOR, **given)


def behind(**figures):
    return {
        KEY: Behind(**{"cores": 4, "active": 3, "backends": 2, "idle_in_transaction": 0, **figures})
    }


@pytest.mark.parametrize(
    ("columns", "database", "is_found"),
    [
        ({}, {}, True),
        ({"cl_waiting": 0}, {}, False),
        ({"sv_idle": 1}, {}, False),
        ({"sv_active": 1}, {}, False),
        ({"sv_active": 1}, {"max_connections": 2}, True),  # the database's own limit
        ({"sv_active": 1}, {"max_connections": 3}, False),
        ({}, {"paused": True}, False),
        ({}, {"name": "another"}, False),
    ],
)
def test_full_is_what_clients_wait_for_and_has_no_server_left(columns, database, is_found):
    assert bool(found(WAITS | columns, pool_database(**database))) is is_found


@pytest.mark.parametrize(
    ("waits", "timeout", "severity"),
    [
        (1.0, "120", Severity.NOTICE),
        (1.001, "120", Severity.WARNING),
        (5.0, "120", Severity.WARNING),
        (5.001, "120", Severity.CRITICAL),
        (2.0, "4", Severity.WARNING),  # half of the timeout comes sooner
        (2.001, "4", Severity.CRITICAL),
        (5.001, "0", Severity.CRITICAL),
        (5.0, None, Severity.WARNING),
    ],
)
def test_the_wait_says_how_bad_it_is(waits, timeout, severity):
    config = pool_config(query_wait_timeout=timeout)
    [one] = found(pool(**FULL, maxwait_seconds=waits), pooler_config=config)

    assert one.severity == severity
    assert ("query_wait_timeout" in one.hurts) is bool(timeout and timeout != "0")


@pytest.mark.parametrize(
    ("figures", "title", "says"),
    [
        ({"active": 3}, "cores to spare", "raise pool_size (now 2)"),
        ({"active": 4}, "the server is busy", "a larger pool would slow all of them down"),
        (
            {"active": 9, "idle_in_transaction": 1},
            "idle in transaction",
            "Shorten its transactions",
        ),
        ({"backends": 3, "idle_in_transaction": 1}, "cores to spare", "raise pool_size"),
        ({"cores": None}, "server connections.", "say how many cores its machine has"),
        ({"cores": None, "idle_in_transaction": 2}, "idle in transaction", "Shorten"),
        ({"backends": 0}, "cores to spare", "raise pool_size"),
    ],
)
def test_the_cause_says_what_helps(figures, title, says):
    [one] = found(behind=behind(**figures))

    assert title in one.title
    assert says in one.why


def test_without_a_registered_server_the_cause_is_not_told():
    [one] = found(behind={("shop", "somebody"): behind()[KEY]})

    assert "can't be told" in one.why
    assert "db1:5432 is not registered" in one.why


@pytest.mark.django_db
def test_a_pool_of_two_and_six_clients_on_a_real_pooler(
    pooler, crowd, embedded, watch, watch_pooler, eventually
):
    full = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target, server = watch_pooler(full), watch(embedded, cores=64)
    crowd(full, 6)
    read_full(target, eventually)

    def said():
        take_now(server, ["activity"])
        take_now(target)
        return [one for one in judge.find(target) if one.advisor == "pool_saturated"]

    [pool_too_small] = said()
    server.cores = 1
    server.save()
    [server_busy] = said()
    server.enabled = False
    server.save()
    [not_known] = said()
    keep.keep(target.pk, {"pooler_pools"})

    assert "4 clients wait for one of its 2 server connections" in pool_too_small.title
    assert "raise pool_size (now 2)" in pool_too_small.why
    assert "whose machine has 1 core" in server_busy.why
    assert f"{embedded.host}:{embedded.port} is not registered" in not_known.why
    kept = FindingRecord.objects.filter(target=target, advisor="pool_saturated")
    assert [row.object_name for row in kept] == ["shop of owner"]


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_transactions_that_idle_are_the_application_s(  # noqa: PLR0917 - fixtures
    pooler, crowd, live, embedded, watch, watch_pooler, eventually
):
    full = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target, server = watch_pooler(full), watch(embedded)
    for _ in range(2):
        live(full, user="owner", dbname="shop", autocommit=False).execute("SELECT 1")
    crowd(full, 3)
    read_full(target, eventually, waiting=3)
    take_now(server, ["activity"])

    [one] = [one for one in judge.find(target) if one.advisor == "pool_saturated"]

    assert "2 of 2 of its servers idle in an open transaction" in one.why
