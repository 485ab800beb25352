"""When autovacuum will vacuum or analyze a table, by the server's own rules.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#AUTOVACUUM
and `relation_needs_vacanalyze()` in src/backend/postmaster/autovacuum.c of 14 to 18.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# What a server uses that was not told otherwise; stands in until its settings are read.
DEFAULTS = {
    "autovacuum": "on",
    "track_counts": "on",
    "autovacuum_vacuum_threshold": "50",
    "autovacuum_vacuum_scale_factor": "0.2",
    "autovacuum_vacuum_max_threshold": "100000000",  # 18+; -1: no cap
    "autovacuum_vacuum_insert_threshold": "1000",  # -1: inserts alone never trigger
    "autovacuum_vacuum_insert_scale_factor": "0.2",
    "autovacuum_analyze_threshold": "50",
    "autovacuum_analyze_scale_factor": "0.1",
}
NUMBERS = (
    "autovacuum_vacuum_threshold",
    "autovacuum_vacuum_scale_factor",
    "autovacuum_vacuum_max_threshold",
    "autovacuum_vacuum_insert_threshold",
    "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_analyze_threshold",
    "autovacuum_analyze_scale_factor",
)
FOUR_BYTES = struct.Struct("f")
CAP_MAJOR = 18  # autovacuum_vacuum_max_threshold, and only unfrozen pages count for inserts

FIRST_NORMAL_XID = 3  # 0 is invalid, 1 and 2 stand for "before everything"
XIDS = 2**32
OLDEST_AGE = 2**31 - 1  # what age() says of a permanent transaction id


@dataclass(frozen=True)
class Thresholds:
    """Counts that must be exceeded, not reached, before autovacuum acts.

    `insert` is None where inserts alone never trigger a vacuum, `analyze` is None
    for TOAST tables. The numbers hold whether or not autovacuum is `enabled`
    (for the table and on the server); a vacuum to prevent wraparound ignores them.
    """

    vacuum: float  # dead rows
    insert: float | None  # rows inserted since the last vacuum
    analyze: float | None  # rows changed since the last analyze
    enabled: bool


def threshold(  # noqa: PLR0913 - the columns that the server looks at, by name
    settings: Mapping[str, str],
    reloptions: Iterable[str] | None,
    *,
    reltuples: float | None,
    relpages: int | None,
    relallfrozen: int | None,
    server_version: int | None,
    relkind: str = "r",
) -> Thresholds:
    """Return the thresholds of one table, with those of its storage options that are set.

        vacuum  = vacuum_threshold + vacuum_scale_factor * reltuples
                  from 18 on at most vacuum_max_threshold, unless that is -1
        insert  = insert_threshold + insert_scale_factor * reltuples * unfrozen
                  unfrozen = 1 up to 17; from 18 on the share of pages not all-frozen
        analyze = analyze_threshold + analyze_scale_factor * reltuples

    `reltuples` is -1 before the first vacuum or analyze and counts as 0 then.
    `reloptions` are `name=value` texts. Of a TOAST table (`relkind` t) without options
    the caller passes its main table's, as the server does. Autovacuum never comes for a
    partitioned table (p), only for its partitions. A missing setting or
    server_version counts as the default and as the newest version.
    """
    options = parse_options(reloptions) if reloptions else {}
    numbers = numbers_of(tuple(settings.get(name, DEFAULTS[name]) for name in NUMBERS))

    def number(name: str) -> float:
        return single(float(options[name])) if name in options else numbers[name]

    rows = single(max(reltuples or 0.0, 0.0))
    capped = server_version is None or server_version // 10000 >= CAP_MAJOR
    unfrozen = unfrozen_share(relpages, relallfrozen) if capped else 1.0

    def trigger(kind: str, share: float = 1.0) -> float:
        scaled = single(number(f"autovacuum_{kind}_scale_factor") * rows)
        return single(number(f"autovacuum_{kind}_threshold") + single(scaled * share))

    vacuum = trigger("vacuum")
    cap = number("autovacuum_vacuum_max_threshold") if capped else -1.0
    return Thresholds(
        vacuum=min(vacuum, cap) if cap >= 0 else vacuum,
        insert=(
            trigger("vacuum_insert", unfrozen)
            if number("autovacuum_vacuum_insert_threshold") >= 0
            else None
        ),
        analyze=None if relkind in {"t", "p"} else trigger("analyze"),
        enabled=relkind != "p" and is_enabled(settings, reloptions),
    )


def threshold_of(
    row: Mapping[str, Any],
    settings: Mapping[str, str],
    server_version: int | None,
    reloptions: Iterable[str] | None = None,
) -> Thresholds:
    """Return the thresholds of a `tables` row; without `reloptions` its own hold."""
    return threshold(
        settings,
        row["reloptions"] if reloptions is None else reloptions,
        reltuples=row["reltuples"],
        relpages=row["relpages"],
        relallfrozen=row["relallfrozen"],
        server_version=server_version,
        relkind=row["relkind"],
    )


@functools.lru_cache(maxsize=64)
def numbers_of(texts: tuple[str, ...]) -> dict[str, float]:
    """Return {name: number} of the server's settings, given as texts in the order of NUMBERS.

    Ten thousand tables of one server share them.
    """
    return {name: single(float(text)) for name, text in zip(NUMBERS, texts, strict=True)}


def is_enabled(settings: Mapping[str, str], reloptions: Iterable[str] | None) -> bool:
    """Tell whether autovacuum looks at a table: it runs, and the table does not switch it off."""
    if not server_enabled(settings):
        return False
    return not reloptions or is_on(parse_options(reloptions).get("autovacuum_enabled", "on"))


def server_enabled(settings: Mapping[str, str]) -> bool:
    """Tell whether autovacuum runs at all: it needs `track_counts` too."""
    return is_on(settings.get("autovacuum", DEFAULTS["autovacuum"])) and is_on(
        settings.get("track_counts", DEFAULTS["track_counts"])
    )


def parse_options(reloptions: Iterable[str] | None) -> dict[str, str]:
    """Return {name: text} of `pg_class.reloptions`; an option without `=` counts as on."""
    pairs = (option.partition("=") for option in reloptions or ())
    return {name.lower(): value if equals else "on" for name, equals, value in pairs}


@functools.lru_cache(maxsize=64)
def is_on(text: str) -> bool:
    """Tell whether PostgreSQL reads a text as true: on, true, yes, 1 or a beginning of them."""
    word = text.strip().lower()
    return word in ("on", "1") or (
        word != "" and ("true".startswith(word) or "yes".startswith(word))
    )


def unfrozen_share(relpages: int | None, relallfrozen: int | None) -> float:
    """Return the share (0 to 1) of a table's pages that are not all-frozen; 1 where unknown."""
    if not relpages or not relallfrozen or relpages < 0 or relallfrozen < 0:
        return 1.0
    return single(1 - single(min(relallfrozen, relpages) / relpages))


def single(value: float) -> float:
    """Round to the four-byte float in which the server computes.

    Beyond 16 million its neighbours are further than one apart, so a
    threshold in eight bytes would say "due" a few rows before the server does.
    """
    return float(FOUR_BYTES.unpack(FOUR_BYTES.pack(value))[0])


def xid_age(next_xid: int | None, relfrozenxid: int | None) -> int | None:
    """Return how many transactions ago a 32-bit id was assigned, None where either is unknown.

    `next_xid` is the server's 64-bit next id. 32-bit ids wrap, so the difference is
    taken modulo 2^32 and read as signed, as `age()` does. The two may have been read
    at different moments: an id that is newer than `next_xid` is 0 transactions old.
    """
    if next_xid is None or not relfrozenxid:
        return None
    if relfrozenxid < FIRST_NORMAL_XID:
        return OLDEST_AGE
    difference = (next_xid - relfrozenxid) % XIDS
    return difference if difference < XIDS // 2 else 0
