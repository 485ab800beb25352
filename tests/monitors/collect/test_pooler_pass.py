"""A pooler's console is read as each version shows it, kept, and told of where it can't be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, ProbeState, Snapshot, Target
from monitors.pg import console
from monitors.probes import probes_of
from tests import poolers
from tests.servers import Server

Pooler = Callable[..., Server]
Crowd = Callable[..., list[psycopg.Connection[Any]]]


def latest(name: str, target: Target) -> list[dict[str, Any]]:
    """Return what was read last, of the database `shop` where it is of databases."""
    rows = HISTORY[name].latest._default_manager.filter(target_id=target.pk, gone_at=None)
    of = "name" if name == "pooler_databases" else "database"
    return [row for row in rows.values() if name == "pooler_config" or row[of] == "shop"]


@pytest.mark.django_db
def test_every_probe_reads_a_pool_of_two_with_six_clients(
    pooler: Pooler,
    crowd: Crowd,
    embedded: Server,
    watch_pooler: Callable[..., Target],
    eventually: Callable[..., None],
) -> None:
    behind = pooler(default_pool_size="2", pool_mode="transaction", **poolers.CONSOLE)
    target = watch_pooler(behind)
    crowd(behind, 6, application_name="till")
    pool: dict[str, Any] = {}

    def is_full() -> bool:
        taken = take_now(target)
        pool.update(next(iter(latest("pooler_pools", target)), {}))
        assert {(one.probe, one.state, one.error) for one in taken} == {
            (probe.name, "ok", "") for probe in probes_of("pgbouncer")
        }
        return (pool.get("sv_active"), pool.get("cl_waiting")) == (2, 4)

    eventually(is_full)

    assert (pool["database"], pool["user"], pool["pool_mode"]) == ("shop", "owner", "transaction")
    assert 0 <= pool["maxwait_seconds"] < 60
    clients, servers = latest("pooler_clients", target), latest("pooler_servers", target)
    assert {row["application_name"] for row in clients} == {"till"}
    assert sum(row["state"] == "waiting" for row in clients) == 4
    linked = {row["ptr"]: row["link"] for row in clients if row["link"]}
    assert {row["ptr"]: row["link"] for row in servers} == {s: c for c, s in linked.items()}
    with embedded.connect() as eye:
        pids = eye.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = 'shop' AND wait_event = 'PgSleep'"
        ).fetchall()
    assert {row["remote_pid"] for row in servers} == {pid for (pid,) in pids}
    [database] = latest("pooler_databases", target)
    assert (database["name"], database["pool_size"], database["paused"]) == ("shop", 2, False)
    assert (database["host"], database["port"]) == (embedded.host, embedded.port)
    settings = {row["name"]: row["setting"] for row in latest("pooler_config", target)}
    assert settings["default_pool_size"] == "2"
    [stats] = latest("pooler_stats", target)
    assert stats["database"] == "shop"
    target.refresh_from_db()
    assert target.version_text.startswith("1.")
    known = (target.server_version or 0) >= 12601
    assert (stats["client_login_count"] is not None) is known
    assert all((row["client_id"] is not None) is known for row in clients)


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_whoever_is_not_let_in_is_told_what_to_do(
    pooler: Pooler, embedded: Server, watch_pooler: Callable[..., Target]
) -> None:
    closed = pooler()
    reasons = {
        "not allowed": watch_pooler(closed),
        "no such user": watch_pooler(closed, name="pool-2", user="nobody"),
        "a server": watch_pooler(embedded, name="pool-3"),
    }

    said = {name: {one.error for one in take_now(target)} for name, target in reasons.items()}

    assert said == {
        "not allowed": {console.NOT_ADMITTED.format(user="collector")},
        "no such user": {console.NO_LOGIN.format(user="nobody")},
        "a server": {console.NO_CONSOLE},
    }
    assert {row.state for row in ProbeState.objects.all()} == {Snapshot.State.UNREACHABLE}


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_what_the_console_never_is_asked(pooler: Pooler) -> None:
    behind = pooler(**poolers.CONSOLE)
    with (
        behind.connect(user="collector", dbname="pgbouncer") as session,
        pytest.raises(ValueError, match="FDS"),
    ):
        console.show(session, "FDS", 1)
