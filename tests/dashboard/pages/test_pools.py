"""The pool calculators: for typed figures, and for a target with its own limits and demand."""

from __future__ import annotations

import json
from contextlib import ExitStack
from html import unescape

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from dashboard.pages.pools import QUIZ
from monitors import words
from monitors.collect.rounds import take_now
from monitors.history.window import Window
from monitors.rows import pools as rows
from monitors.rows.pools import AnswerRow, LimitRow
from monitors.rules.pool_sizes import TIMES
from monitors.rules.refusals import TOO_MANY
from tests.typed import assert_typed

TYPED = "/pools/"


def text_of(response):
    content = response.streaming_content if response.streaming else [response.content]
    return unescape(b"".join(content).decode())


def answered(client, address, query=""):
    """Return the answer that a program gets."""
    return dict(json.loads(text_of(client.get(f"{address}?{query}&format=json"))))


def commanded(capsys, *words):
    call_command("pools", *words, "--json")
    return json.loads(capsys.readouterr().out)


def of_target(shop):
    return reverse("pools", args=[shop.name])


def live():
    return Window.last("1h", timezone.now())


def test_the_quiz_is_answered_alike_by_page_program_and_command(browse, capsys):
    client = browse("stranger")

    row = answered(client, TYPED, QUIZ)
    text = text_of(client.get(f"{TYPED}?{QUIZ}"))
    said = commanded(
        capsys, *f"--{QUIZ}".replace("&", "=--").replace("max_", "max-").replace("pool_", "pool-").split("=")
    )  # fmt: skip

    assert (row["needed"], row["usable"]) == (140, 97)
    assert (row["verdict"], row["first_limit"]) == ("exceeds", "max_connections - reserved")
    assert TOO_MANY in row["errors"]
    assert row == said
    assert_typed(row, AnswerRow)
    assert f"4{TIMES}(25 + 10) = 140 > 97: under full load 43 connections too many." in text
    assert TOO_MANY in text
    assert "pool_size=18,\n    max_overflow=2," in text  # 20 for each process leave 15 %


def test_an_empty_form_shows_the_quiz_and_leads_to_it(browse):
    text = text_of(browse("stranger").get(TYPED))

    assert f"4{TIMES}(25 + 10) = 140 > 97" in text
    assert f'href="{TYPED}?{QUIZ}"' in text
    assert json.loads(text_of(browse("stranger").get(TYPED, {"format": "json"}))) == {}


def test_what_was_typed_stays_and_one_more_service_can_be_typed(browse):
    query = "service=web&pool_size=7&service=worker&pool_size=&via=&via=pgbouncer&pgbouncers=2&surge=25%25"

    text = text_of(browse("stranger").get(f"{TYPED}?{query}"))

    for word, value in (
        ("service", "web"), ("pool_size", "7"), ("service", "worker"), ("pgbouncers", "2"), ("surge", "25%"),
    ):  # fmt: skip
        assert f'name="{word}"' in text.split(f'value="{value}"')[0].rpartition("<input")[2]
    assert text.count('name="pool_size"') == 3
    assert '<option value="pgbouncer" selected>' in text


def test_a_word_without_meaning_is_named_and_nothing_is_answered(browse):
    client, query = browse("stranger"), f"{TYPED}?processes=x&pool_size=7&pool_size=0"

    page = client.get(query)
    part = client.get(query, headers={"HX-Request": "true"})
    program = client.get(query + "&format=json")

    text = text_of(page)
    assert page.status_code == 400
    assert "Nothing is calculated: see the marked fields." in text
    assert 'value="x"' in text
    assert text.count('aria-invalid="true"') == 2
    assert "Needed" not in text
    assert part.status_code == 200  # HTMX shows no 400, and an old answer would stay
    assert "Nothing is calculated" in text_of(part)
    assert program.status_code == 400
    assert "processes: Write a whole number" in program.json()["error"]


def test_a_forecast_says_where_a_pool_can_not_keep_up(browse):
    client, load = browse("stranger"), "&xact_per_second=400&xact_ms=20"

    enough = text_of(client.get(f"{TYPED}?pool_size=10&max_overflow=0{load}"))
    short = text_of(client.get(f"{TYPED}?pool_size=8&max_overflow=0{load}"))
    absurd = text_of(client.get(f"{TYPED}?pool_size=8&xact_per_second=99999999&xact_ms=99999999"))

    assert (
        "10 connections of these pools:</span> mean wait 4.1 ms." in enough
    )  # 0.409 * 20 ms / (10 - 8)
    assert '<circle data-kind="now"' in enough
    assert "8 connections of these pools can't keep up" in short
    assert "No server has as many connections as that load needs." in absurd


