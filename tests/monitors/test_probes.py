"""What holds of every probe, on every supported major version."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from monitors.collect.read import in_order
from monitors.collect.rounds import take_now
from monitors.kinds import POSTGRES
from monitors.models import HISTORY, Target
from monitors.pg import extensions
from monitors.probe import OLDEST_MAJOR, Probe
from monitors.probes import PROBES, probes_of
from tests.servers import Server

each_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
of_servers = pytest.mark.parametrize("probe", probes_of(POSTGRES), ids=lambda probe: probe.name)


@each_probe
def test_its_fields_are_declared_once(probe: Probe) -> None:
    sample = probe.sample
    declared = [*sample.key, *sample.counters, *sample.gauges, *sample.facts, *sample.labels]

    assert sorted(declared) == sorted(field.name for field in sample._meta.get_fields())
    assert set(sample.redacted) <= {*sample.facts, *sample.labels}
    of_measurements = sample.facts if probe.measuring else ()
    assert set(sample.refined) <= {*sample.gauges, *sample.labels, *of_measurements}


@of_servers
def test_it_exists_on_the_oldest_supported_version(probe: Probe) -> None:
    assert probe.sql_for(OLDEST_MAJOR * 10000, "1.9") is not None


@each_probe
def test_it_never_writes_and_names_no_star(probe: Probe) -> None:
    for text in probe.sql.values():
        assert text.strip().upper().startswith(("SELECT", "WITH"))
        assert not re.search(r"(SELECT|,|\.)\s*\*", text)
        assert not text.rstrip().endswith(";")
        assert text.isascii()  # it is sent as it is to databases without an encoding


@pytest.mark.fleet
@of_servers
def test_the_server_returns_what_the_sample_declares(probe: Probe, server: Server) -> None:
    with server.connect(user="collector", dbname="shop") as connection:
        installed = extensions.find(connection, probe.extension) if probe.extension else None
        version = installed.version if installed else ""
        text = probe.sql_for(server.major * 10000, version)
        assert text is not None
        cursor = connection.execute(extensions.in_schema(text, installed))
        names = [column.name for column in cursor.description or ()]
        rows = in_order(probe, names, cursor.fetchall())

    assert all(len(row) == len(probe.sample.columns()) for row in rows)
    if text == probe.sql[max(probe.sql)]:  # the newest one
        assert set(names) == set(probe.sample.columns())


@pytest.mark.fleet
@pytest.mark.django_db
def test_every_probe_works_with_pg_monitor_alone(
    server: Server, watch: Callable[..., Target]
) -> None:
    with server.connect(dbname="shop") as setup:
        setup.execute("DROP TABLE IF EXISTS seen")
        setup.execute("CREATE TABLE seen AS SELECT g AS id FROM generate_series(1, 1000) AS g")
        setup.execute("SELECT pg_stat_force_next_flush()" if server.major >= 15 else "SELECT 1")
    target = watch(server)

    results = take_now(target)

    assert {(r.probe, r.state, r.error) for r in results} == {
        (p.name, "ok", "") for p in probes_of(POSTGRES)
    }
    rows = HISTORY["tables"].latest._default_manager.filter(relname="seen")
    seen = rows.values("schemaname", "size_bytes", "relkind").get()
    assert seen["schemaname"] == "public"
    assert seen["size_bytes"] > 30_000
    target.refresh_from_db()
    assert target.major == server.major
    assert target.in_recovery is False
    assert target.settings["autovacuum_vacuum_threshold"] == "50"
