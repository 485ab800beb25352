"""Measuring one object exactly: numbers, history, and what is missing for it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from psycopg import sql

from monitors.action import InvalidArguments
from monitors.actions.measure_bloat import ACTION
from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import Action, Target
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


@pytest.fixture
def place(server: Server, worker_id: str) -> Iterator[str]:
    """A database with a table of which half is gone."""
    name = f"exact_{worker_id}_{secrets.token_hex(3)}"
    with server.connect() as setup:
        setup.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with server.connect(dbname=name) as inside:
            inside.execute("CREATE TABLE book (id bigint, words text)")
            inside.execute(
                "INSERT INTO book SELECT g, md5(g::text) FROM generate_series(1, 20000) AS g"
            )
            inside.execute("CREATE INDEX book_id ON book (id)")
            inside.execute("CREATE INDEX book_hash ON book USING hash (id)")
            inside.execute("DELETE FROM book WHERE id % 2 = 0")
            inside.execute("VACUUM (ANALYZE) book")
        yield name
        setup.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))


def install(server: Server, place: str) -> None:
    with server.connect(dbname=place) as setup:
        setup.execute("CREATE EXTENSION pgstattuple")


def test_it_measures_and_the_history_keeps_it(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    place: str,
    done: Callable[..., Action],
) -> None:
    target = watch(server, dbname=place, include=[place], operator_user="operator")
    take_now(target, ["databases", "bloat"])
    install(server, place)
    user = person("operator")

    table = done(user, target, "measure_bloat", database=place, table="public.book")
    index = done(user, target, "measure_bloat", database=place, index="public.book_id")

    assert (table.state, index.state) == ("succeeded", "succeeded")
    assert " wasted (" in table.effect
    assert "10,000 live rows" in table.effect
    assert "leaf pages are" in index.effect
    rows = {row["indexrelname"] or row["relname"]: row for row in read_latest("bloat", target.pk)}
    for name in ("book", "book_id"):
        assert rows[name]["method"] == "exact"
        assert rows[name]["bloat_pct"] == pytest.approx(48, abs=4)
        assert rows[name]["measured_at"] is not None
    assert "book_hash" not in rows

    # The next snapshot keeps it; a crash of this would be a figure that flickers.
    with server.connect(dbname=place) as setup:
        setup.execute("DROP EXTENSION pgstattuple")
    take_now(target, ["bloat"])
    rows = {row["indexrelname"] or row["relname"]: row for row in read_latest("bloat", target.pk)}
    assert rows["book"]["method"] == "exact"


def test_without_the_extension_it_says_what_installs_it(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    place: str,
    previewed: Callable[..., Action],
) -> None:
    target = watch(server, dbname=place, include=[place], operator_user="operator")

    draft = previewed(person("dba"), target, "measure_bloat", database=place, table="public.book")

    assert "CREATE EXTENSION pgstattuple;" in draft.preview["refused"]


def test_without_the_right_it_says_the_grant(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    place: str,
    previewed: Callable[..., Action],
) -> None:
    install(server, place)
    target = watch(server, dbname=place, include=[place], operator_user="owner")

    draft = previewed(person("dba"), target, "measure_bloat", database=place, table="public.book")

    assert "Run: GRANT pg_stat_scan_tables TO owner;" in draft.preview["refused"]


def test_an_index_of_another_kind_is_refused(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    place: str,
    previewed: Callable[..., Action],
) -> None:
    install(server, place)
    target = watch(server, dbname=place, include=[place], operator_user="operator")

    draft = previewed(
        person("dba"), target, "measure_bloat", database=place, index="public.book_hash"
    )

    assert "is a hash index: only btree indexes are measured" in draft.preview["refused"]


@pytest.mark.parametrize("names", [{}, {"table": "public.a", "index": "public.b"}])
def test_one_object_is_named_in_one_way(names: dict[str, str]) -> None:
    with pytest.raises(InvalidArguments, match="Give one of table"):
        ACTION.clean({"database": "shop", **names})
