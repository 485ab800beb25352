"""Sizes, durations, counts, moments, names and sentences are written in one way."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st
from psycopg import sql

from monitors import words
from tests.servers import Server

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECONDS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}
UNITS = {"bytes": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("permission denied for table a", "Permission denied for table a."),
        ("must be owner.", "Must be owner."),
        ("is it on?", "Is it on?"),
        ("canceling statement due to …", "Canceling statement due to …"),
        ("ungültige Eingabe", "Ungültige Eingabe."),
        ("the database is invalid: DROP DATABASE inv1;", "The database is invalid: DROP DATABASE inv1;"),
        ("pg_stat_statements 1.8 is too old", "pg_stat_statements 1.8 is too old."),
        ("public.orders is locked", "public.orders is locked."),
        ("inv1 takes nobody", "inv1 takes nobody."),
        ("  ", ""),
    ],
)  # fmt: skip
def test_a_sentence_ends_once_and_begins_with_no_changed_name(text, said):
    assert words.sentence(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The database is invalid.", "the database is invalid."),
        ("A lock was not free.", "a lock was not free."),
        ("TLS is asked for.", "TLS is asked for."),
        ("pg_stat_statements is too old.", "pg_stat_statements is too old."),
        ("", ""),
    ],
)
def test_the_second_half_of_a_sentence_begins_small_where_it_is_a_word(text, said):
    assert words.second_half(text) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, ("0", "bytes")),
        (1023, ("1023", "bytes")),
        (1024, ("1", "kB")),
        (1288490189, ("1.2", "GB")),
        (57 * 1024**3, ("57", "GB")),
        (640 * 1024**2, ("640", "MB")),
        (3 * 1024**4, ("3", "TB")),
    ],
)
def test_sizes_read_as_postgresql_writes_them(value, said):
    assert words.size_parts(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.084, "84 ms"),
        (4.2, "4.2 s"),
        (42, "42 s"),
        (725, "12 min 05 s"),
        (7440, "2 h 04 min"),
        (266400, "3 d 2 h"),
    ],
)
def test_durations_have_units(seconds, said):
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"), [(14_900_000, ("14.9", "M")), (950, ("950", "")), (1000, ("1", "k"))]
)
def test_great_figures_are_short(value, said):
    assert words.short_parts(value) == said


@given(st.floats(0, 2**60))
def test_a_size_says_what_it_is_to_a_twentieth(amount: float) -> None:
    figure, unit = words.size(amount).split(" ")

    assert len(figure) <= 4 or unit == "TB"
    assert float(figure) * UNITS[unit] == pytest.approx(amount, rel=0.05, abs=0.5)
    assert words.size(-amount).removeprefix(words.MINUS) == words.size(amount)


@given(st.floats(0, 10**9))
def test_a_duration_says_what_it_is_to_its_smallest_unit(seconds: float) -> None:
    parts = re.findall(r"([0-9.]+) (ms|s|min|h|d)", words.duration(seconds))
    smallest = SECONDS[parts[-1][1]]

    said = sum(float(figure) * SECONDS[unit] for figure, unit in parts)
    assert said == pytest.approx(seconds, abs=smallest)
    assert len(parts) <= 2


@given(st.floats(0, 10**7), st.floats(0, 10**7))
def test_no_figure_is_shorter_for_more(one: float, other: float) -> None:
    less, more = sorted((one, other))

    assert words.count(less, "row") == words.count(more, "row") or more > less
    assert in_seconds(words.age(less)) <= in_seconds(words.age(more))


def in_seconds(text: str) -> float:
    return sum(float(figure) * SECONDS[unit] for figure, unit in re.findall(r"(\d+) (\w+)", text))


def test_one_is_no_plural() -> None:
    assert [words.count(number, "call") for number in (0, 1, 2)] == ["0 calls", "1 call", "2 calls"]
    assert [words.times(number) for number in (1, 2, 1234)] == ["once", "twice", "1,234 times"]


def test_dates_are_said_as_exactly_as_they_are_meant() -> None:
    assert words.day(NOW + timedelta(hours=50), NOW) == "26 Nov 14:00 UTC"
    assert words.day(NOW + timedelta(days=110), NOW) == "14 Mar 2027"


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1)
)
def test_each_name_that_is_no_plain_word_is_quoted(names: list[str]) -> None:
    assert words.quoted(*names) == ".".join(words.quoted(name) for name in names)
    for name in names:
        text = words.quoted(name)
        assert text == name or text == sql.Identifier(name).as_string()


def test_names_are_quoted_as_the_server_quotes_them(server: Server) -> None:
    odd = [
        "orders",
        "Orders",
        "a b",
        "a$b",
        "_x9",
        "9x",
        "",
        'say "hi"',
        "größe",
        "a.b",
    ]
    with server.connect() as session:
        keywords = session.execute("SELECT word FROM pg_get_keywords()").fetchall()
        names = [*odd, *(word for (word,) in keywords), *words.KEYWORDS]
        rows = session.execute(
            "SELECT name, quote_ident(name) FROM unnest(%s::text[]) AS n (name)", [names]
        ).fetchall()

    # A word that became one later is quoted on older servers too: that is right everywhere.
    for name, quoted in rows:
        wanted = sql.Identifier(name).as_string() if name in words.KEYWORDS else quoted
        assert words.quoted(name) == wanted, name
