"""The words of an address that ask a pool calculator, read into its question.

The words of a service (`SERVICE`) may stand several times: the first of each belongs to the first
service, the second to the second. A service of which every word is empty is none; an empty word, or
one that is not there, means its default. All other words stand once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from monitors.rules.pools import Limits, PgBouncer, Pool, Question, Service, Surge

MOST = 100_000
MAX_BACKENDS = 262_143
"""The greatest max_connections that a server takes."""
MANY = 50
"""Services of one question."""
NAMED = 63
"""Characters of a name, as PostgreSQL has it."""

Words = Mapping[str, Sequence[str]]
"""As an address has them: each word with its values in their order."""


@dataclass(frozen=True)
class Number:
    """A word that takes a whole number; `default` None: nothing, where it is empty."""

    word: str
    default: int | None
    least: int = 0
    most: int = MOST
    instead: str = ""  # what to do about one that is too small


UNLIMITED = (
    "That is no limit in SQLAlchemy: give the greatest number of connections that may be open."
)
SERVICE_NUMBERS = (
    Number("instances", 1, 1),
    Number("processes", 1, 1),
    Number("pool_size", 5, 1, instead=UNLIMITED),
    Number("max_overflow", 10, 0, instead=UNLIMITED),
    Number("extra", 0),
    Number("connection_limit", None),
)
SERVICE = ("service", *(one.word for one in SERVICE_NUMBERS), "database", "via")
SERVER_NUMBERS = (
    Number("max_connections", 100, 1, MAX_BACKENDS),
    Number("reserved", 3, 0, MAX_BACKENDS),
    Number("monitoring", 0),
    Number("people", 0),
    Number("memory_mb", None, 1, 10**9),
)
PGBOUNCER_NUMBERS = (
    Number("pgbouncers", 0),
    Number("pairs", 1, 1, 1000),
    Number("default_pool_size", 20, 1),
    Number("reserve_pool_size", 0),
    Number("max_db_connections", 0),
    Number("max_user_connections", 0),
    Number("max_client_conn", 100, 1, 10**7),
)
DEMAND = ("xact_per_second", "xact_ms")
ONCE = (
    *(one.word for one in (*SERVER_NUMBERS, *PGBOUNCER_NUMBERS)),
    "surge",
    *DEMAND,
)
VIA_PGBOUNCER = "pgbouncer"
SURGE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*%")
WHOLE = re.compile(r"[0-9]{1,12}")
DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True)
class Demand:
    """A typed or measured load: transactions a second, and how long one lasts."""

    xact_per_second: float
    xact_seconds: float

    @property
    def xact_ms(self) -> float:
        """How long one is open, in milliseconds."""
        return 1000 * self.xact_seconds

    @property
    def load(self) -> float:
        """How many are open at once on average."""
        return self.xact_per_second * self.xact_seconds


@dataclass
class Asked:
    """What was asked: the question where every word has a meaning, else what is wrong with which."""

    question: Question = field(default_factory=Question)
    demand: Demand | None = None
    wrong: dict[tuple[str, int], str] = field(default_factory=dict)
    """By word and the number of its service, which is 0 for all other words."""
    is_asked: bool = False
    """Whether there is a service or a PgBouncer to reckon with."""

    @property
    def error(self) -> str:
        """All that is wrong, as sentences that begin with their word."""
        return " ".join(f"{word}: {text}" for (word, _number), text in self.wrong.items())


def read(words: Words, server: Limits | None = None) -> Asked:
    """Return what some words ask, of a server where one is given: its figures are the defaults."""
    asked, known = Asked(), server or Limits()
    services = services_of(words, asked.wrong)
    numbers = {one.word: number_of(words, one, asked.wrong) for one in PGBOUNCER_NUMBERS}
    pgbouncer = pgbouncer_of(numbers)
    limits = limits_of(words, known, asked.wrong)
    asked.question = Question(services, limits, surge_of(words, asked.wrong), pgbouncer)
    asked.demand = demand_of(words, asked.wrong)
    asked.is_asked = bool(services or pgbouncer)
    if pgbouncer is None and any(one.via_pgbouncer for one in services):
        text = "A service connects through PgBouncer: say how many PgBouncer processes there are."
        asked.wrong.setdefault(("pgbouncers", 0), text)
    return asked


def rows_of(words: Words) -> list[dict[str, str]]:
    """Return what was typed of each service, {word: text}, those that are empty too."""
    count = max((len(words.get(word, ())) for word in SERVICE), default=0)
    return [{word: typed(words, word, number) for word in SERVICE} for number in range(count)]


def typed(words: Words, word: str, number: int = 0) -> str:
    """Return the nth value of a word without blanks around it, '' where there is none."""
    values = words.get(word, ())
    return values[number].strip() if number < len(values) else ""


def services_of(words: Words, wrong: dict[tuple[str, int], str]) -> tuple[Service, ...]:
    """Return the services; what is wrong with them goes into `wrong`."""
    rows = rows_of(words)
    if len(rows) > MANY:
        wrong["service", 0] = f"At most {MANY} services fit into one address."
        return ()
    return tuple(
        service_of(words, row, number, wrong)
        for number, row in enumerate(rows)
        if any(row.values())
    )


def service_of(
    words: Words, row: Mapping[str, str], number: int, wrong: dict[tuple[str, int], str]
) -> Service:
    """Return one service."""
    found = {one.word: number_of(words, one, wrong, number) for one in SERVICE_NUMBERS}
    if row["via"] not in {"", VIA_PGBOUNCER}:
        wrong["via", number] = f"Leave it empty, or write {VIA_PGBOUNCER}."
    for word in ("service", "database"):
        if len(row[word]) > NAMED or not row[word].isprintable():
            wrong[word, number] = f"A name has at most {NAMED} characters, all of them visible."
    return Service(
        name=row["service"],
        instances=found["instances"] or 1,
        processes=found["processes"] or 1,
        pool_size=found["pool_size"] or 1,
        max_overflow=found["max_overflow"] or 0,
        extra=found["extra"] or 0,
        connection_limit=found["connection_limit"],
        database=row["database"],
        via_pgbouncer=row["via"] == VIA_PGBOUNCER,
    )


def number_of(
    words: Words, number: Number, wrong: dict[tuple[str, int], str], place: int = 0
) -> int | None:
    """Return a word's number, its default where it is empty or, with a line in `wrong`, has none."""
    text = typed(words, number.word, place)
    if not text:
        return number.default
    if text.startswith("-") and number.instead and WHOLE.fullmatch(text[1:]):
        wrong[number.word, place] = number.instead
        return number.default
    value = int(text) if WHOLE.fullmatch(text) else None
    if value is not None and number.least <= value <= number.most:
        return value
    if value is not None and value < number.least and number.instead:
        wrong[number.word, place] = number.instead
    else:
        wrong[number.word, place] = f"Write a whole number from {number.least} to {number.most:,}."
    return number.default


