"""The one place for how sizes, durations, counts, moments, names and sentences are written.

The same number reads the same on a page, in a command, in an export's text and in a finding.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta

MINUS = "\N{MINUS SIGN}"
SIZES = ((1024**4, "TB"), (1024**3, "GB"), (1024**2, "MB"), (1024, "kB"))
"""Bytes of PostgreSQL's names: base 1024, as pg_size_pretty has it."""
SHORT = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
NONE = "\N{EN DASH}"
"""What stands for a figure that is not known."""
MINUTE, HOUR, DAY = 60, 3600, 86400
TEN = 10
FINEST = 0.001  # milliseconds
SOON = timedelta(days=3)
"""A date that is nearer is told with its time of day."""

PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")
# https://www.postgresql.org/docs/current/sql-keywords-appendix.html: all of 14 to 19 that
# pg_get_keywords() calls other than unreserved.
KEYWORDS = frozenset(
    """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit
    boolean both case cast char character check coalesce collate collation column concurrently
    constraint create cross current_catalog current_date current_role current_schema
    current_time current_timestamp current_user dec decimal default deferrable desc distinct do
    else end except exists extract false fetch float for foreign freeze from full grant
    graph_table greatest group grouping having ilike in initially inner inout int integer
    intersect interval into is isnull join json json_array json_arrayagg json_exists json_object
    json_objectagg json_query json_scalar json_serialize json_table json_value lateral leading
    least left like limit localtime localtimestamp merge_action national natural nchar none
    normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay
    placing position precision primary real references returning right row select session_user
    setof similar smallint some substring symmetric system_user table tablesample then time
    timestamp to trailing treat trim true union unique user using values varchar variadic
    verbose when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest
    xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """.split()  # noqa: SIM905 - a list would be a hundred lines
)

ENDS = (".", "!", "?", "…", ";")
"""What needs no full stop: `;` ends a quoted statement, which must stay one that can be run."""
NAME = re.compile(r"\S*[_\d]|\S+\.\S")
"""How pg_stat_statements or public.orders begin, and no word of a language."""


# Figures


def trim(value: float) -> str:
    """Return a figure with one decimal below 100, where it says something: 9.4, 31, 412."""
    text = f"{value:.0f}" if abs(value) >= TEN * TEN else f"{value:.1f}"
    return signed(text.removesuffix(".0"))


def signed(text: str) -> str:
    """Return a figure with a minus sign instead of a hyphen."""
    return text.replace("-", MINUS)


def size_parts(amount: float) -> tuple[str, str]:
    """Return a size in bytes as figure and unit."""
    for unit, name in SIZES:
        if abs(amount) >= unit:
            return trim(amount / unit), name
    return signed(f"{amount:.0f}"), "bytes"


def size(amount: float) -> str:
    """Return a size in bytes: `1.2 GB`, `340 MB`, `812 bytes`."""
    return " ".join(size_parts(amount))


def short_parts(value: float) -> tuple[str, str]:
    """Return a figure and k, M, G or T, '' where it needs none."""
    for unit, name in SHORT:
        if abs(value) >= unit:
            return trim(value / unit), name
    return (signed(f"{value:.0f}") if float(value).is_integer() else trim(value)), ""


def short(value: float) -> str:
    """Return a count roughly: `83`, `4.1 k`, `142 M`, `1.6 G`."""
    return " ".join(short_parts(value)).rstrip()


def count(number: float, noun: str) -> str:
    """Return `1 backend`, `12 backends`, `9,412,380 dead rows`."""
    return f"{number:,.0f} {noun}{'' if round(number) == 1 else 's'}"


def times(number: int) -> str:
    """Return `once`, `twice` or `3 times`."""
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


# Time


def duration(seconds: float) -> str:
    """Return how long something takes: 84 ms, 4.2 s, 42 s, 12 min 05 s, 2 h 04 min, 3 d 2 h or 3 d."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < TEN:
        return f"{trim(seconds)} s"
    whole = int(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return join(f"{whole // MINUTE} min", whole % MINUTE, "02", "s")
    if whole < DAY:
        return join(f"{whole // HOUR} h", whole % HOUR // MINUTE, "02", "min")
    return join(f"{whole // DAY} d", whole % DAY // HOUR, "", "h")


def join(first: str, rest: int, digits: str, unit: str) -> str:
    """Return a duration of two units, of one where the second says nothing."""
    return f"{first} {rest:{digits}} {unit}" if rest else first


def milliseconds(amount: float) -> str:
    """Return milliseconds, finely where there are few: 0.35 ms, 3.4 ms, 312 ms, 4.2 s, 2 h 04 min."""
    if amount >= TEN or amount == 0:
        return duration(amount / 1000)
    if amount >= 1:
        return f"{amount:.1f} ms"
    return f"{amount:.2g} ms" if amount >= FINEST else f"under {FINEST} ms"


def age(seconds: float) -> str:
    """Return roughly how long ago something was, or how often it comes: 8 s, 9 min, 3 h 12 min, 2 d."""
    whole = int(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min"
    if whole < DAY:
        return join(f"{whole // HOUR} h", whole % HOUR // MINUTE, "02", "min")
    return f"{whole // DAY} d"


def clock(moment: datetime, now: datetime | None) -> str:
    """Return `02:11 UTC`, with the day where that is another one than today's."""
    utc = moment.astimezone(UTC)
    if now is not None and utc.date() == now.astimezone(UTC).date():
        return f"{utc:%H:%M} UTC"
    return f"{utc.day} {utc:%b %H:%M} UTC"


def day(moment: datetime, now: datetime) -> str:
    """Return a date as exactly as it can be meant: `28 Nov 14:00 UTC`, or `14 Mar 2027`."""
    if moment - now < SOON:
        return f"{moment.day} {moment:%b %H:%M} UTC"
    return f"{moment.day} {moment:%b %Y}"


# Names


@functools.lru_cache(maxsize=100_000)
def quoted(*names: str) -> str:
    """Return names as quote_ident() and regclass write them: `public."Odd ""Name"`, `"user"`.

    Lists of ten thousand tables ask again and again.
    """
    return ".".join(
        name
        if PLAIN_NAME.fullmatch(name) and name not in KEYWORDS
        else '"' + name.replace('"', '""') + '"'
        for name in names
    )  # fmt: skip


# Sentences


def capital(text: str) -> str:
    """Return text with a capital first letter; a name that it begins with is left as it is."""
    return text if NAME.match(text) else f"{text[:1].upper()}{text[1:]}"


def ended(text: str) -> str:
    """Return text with a full stop, where neither a sentence nor a statement ends it; '' stays ''."""
    return text if not text or text.endswith(ENDS) else f"{text}."


def sentence(text: str) -> str:
    """Return text that begins and ends as a sentence; '' stays ''."""
    return ended(capital(text.strip()))


def second_half(text: str) -> str:
    """Return a sentence as it goes on after a colon: its first word is small, a name stays."""
    is_word = len(text) > 1 and (text[1].islower() or text[1] == " ")
    return f"{text[:1].lower()}{text[1:]}" if is_word else text
