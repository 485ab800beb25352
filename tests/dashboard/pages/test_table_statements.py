"""The statements that name a table, on its page and in its export, from a real server."""

from __future__ import annotations

import json
import secrets

import pytest
from django.urls import reverse
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Database, ProbeState, Snapshot

pytestmark = pytest.mark.django_db
newest = pytest.mark.parametrize("server", [18], indirect=True, ids=str)
READS = ["databases", "settings", "tables", "statements"]


@pytest.fixture
def names(server):
    """A table's name, a schema's that a test may make, and a table whose name begins alike."""
    # Of each test's own: the server keeps the texts that it saw first.
    name, other = f"named_{secrets.token_hex(4)}", f"other_{secrets.token_hex(4)}"
    with server.connect(user="owner", dbname="shop") as session:
        session.execute(f"CREATE TABLE {name} (id int)")
        session.execute(f"CREATE TABLE {name}_old (id int, {name} int)")
        yield name, other
        session.execute(f"DROP TABLE {name}, {name}_old")
        session.execute(f"DROP SCHEMA IF EXISTS {other} CASCADE")


@pytest.fixture
def target(db, server, watch):
    return watch(server, name="shop-1")


@pytest.fixture
def ran(server, target):
    """A function that reads the target, runs statements, and reads it again."""

    def run(*texts):
        take_now(target, READS)
        with server.connect(user="owner", dbname="shop") as session:
            for text in texts:
                session.execute(sql.SQL(text))
        take_now(target, READS)
        target.refresh_from_db()

    return run


def address_of(target, name, schemaname="public"):
    rows = HISTORY["tables"].latest._default_manager.filter(
        target_id=target.pk, relname=name, schemaname=schemaname, gone_at=None
    )
    [(database_id, relid)] = rows.values_list("database_id", "relid")
    datid = Database.objects.get(pk=database_id).datid
    return reverse("table", args=[target.name, datid, relid])


def lines_of(client, address):
    response = client.get(address, {"view": "statements", "format": "json"})
    return json.loads(b"".join(response.streaming_content))


def panel_of(client, address):
    text = client.get(address).content.decode()
    panel = text[text.index('aria-label="Statements that name it"') :]
    return panel[: panel.index("</section>")]


def test_statements_that_name_it_are_listed_with_what_they_cost(browse, names, ran, target):
    name, _ = names
    ran(
        f"SELECT count(*) FROM {name} WHERE id = 4711",
        f"SELECT count(*) FROM {name} WHERE id = 4712",
        f"INSERT INTO public.{name.upper()} VALUES (1)",
        f"SELECT {name} FROM {name}_old",
        f"SELECT '{name}' AS text FROM pg_class WHERE relname = 'FROM {name}'",
    )
    client, address = browse("viewer"), address_of(target, name)

    lines = {line["query"]: line for line in lines_of(client, address)}
    panel = panel_of(client, address)

    counted = f"SELECT count(*) FROM {name} WHERE id = $1"
    inserted = f"INSERT INTO public.{name.upper()} VALUES ($1)"
    assert set(lines) == {counted, inserted}
    assert lines[counted]["calls"] == 2
    line = lines[counted]
    assert line["mean_exec_time_ms"] == pytest.approx(line["total_exec_time_ms"] / 2)
    assert [lines[text]["names_schema"] for text in (counted, inserted)] == [False, True]
    statement = HISTORY["statements"].latest._default_manager.get(
        target_id=target.pk, query=counted
    )
    assert reverse("query", args=[target.name, statement.pk]) in panel
    assert "By name in the text: functions and views that read it are not found." in panel
    assert "may be another schema" not in panel
    assert "4711" not in panel


@pytest.mark.parametrize("server", [17, 18], indirect=True, ids=str)
def test_a_name_without_a_schema_may_be_another_schemas(browse, server, names, ran, target):
    name, other = names
    with server.connect(user="owner", dbname="shop") as session:
        session.execute(f"CREATE SCHEMA {other} CREATE TABLE {name} (id int)")
    ran(f"SELECT 1 FROM {name}", f"SELECT 1, 2 FROM {other}.{name}", f"TABLE {other}.{name}")
    ran(f"TABLE public.{name}")
    client = browse("viewer")

    mine = {line["query"]: line for line in lines_of(client, address_of(target, name))}
    others = {line["query"]: line for line in lines_of(client, address_of(target, name, other))}

    bare, theirs = f"SELECT $1 FROM {name}", f"SELECT $1, $2 FROM {other}.{name}"
    assert (mine[bare]["maybe_another"], others[bare]["maybe_another"]) == (True, True)
    # Since 18 both TABLE statements are one, under the text that came first.
    merged = server.major >= 18
    assert others[theirs]["maybe_another"] is merged
    assert (f"TABLE {other}.{name}" in mine) is merged
    assert (f"TABLE public.{name}" in mine) is not merged
    panel = panel_of(client, address_of(target, name))
    assert "may be another schema's" in panel
    assert f"{other} has a table of this name too" in panel


@newest
def test_an_odd_name_is_found_as_it_is_quoted(browse, server, ran, target, worker_id):
    junk = f'Odd "named" {worker_id}'
    quoted = sql.Identifier(junk).as_string(None)
    with server.connect(user="owner", dbname="shop") as session:
        session.execute(f"DROP TABLE IF EXISTS {quoted}")
        session.execute(f"CREATE TABLE {quoted} (id int)")
    ran(f"SELECT count(*) FROM {quoted}", "SELECT count(*) FROM pg_class")

    [line] = lines_of(browse("viewer"), address_of(target, junk))

    assert line["query"] == f"SELECT count(*) FROM {quoted}"
    with server.connect(user="owner", dbname="shop") as session:
        session.execute(f"DROP TABLE {quoted}")


@newest
def test_where_no_statement_names_it_that_is_said(browse, names, ran, target):
    ran("SELECT 1")

    assert "No statement of this window names it" in panel_of(
        browse("viewer"), address_of(target, names[0])
    )


@newest
def test_without_the_extension_it_points_to_the_page_that_says_what_to_do(
    browse, names, ran, target
):
    ran("SELECT 1")
    states = ProbeState.objects.filter(target=target, probe="statements")
    states.update(state=Snapshot.State.UNSUPPORTED, reason="There is none.")
    HISTORY["statements"].latest._default_manager.filter(target_id=target.pk).delete()

    panel = panel_of(browse("viewer"), address_of(target, names[0]))

    assert "pg_stat_statements is not installed" in panel
    assert f'href="{reverse("queries", args=[target.name])}"' in panel


@newest
def test_ten_are_shown_and_all_exported(browse, names, ran, target):
    name, _ = names
    ran(*(f"SELECT {', '.join(['1'] * count)} FROM {name}" for count in range(1, 14)))
    client, address = browse("viewer"), address_of(target, name)

    panel = panel_of(client, address)

    assert panel.count('id="query-') == 10
    assert "the 10 that take most time" in panel
    lines = lines_of(client, address)
    assert len(lines) == 13
    times = [line["total_exec_time_ms"] for line in lines]
    assert times == sorted(times, reverse=True)