def limits_of(words: Words, server: Limits, wrong: dict[tuple[str, int], str]) -> Limits:
    """Return a server's limits with what was typed instead of them."""
    defaults = {
        "max_connections": server.max_connections,
        "reserved": server.reserved,
        "monitoring": server.monitoring,
        "people": server.people,
        "memory_mb": server.memory_mb,
    }
    found = {
        one.word: number_of(words, replace(one, default=defaults[one.word]), wrong)
        for one in SERVER_NUMBERS
    }
    reserved = found["reserved"] or 0
    if reserved >= (found["max_connections"] or 0):
        wrong.setdefault(("reserved", 0), "It must be smaller than max_connections.")
    return replace(
        server,
        max_connections=found["max_connections"] or 0,
        reserved=reserved,
        for_privileged=min(server.for_privileged, reserved),
        monitoring=found["monitoring"] or 0,
        people=found["people"] or 0,
        memory_mb=found["memory_mb"],
    )


def pgbouncer_of(numbers: Mapping[str, int | None]) -> PgBouncer | None:
    """Return the PgBouncers, None where there are none; each pair of them has a user of its own."""
    if not numbers["pgbouncers"]:
        return None
    size, reserve = numbers["default_pool_size"] or 1, numbers["reserve_pool_size"] or 0
    pools = tuple(Pool("", str(number), size, reserve) for number in range(numbers["pairs"] or 1))
    return PgBouncer(
        processes=numbers["pgbouncers"],
        pools=pools,
        max_db_connections=numbers["max_db_connections"] or 0,
        max_user_connections=numbers["max_user_connections"] or 0,
        max_client_conn=numbers["max_client_conn"] or 1,
    )


def surge_of(words: Words, wrong: dict[tuple[str, int], str]) -> Surge:
    """Return what a deploy starts beside what runs: `2` instances, or `25%` of them."""
    text = typed(words, "surge")
    if not text:
        return Surge()
    if share := SURGE.fullmatch(text):
        pct = float(share[1])
        if pct <= MOST:
            return Surge(pct=pct)
    elif WHOLE.fullmatch(text) and int(text) <= MOST:
        return Surge(instances=int(text))
    wrong["surge", 0] = (
        "Write how many instances more run in a deploy, as 1, or their share, as 25%."
    )
    return Surge()


def demand_of(words: Words, wrong: dict[tuple[str, int], str]) -> Demand | None:
    """Return the typed load, None where it is not typed in full."""
    numbers = []
    for word in DEMAND:
        text = typed(words, word)
        value = float(text) if DECIMAL.fullmatch(text) else math.nan
        if value > 0:
            numbers.append(value)
        elif text:
            wrong[word, 0] = "Write a number greater than 0."
    return Demand(numbers[0], numbers[1] / 1000) if len(numbers) == len(DEMAND) else None
