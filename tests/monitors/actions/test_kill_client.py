"""One client is killed: the one that was meant, never one of the console, and not before 1.24."""

from __future__ import annotations

import psycopg
import pytest

from tests import poolers
from tests.monitors.actions.consoles import shown

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("pooler", ["1.26"], indirect=True)
def test_the_client_is_gone_and_the_others_are_not(
    pooler, live, watch_pooler, person, previewed, done
):
    behind = pooler(**poolers.CONSOLE)
    target = watch_pooler(behind, operator_user="operator")
    names = ("meant", "spared")
    meant, spared = (
        live(behind, user="owner", dbname="shop", application_name=name, autocommit=True)
        for name in names
    )
    for session in (meant, spared):
        session.execute("SELECT 1")
    ids = {row["application_name"]: row["id"] for row in shown(behind, "CLIENTS")}
    user = person("dba")

    row = done(user, target, "kill_client", client_id=str(ids["meant"]))

    assert row.state == "succeeded", row.outcome
    assert row.object_name == f"client {ids['meant']} (meant)"
    with pytest.raises(psycopg.OperationalError):
        meant.execute("SELECT 1")
    assert spared.execute("SELECT 1").fetchone() == (1,)
    again = previewed(user, target, "kill_client", client_id=str(ids["meant"])).preview
    assert "it has gone" in again["refused"]


@pytest.mark.parametrize("pooler", ["1.26"], indirect=True)
def test_a_session_of_the_console_is_spared(pooler, live, watch_pooler, person, previewed):
    behind = pooler(**poolers.CONSOLE)
    target = watch_pooler(behind, operator_user="operator")
    live(behind, user="collector", dbname="pgbouncer", autocommit=True)
    [*_, own] = shown(behind, "CLIENTS", "pgbouncer")

    said = previewed(person("dba"), target, "kill_client", client_id=str(own["id"])).preview

    assert said["refused"]


@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_an_older_pooler_has_no_such_command(pooler, live, watch_pooler, person, previewed):
    behind = pooler(**poolers.CONSOLE)
    target = watch_pooler(behind, operator_user="operator")

    said = previewed(person("dba"), target, "kill_client", client_id="1").preview["refused"]

    assert said == "It came with PgBouncer 1.24."
