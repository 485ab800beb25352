"""System catalogs and empty TOAST tables: all that `tables` leaves out, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Target
from tests.servers import Server


@pytest.mark.fleet
@pytest.mark.django_db
def test_it_reads_what_tables_leaves_out(server: Server, watch: Callable[..., Target]) -> None:
    with server.connect(dbname="shop") as session:
        session.execute("DROP TABLE IF EXISTS beside_catalogs")
        session.execute("CREATE TABLE beside_catalogs (body text)")
    target = watch(server)
    take_now(target)

    tables = {row["relid"] for row in read_latest("tables", target.pk)}
    catalogs = {row["relid"]: row["relname"] for row in read_latest("catalogs", target.pk)}
    with server.connect(dbname="shop") as session:
        of_server = {
            relid
            for (relid,) in session.execute(
                "SELECT oid::bigint FROM pg_class WHERE relkind IN ('r', 't', 'm') AND oid < 16384"
            )
        }
        session.execute("DROP TABLE beside_catalogs")

    assert {"pg_class", "pg_attribute", "pg_database"} <= set(catalogs.values())
    assert of_server <= set(catalogs)
    assert not tables & set(catalogs)
