"""Ages of databases and tables with the dates at which they pass their limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from monitors import words
from monitors.advisor import table_name
from monitors.history import objects, xids
from monitors.history.objects import Term
from monitors.history.window import Window
from monitors.models import HISTORY, Target
from monitors.rows import due, tables
from monitors.rules import autovacuum, wraparound
from monitors.rules.wraparound import Burn, Errors, Forecast, Freezing, Limits

KINDS = ("xid", "mxid")
EVENTS = ("forced", "failsafe", "stop")
HISTORY_DAYS = 30
"""Of which forecasts are replayed."""

DATABASE_STATES = ("datistemplate", "datallowconn", "datconnlimit")
DATABASE_COLUMNS = (
    "database",
    *DATABASE_STATES,
    *(
        column
        for kind in KINDS
        for column in (
            f"{kind}_age",
            f"{kind}_pct",
            *(
                f"{kind}_{event}_{part}"
                for event in EVENTS
                for part in ("limit", "at", "earliest", "latest", "why")
            ),
        )
    ),
    "xid_burn_per_hour",
    "xid_burn_busiest_per_hour",
    "mxid_burn_per_hour",
    "mxid_burn_busiest_per_hour",
    "read_at",
)
TABLE_COLUMNS = (
    "database",
    "schemaname",
    "relname",
    "relid",
    "relkind",
    "size_bytes",
    *(
        column
        for kind in KINDS
        for column in (
            f"{kind}_age",
            f"{kind}_pct",
            f"{kind}_forced_limit",
            f"{kind}_forced_pct",
            f"{kind}_forced_at",
            f"{kind}_forced_earliest",
            f"{kind}_forced_latest",
            f"{kind}_forced_why",
        )
    ),
    "last_vacuum",
    "last_autovacuum",
    "read_at",
)
"""Keys of the exports, in order."""

UNLISTED = HISTORY["tables"].sample.counters
"""Columns that this page does not show."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """How fast a server used up one kind of id at a moment, and how well that forecasts."""

    burn: Burn
    tested: list[Errors]


def readings_of(target: Target, window: Window) -> dict[str, Reading]:
    """Return {xid, mxid: reading} at the end of a window, from the history until then."""
    since = window.end - timedelta(days=HISTORY_DAYS)
    found = {}
    for kind, column in xids.FIELDS.items():
        points = xids.points(target.pk, column, since, window.end)
        found[kind] = Reading(wraparound.burn_of(points), wraparound.backtests(points))
    return found


def databases_of(target: Target, window: Window, readings: Mapping[str, Reading]) -> list[Row]:
    """Return the databases, the greatest share of ids first; keys beside the columns: datid, invalid, drop.

    An invalid one has no age that counts: the server leaves it out, too.
    """
    read_at = tables.read_at_of(target, window, "databases").get(0)
    rows = [
        {
            **{f"{kind}_{word}": value for kind in KINDS for word, value in burn_words(readings[kind])},
            **{
                name: value
                for kind in KINDS
                for name, value in of_kind(
                    kind, age_of(row, kind), wraparound.limits_of(target.settings, kind),
                    readings[kind], window.end,
                ).items()
            },
            "database": row["datname"],
            "datid": row["datid"],
            **{name: row[name] for name in DATABASE_STATES},
            "invalid": wraparound.is_invalid(row),
            "drop": f"DROP DATABASE {words.quoted(row['datname'] or '')};",
            "read_at": read_at,
        }
        for row in tables.rows_at("databases", target, window)
    ]  # fmt: skip
    names = [f"{kind}_{event}" for kind in KINDS for event in EVENTS]
    return [worded(row, names, window.end) for row in sorted(rows, key=lambda row: -share_of(row))]


def age_of(row: Row, kind: str) -> int | None:
    """Return the age of a database, None of an invalid one."""
    age: int | None = row[f"{kind}_age"]
    return None if wraparound.is_invalid(row) else age


def share_of(row: Row) -> float:
    """Return the greater share of the two kinds of id, in percent."""
    return max(row["xid_pct"] or 0.0, row["mxid_pct"] or 0.0)


def burn_words(reading: Reading) -> list[tuple[str, float | None]]:
    """Return the burn an hour, mean and busiest, by the ends of their keys."""
    burn = reading.burn
    return [
        ("burn_per_hour", None if burn.mean is None else burn.mean * wraparound.HOUR),
        (
            "burn_busiest_per_hour",
            None if burn.busiest is None else burn.busiest * wraparound.HOUR,
        ),
    ]


def of_kind(kind: str, age: int | None, limits: Limits, reading: Reading, now: datetime) -> Row:
    """Return an age with its share and its dates, the keys beginning with the kind."""
    row: Row = {f"{kind}_age": age, f"{kind}_pct": wraparound.pct(age)}
    for event in EVENTS:
        limit = getattr(limits, event)
        found = wraparound.forecast(age, limit, reading.burn, reading.tested, now)
        row |= dates(f"{kind}_{event}", limit, found)
    forced = limits.forced
    row[f"{kind}_forced_pct"] = None if age is None else 100 * age / forced if forced else None
    return row


def dates(name: str, limit: int, found: Forecast) -> Row:
    """Return a forecast as columns."""
    return {
        f"{name}_limit": limit,
        f"{name}_at": found.at,
        f"{name}_earliest": found.earliest,
        f"{name}_latest": found.latest,
        f"{name}_why": found.why,
    }


def worded(row: Row, names: Iterable[str], now: datetime) -> Row:
    """Return a row with its dates as the page says them, each under the name of its event."""
    return {**row, **{name: words_of(row, name, now) for name in names}}


def words_of(row: Row, name: str, now: datetime) -> Row:
    """Return at, words, span, why and passed of one date of a row."""
    at, earliest, latest = (row[f"{name}_{part}"] for part in ("at", "earliest", "latest"))
    span = ""
    if earliest is not None:
        last = words.day(latest, now) if latest else "open"
        span = f"{words.day(earliest, now)} to {last}"
    return {
        "at": at,
        "words": words.day(at, now) if at else "",
        "span": span,
        "why": row[f"{name}_why"],
        "passed": row[f"{name}_why"] == wraparound.PASSED,
    }


def add_dates(rows: Iterable[Row], window: Window, readings: Mapping[str, Reading]) -> None:
    """Add to the rows of tables the date of each one's forced vacuum, with its interval."""
    for row in rows:
        for kind in KINDS:
            reading, limit = readings[kind], row[f"{kind}_forced_limit"]
            forced = wraparound.forecast(
                row[f"{kind}_age"], limit, reading.burn, reading.tested, window.end
            )
            row.update(dates(f"{kind}_forced", limit, forced))


