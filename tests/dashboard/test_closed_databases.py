"""A database that lets nobody in costs itself a warning, and no page of the others anything."""

from __future__ import annotations

import re
from html import unescape

import pytest
from django.urls import reverse
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Database

pytestmark = pytest.mark.django_db

READ = ["activity", "sessions", "databases", "tables", "indexes", "bloat"]


@pytest.fixture
def inv(embedded, worker_id):
    """The name of a database with a table."""
    name = f"inv_{worker_id}"

    def run(words: str) -> None:
        with embedded.connect() as session:
            session.execute(sql.SQL(words).format(sql.Identifier(name)))

    run("DROP DATABASE IF EXISTS {}")
    run("CREATE DATABASE {}")
    with embedded.connect(dbname=name) as session:
        session.execute("CREATE TABLE kept (id int PRIMARY KEY)")
    yield name
    run("DROP DATABASE {}")


@pytest.fixture
def target(embedded, watch, inv):
    """A target whose database `shop` is read, with 9 of 10 rows of a table gone, and `inv` no more."""
    with embedded.connect(dbname="shop") as session:
        session.autocommit = True
        session.execute("CREATE TABLE public.swollen (id int PRIMARY KEY, body text)")
        session.execute(
            "INSERT INTO public.swollen SELECT i, repeat('x', 90) FROM generate_series(1, 60000) i"
        )
        session.execute("GRANT SELECT ON public.swollen TO collector")  # its statistics
        session.execute("DELETE FROM public.swollen WHERE id % 10 > 0")
        session.execute("VACUUM (TRUNCATE false, ANALYZE) public.swollen")
    found = watch(embedded, include=[inv, "shop"])
    take_now(found, READ)
    with embedded.connect() as session:
        session.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", [inv])
    take_now(found, READ)
    return found


@pytest.fixture
def read(target, browse):
    """A function from a page's name and the rest of its address to its words."""

    def get(name: str, *rest: object) -> str:
        response = browse("viewer").get(reverse(name, args=[target.name, *rest]))
        assert response.status_code == 200
        return unescape(response.content.decode())

    return get


def verdict_of(text: str) -> str:
    found = re.search(r'<section class="verdict".*?</section>', text, re.DOTALL)
    assert found
    return found[0]


@pytest.mark.parametrize(
    ("name", "subject"), [("overview", "Tables"), ("vacuum", "Tables"), ("bloat", "Bloat")]
)
def test_it_is_a_warning_beside_the_verdict_over_the_others(read, inv, name, subject):
    text = read(name)

    said = verdict_of(text)
    words = rf"{subject} of {inv} may not be read for [^<]*: the database is invalid[^<]*;<"
    assert re.search(rf'class="verdict-apart" data-level="warning">.*{words}', said)
    assert f"DROP DATABASE {inv};<" in said
    assert ";." not in said
    assert "When it was last read" not in said
    assert re.search(r"Read \d[^<]* ago\.", said)
    assert "Last read" not in text
    if name == "bloat":
        assert re.search(r"MB are wasted in all, .* by public\.swollen", said)


def test_pages_about_another_database_say_nothing_of_it(read, target, inv):
    shop = Database.objects.get(target=target, datname="shop")
    tables = HISTORY["tables"].latest._default_manager.filter(database_id=shop.pk)
    relid = tables.values_list("relid", flat=True).get(relname="swollen")
    mine = HISTORY["indexes"].latest._default_manager.filter(database_id=shop.pk, relid=relid)

    for name, oid in (
        ("table", relid),
        ("table-what-if", relid),
        ("index", mine.values_list("indexrelid", flat=True).get()),
    ):
        text = read(name, shop.datid, oid)

        assert 'class="fresh" data-level="good"' in text, name
        assert inv not in text, name
        assert "may not be read" not in text, name


def test_the_page_about_it_is_as_old_as_it_is(read, target, inv):
    database = Database.objects.get(target=target, datname=inv)
    kept = HISTORY["tables"].latest._default_manager.filter(database_id=database.pk, relname="kept")

    text = read("table", database.datid, kept.values_list("relid", flat=True).get())

    assert f"Tables of {inv} may not be read" in text
    assert "Last read" in text


def test_a_target_none_of_whose_databases_is_read_has_no_verdict_but_that(
    read, target, inv, embedded
):
    target.include = [inv]
    target.save()
    take_now(target, READ)

    said = verdict_of(read("bloat"))

    assert f'class="verdict-text">Bloat of {inv} may not be read for' in said
    assert "wasted in all" not in said


def test_a_database_that_is_watched_anew_hides_no_other(read, target, inv, embedded):
    with embedded.connect() as session:
        session.execute("UPDATE pg_database SET datconnlimit = -1 WHERE datname = %s", [inv])
    take_now(target, READ)
    for names in (["shop"], [inv, "shop"]):
        target.include = names
        target.save()
        take_now(target, ["databases"])

    said = verdict_of(read("bloat"))

    assert re.search(rf"Bloat of {inv}: (the )?first snapshot", said)
    assert re.search(r"MB are wasted in all, .* by public\.swollen", said)
    assert 'class="verdict-apart" data-level="notice"' in said