def test_a_targets_own_limits_count_and_those_of_its_databases(shop, embedded, browse, capsys):
    with embedded.connect() as superuser:
        usable = superuser.execute(
            "SELECT current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
            " - current_setting('reserved_connections')::int"
        ).fetchone()[0]
        superuser.execute("ALTER DATABASE shop CONNECTION LIMIT 20")
        try:
            take_now(shop, ["databases"])
        finally:
            superuser.execute("ALTER DATABASE shop CONNECTION LIMIT -1")
    client, query = browse("viewer"), "processes=3&pool_size=7&max_overflow=0"

    anywhere = answered(client, of_target(shop), query)
    there = answered(client, of_target(shop), f"{query}&database=shop")

    assert (anywhere["needed"], anywhere["usable"], anywhere["verdict"]) == (21, usable, "fits")
    assert (there["verdict"], there["first_limit"]) == (
        "exceeds", "CONNECTION LIMIT of database shop",
    )  # fmt: skip
    assert there["errors"] == ['FATAL:  too many connections for database "shop"']
    given = [
        "shop-1",
        "--processes",
        "3",
        "--pool-size",
        "7",
        "--max-overflow",
        "0",
        "--database",
        "shop",
    ]
    assert commanded(capsys, *given).items() >= there.items()
    text = text_of(client.get(of_target(shop)))
    assert f"Do your pools fit into the {usable} connections that shop-1 has for them?" in text
    for row in rows.database_limits(shop, live()):
        assert_typed(row, LimitRow)
        assert (row["connection_limit"] == 20) is (row["datname"] == "shop")


def test_demand_is_measured_and_recommends_a_size(shop, embedded, browse):
    with ExitStack() as stack:
        for _ in range(7):
            session = stack.enter_context(embedded.connect(dbname="shop", autocommit=False))
            session.execute("SELECT 1")
        take_now(shop, ["sessions"])
        measured = rows.measure(shop, live())
        shop.cores = 2  # what a target says of its machine
        capped = rows.measure(shop, live())
    text = text_of(browse("viewer").get(of_target(shop)))

    assert measured.readings >= 1
    assert (measured.peak_in_xact or 0) >= 7
    assert measured.usual_in_xact == measured.peak_in_xact  # of so few readings
    assert (measured.recommended or 0) >= 10  # 1.3 * 7
    assert capped.recommended == 8
    assert capped.is_server_the_limit
    assert not measured.is_server_the_limit
    assert f"99 % of {words.count(measured.readings, 'reading')}" in text


def test_before_the_first_snapshot_nothing_is_said_of_a_server(db, watch, embedded, browse):
    fresh = watch(embedded, name="fresh")

    text = text_of(browse("viewer").get(of_target(fresh)))

    assert "What it admits is not known before its first snapshot." in text
    assert rows.limits_of(fresh, live()) is None
    assert rows.measure(fresh, live()).recommended is None
    assert rows.traffic_of(fresh, live()).open is None


def test_a_connection_for_each_request_is_seen_on_a_running_server(
    shop, embedded, browse, eventually
):
    client, since = browse("viewer"), {"from": f"{timezone.now().timestamp():.6f}"}

    def is_seen() -> bool:
        for _ in range(20):
            embedded.connect(dbname="shop").close()
        take_now(shop, ["databases"])
        return "A connection for each request" in text_of(client.get(of_target(shop), since))

    assert not client.get(of_target(shop), since).context["mistakes"]
    eventually(is_seen, seconds=30)


def test_pools_that_are_too_large_are_seen_on_a_running_server(shop, embedded, browse, eventually):
    limits = rows.limits_of(shop, live())
    assert limits is not None
    with ExitStack() as stack:
        for _ in range(-(-limits.usable * 8 // 10)):
            stack.enter_context(embedded.connect(dbname="shop"))
        take_now(shop, ["sessions"])
    client = browse("viewer")

    def is_told() -> bool:
        return "Pools that are too large" in text_of(client.get(of_target(shop)))

    assert is_told()
    eventually(lambda: take_now(shop, ["sessions"]) and not is_told())


def test_a_target_that_one_may_not_see_has_no_calculator(shop, browse):
    assert browse("stranger").get(of_target(shop)).status_code == 404
    assert browse("stranger").get(TYPED).status_code == 200
    assert shop.name not in text_of(browse("stranger").get(TYPED))


def test_the_command_says_what_is_missing(capsys, db):
    for given, said in (
        (["--processes", "x"], "processes: Write a whole number"),
        ([], "Nothing is asked"),
        (["nowhere"], "There is no target nowhere"),
    ):
        with pytest.raises(SystemExit):
            call_command("pools", *given)
        assert said in capsys.readouterr().err