def orders_of(target: Target, window: Window) -> dict[str, Term]:
    """Return what our database can order tables by: what no storage option and no other table decides."""
    newest, known = newest_ids(target, window), tables.orders_of(target, window)
    ages = {
        "xid": objects.age("relfrozenxid", newest["xid"], autovacuum.FIRST_NORMAL_XID),
        "mxid": objects.age("relminmxid", newest["mxid"]),
    }
    names = ("database", "relid", "size_bytes", "last_vacuum", "last_autovacuum", "read_at")
    return {
        **{name: known[name] for name in names},
        **{f"{kind}_{part}": ages[kind] for kind in KINDS for part in ("age", "pct")},
    }


def is_shown(target: Target, window: Window) -> Term:
    """Return the condition of what a list shows: tables and TOAST tables of databases that we know."""
    return objects.all_of(
        objects.among("database_id", sorted(tables.databases_of(target, window))),
        objects.any_of(
            objects.all_of(objects.present("relname"), objects.among("relkind", sorted(due.KINDS))),
            objects.among("relkind", ["t"]),
        ),
    )


def tables_of(target: Target, window: Window) -> list[Row]:
    """Return every table, TOAST tables too; see `completed`."""
    rows = tables.objects_of(target, window).rows(without=UNLISTED)
    return completed(target, window, rows)


