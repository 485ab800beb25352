"""People with each role, and a target with a table full of dead rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from tests.servers import Server

if TYPE_CHECKING:  # pytest loads this file before Django is set up
    from django.contrib.auth.models import User
    from django.test import Client

    from monitors.models import Target

ROLES = ("viewer", "operator", "dba", "admin", "cancel-only")


@pytest.fixture
def people(db: None) -> dict[str, User]:
    """Who may log in: a stranger without any grant, and one person for each role on everything.

    One of the roles, `cancel-only`, is none of the four.
    """
    from django.contrib.auth.models import User  # noqa: PLC0415

    from monitors.models import Grant  # noqa: PLC0415
    from tests.people import CANCEL_ONLY, make_role  # noqa: PLC0415

    make_role(CANCEL_ONLY)
    found = {"stranger": User.objects.create_user("stranger", password="correct horse")}
    for role in ROLES:
        found[role] = User.objects.create_user(role, password="correct horse")
        Grant.objects.create(user=found[role], role=role)
    return found


@pytest.fixture
def browse(people: dict[str, User]) -> Callable[[str], Client]:
    """A function from a person's name to their browser; anonymous has not logged in."""
    from django.test import Client  # noqa: PLC0415

    def open_browser(name: str) -> Client:
        client = Client()
        if name != "anonymous":
            client.force_login(people[name])
        return client

    return open_browser


@pytest.fixture
def junk(embedded: Server, worker_id: str) -> Iterator[str]:
    """A table of the database shop with 2,000 dead rows and an odd name, autovacuum off."""
    name = f'Odd "junk" {worker_id}'
    table = sql.Identifier(name)
    with embedded.connect(user="owner", dbname="shop") as connection:
        connection.autocommit = True
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
        connection.execute(
            sql.SQL("CREATE TABLE {} (id int) WITH (autovacuum_enabled = off)").format(table)
        )
        connection.execute(sql.SQL("INSERT INTO {} SELECT generate_series(1, 3000)").format(table))
        connection.execute(sql.SQL("DELETE FROM {} WHERE id <= 2000").format(table))
        connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("SELECT 1")
        yield name
        connection.execute(sql.SQL("DROP TABLE {}").format(table))


@pytest.fixture
def shop(db: None, embedded: Server, watch: Callable[..., Target], junk: str) -> Target:
    """A target with an operator login that was read once a moment ago."""
    from monitors.collect.rounds import take_now  # noqa: PLC0415

    target = watch(embedded, name="shop-1", operator_user="operator")
    take_now(target)
    target.refresh_from_db()
    return target


@pytest.fixture
def place(shop: Target, junk: str) -> dict[str, Any]:
    """The address of the table `junk`: name, datid, relid."""
    from monitors.models import HISTORY, Database  # noqa: PLC0415

    rows = HISTORY["tables"].latest._default_manager.filter(target_id=shop.pk, relname=junk)
    row = rows.values("database_id", "relid")[0]
    database = Database.objects.get(pk=row["database_id"])
    return {"name": shop.name, "datid": database.datid, "relid": row["relid"]}
