"""A pooler is registered by command and checked: what works, and the lines that make the rest work."""

from __future__ import annotations

import pytest

from monitors.actions import actions_of
from monitors.models import Target
from monitors.probes import probes_of
from monitors.targets import check, pooler_check
from monitors.targets.register import wrong_intervals
from tests import poolers

pytestmark = pytest.mark.django_db


def checked(target, server):
    return check.check(target, {"collector": server.password, "operator": server.password})


def works(result, kind):
    return {row["name"]: row["works"] for row in result[kind]}


def test_with_both_logins_all_works_that_the_version_has(pooler, live, embedded, watch_pooler):
    behind = pooler(**poolers.CONSOLE)
    live(behind, user="owner", dbname="shop")
    result = checked(watch_pooler(behind, operator_user="operator"), embedded)

    assert works(result, "probes") == {probe.name: True for probe in probes_of("pgbouncer")}
    old = result["version"] < 12400
    assert works(result, "actions") == {
        name: not (old and name == "kill_client") for name in actions_of("pgbouncer")
    }
    assert "shop" in result["databases"]
    assert "pgbouncer" not in result["databases"]
    assert result["roles"] == {"collector": ["stats_users"], "operator": ["admin_users"]}
    assert any("update to 1.26.1" in text for text in result["warnings"]) is old
    assert "stats_users = collector" in result["grants"]


@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_what_is_missing_is_named(pooler, embedded, watch_pooler):
    behind = pooler(**poolers.CONSOLE)
    only_reads = checked(watch_pooler(behind), embedded)
    reader_acts = checked(watch_pooler(behind, name="pool-2", operator_user="collector"), embedded)
    admin_reads = checked(
        watch_pooler(behind, name="pool-3", user="operator", operator_user="owner"), embedded
    )

    needs = [{row["needs"] for row in one["actions"]} for one in (only_reads, reader_acts)]
    assert needs[0] == {pooler_check.NO_OPERATOR}
    assert {text for text in needs[1] if "admin_users = collector" in text}
    assert any("One login reads and acts" in text for text in reader_acts["warnings"])
    assert any("operator is among admin_users" in text for text in admin_reads["warnings"])
    assert all("The operator login can't connect" in one["needs"] for one in admin_reads["actions"])


@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_it_is_registered_by_command_and_keeps_its_kind(pooler, said, tmp_path, embedded):
    from monitors.models import Environment  # noqa: PLC0415

    behind = pooler(**poolers.CONSOLE)
    Environment.objects.get_or_create(name="production")
    password = tmp_path / "password"
    password.write_text(embedded.password)
    address = ("--host", behind.host, "--port", str(behind.port), "--user", "collector")

    status, out, _ = said(
        "target", "add", "pool-9", "--kind", "pgbouncer", *address, "--password-file", str(password)
    )
    read = said("snapshot", "pool-9")

    target = Target.objects.get(name="pool-9")
    assert status == 0, out
    assert "PgBouncer 1." in out
    assert (target.kind, target.dbname) == ("pgbouncer", "pgbouncer")
    assert read[0] == 0, read
    assert wrong_intervals({"activity": 10}, target.kind).startswith("There is no probe activity")
    assert wrong_intervals({"pooler_pools": 10}, target.kind) == ""
    for words in (["settings", "pool-9"], ["load", "pool-9"], ["autovacuum", "pool-9"]):
        status, _, problem = said(*words)
        assert status
        assert "is a PgBouncer: name a PostgreSQL server." in problem