def completed(target: Target, window: Window, rows: Sequence[Row]) -> list[Row]:
    """Return tables with both ages as the page and exports show them; `add_dates` adds the dates.

    Keys beside `TABLE_COLUMNS`: database_id, datid, main_relid, table (the main table, quoted
    as PostgreSQL would), label, own (an option of its own lowers a limit). A TOAST table whose
    main table is not known is left out.
    """
    databases, read_at = (
        tables.databases_of(target, window),
        tables.read_at_of(target, window),
    )
    mains = {(row["database_id"], row["toastrelid"]): row for row in rows if row["toastrelid"]}
    toast = {(row["database_id"], row["relid"]) for row in rows if row["relkind"] == "t"}
    if alone := toast - mains.keys():
        others = tables.objects_of(target, window).rows(
            objects.among_keys(alone, "toastrelid"), without=UNLISTED
        )
        mains |= {(row["database_id"], row["toastrelid"]): row for row in others}
    newest = newest_ids(target, window)
    server = {kind: wraparound.limits_of(target.settings, kind) for kind in KINDS}
    found = []
    for row in rows:
        database = databases.get(row["database_id"])
        main = mains.get((row["database_id"], row["relid"])) if row["relkind"] == "t" else row
        if database is None or main is None or not main["relname"] or main["relkind"] == "p":
            continue
        # A TOAST table without options follows its main table's, as the server does.
        options = row["reloptions"] or main["reloptions"]
        name = table_name(main)
        known: Row = {
            "database_id": row["database_id"],
            "database": database.datname,
            "datid": database.datid,
            "relid": row["relid"],
            "main_relid": main["relid"],
            "schemaname": row["schemaname"],
            "relname": row["relname"],
            "relkind": row["relkind"],
            "size_bytes": row["size_bytes"],
            "table": name,
            "label": name if main is row else f"TOAST of {name}",
            "own": False,
            "last_vacuum": row["last_vacuum"],
            "last_autovacuum": row["last_autovacuum"],
            "read_at": read_at.get(row["database_id"]),
        }
        ages = {
            "xid": autovacuum.xid_age(newest["xid"], row["relfrozenxid"]),
            "mxid": wraparound.mxid_age(newest["mxid"], row["relminmxid"]),
        }
        for kind, age in ages.items():
            limits = server[kind]
            if options:
                limits = wraparound.limits_of(target.settings, kind, options)
            known[f"{kind}_forced_limit"] = limits.forced
            known[f"{kind}_age"] = age
            known[f"{kind}_pct"] = wraparound.pct(age)
            known[f"{kind}_forced_pct"] = (
                None if age is None or not limits.forced else 100 * age / limits.forced
            )
            known["own"] |= limits.forced < server[kind].forced
        found.append(known)
    return found


def newest_ids(target: Target, window: Window) -> dict[str, int | None]:
    """Return the server's next ids at the end of a window, None before they were read."""
    rows = tables.rows_at("databases", target, window)
    newest = max(
        (row for row in rows if row["next_xid"]), key=lambda row: row["next_xid"], default=None
    )
    return {
        kind: newest[column] if newest is not None else None
        for kind, column in xids.FIELDS.items()
    }  # fmt: skip


def freezing_of(
    target: Target, window: Window, row: Row, kind: str, readings: Mapping[str, Reading]
) -> Freezing:
    """Return whether freezing keeps up in a database."""
    since = window.end - timedelta(days=HISTORY_DAYS)
    ages = xids.points(target.pk, f"{kind}_age", since, window.end, datid=row["datid"])
    limits = wraparound.limits_of(target.settings, kind)
    return wraparound.freezing_of(ages, readings[kind].burn, limits)
