"""Ages of tables and TOAST tables with the dates of their forced vacuum: one row a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict

from monitors.advisor import table_name
from monitors.history import objects, xids
from monitors.history.objects import Term
from monitors.history.window import Window
from monitors.models import HISTORY, Database, Target
from monitors.rows import due, tables
from monitors.rows.wraparound import KINDS, DateWords, Kind, Reading, say_date
from monitors.rules import autovacuum, wraparound
from monitors.rules.wraparound import Forecast, Limits

COLUMNS = (
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
"""Keys of the export, in order."""

UNLISTED = HISTORY["tables"].sample.counters
"""Columns that this page does not show."""


class AgedRow(TypedDict):
    """One table or TOAST table with both of its ages; an age is None where it is not known.

    Until `add_dates` its dates are None, and '' why.
    """

    database_id: int  # our own id
    database: str
    datid: int
    relid: int
    main_relid: int  # of a TOAST table's table, else its own
    schemaname: str | None
    relname: str | None
    relkind: str
    table: str  # the main table, quoted as PostgreSQL would
    label: str  # the same with TOAST said
    size_bytes: int | None
    own: bool  # a storage option lowers one of its limits
    last_vacuum: datetime | None
    last_autovacuum: datetime | None
    read_at: datetime | None

    xid_age: int | None
    xid_pct: float | None  # of the age at which the server stops
    xid_forced_limit: int  # the age beyond which autovacuum comes whatever is set
    xid_forced_pct: float | None  # of that
    xid_forced_at: datetime | None
    xid_forced_earliest: datetime | None
    xid_forced_latest: datetime | None
    xid_forced_why: str

    mxid_age: int | None
    mxid_pct: float | None
    mxid_forced_limit: int
    mxid_forced_pct: float | None
    mxid_forced_at: datetime | None
    mxid_forced_earliest: datetime | None
    mxid_forced_latest: datetime | None
    mxid_forced_why: str


class SaidRow(AgedRow):
    """A table as a line of the page."""

    xid_forced: DateWords


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


def tables_of(target: Target, window: Window) -> list[AgedRow]:
    """Return every table, TOAST tables too."""
    rows = tables.objects_of(target, window).rows(without=UNLISTED)
    return complete(target, window, rows)


def complete(target: Target, window: Window, rows: Sequence[Mapping[str, Any]]) -> list[AgedRow]:
    """Return tables as read with both ages; `add_dates` adds the dates.

    A TOAST table whose main table is not known is left out.
    """
    databases = tables.databases_of(target, window)
    read_at = tables.read_at_of(target, window)
    mains = mains_of(target, window, rows)
    newest = newest_ids(target, window)
    server = {kind: wraparound.limits_of(target.settings, kind) for kind in KINDS}
    found = []
    for row in rows:
        database = databases.get(row["database_id"])
        main = mains.get(tables.key_of(row)) if row["relkind"] == "t" else row
        if database is None or main is None or not main["relname"] or main["relkind"] == "p":
            continue
        # A TOAST table without options follows its main table's, as the server does.
        options = row["reloptions"] or main["reloptions"]
        limits = {
            kind: wraparound.limits_of(target.settings, kind, options) if options else server[kind]
            for kind in KINDS
        }
        aged = aged_row(row, main, database, newest, limits)
        aged["own"] = any(limits[kind].forced < server[kind].forced for kind in KINDS)
        aged["read_at"] = read_at.get(row["database_id"])
        found.append(aged)
    return found


def mains_of(
    target: Target, window: Window, rows: Sequence[Mapping[str, Any]]
) -> dict[tuple[int, int], Mapping[str, Any]]:
    """Return the main tables of TOAST tables by these; those that are not among the rows are read."""
    mains = {(row["database_id"], row["toastrelid"]): row for row in rows if row["toastrelid"]}
    toast = {tables.key_of(row) for row in rows if row["relkind"] == "t"}
    if alone := toast - mains.keys():
        others = tables.objects_of(target, window).rows(
            objects.among_keys(alone, "toastrelid"), without=UNLISTED
        )
        mains |= {(row["database_id"], row["toastrelid"]): row for row in others}
    return mains


def aged_row(
    row: Mapping[str, Any],
    main: Mapping[str, Any],
    database: Database,
    newest: Mapping[Kind, int | None],
    limits: Mapping[Kind, Limits],
) -> AgedRow:
    """Return one table as read with its ages, and without dates."""
    name = table_name(main)
    xid_age = autovacuum.xid_age(newest["xid"], row["relfrozenxid"])
    mxid_age = wraparound.mxid_age(newest["mxid"], row["relminmxid"])
    return {
        "database_id": row["database_id"],
        "database": database.datname,
        "datid": database.datid,
        "relid": row["relid"],
        "main_relid": main["relid"],
        "schemaname": row["schemaname"],
        "relname": row["relname"],
        "relkind": row["relkind"],
        "table": name,
        "label": name if main is row else f"TOAST of {name}",
        "size_bytes": row["size_bytes"],
        "own": False,
        "last_vacuum": row["last_vacuum"],
        "last_autovacuum": row["last_autovacuum"],
        "read_at": None,
        "xid_age": xid_age,
        "xid_pct": wraparound.pct(xid_age),
        "xid_forced_limit": limits["xid"].forced,
        "xid_forced_pct": forced_pct(xid_age, limits["xid"]),
        "xid_forced_at": None,
        "xid_forced_earliest": None,
        "xid_forced_latest": None,
        "xid_forced_why": "",
        "mxid_age": mxid_age,
        "mxid_pct": wraparound.pct(mxid_age),
        "mxid_forced_limit": limits["mxid"].forced,
        "mxid_forced_pct": forced_pct(mxid_age, limits["mxid"]),
        "mxid_forced_at": None,
        "mxid_forced_earliest": None,
        "mxid_forced_latest": None,
        "mxid_forced_why": "",
    }


def forced_pct(age: int | None, limits: Limits) -> float | None:
    """Return an age in percent of that beyond which a vacuum is forced."""
    return None if age is None or not limits.forced else 100 * age / limits.forced


def add_dates(rows: Iterable[AgedRow], window: Window, readings: Mapping[Kind, Reading]) -> None:
    """Add to the rows of tables the date of each one's forced vacuum, with its interval."""
    now = window.end
    for row in rows:
        xid = forecast(row["xid_age"], row["xid_forced_limit"], readings["xid"], now)
        mxid = forecast(row["mxid_age"], row["mxid_forced_limit"], readings["mxid"], now)
        row["xid_forced_at"], row["xid_forced_why"] = xid.at, xid.why
        row["xid_forced_earliest"], row["xid_forced_latest"] = xid.earliest, xid.latest
        row["mxid_forced_at"], row["mxid_forced_why"] = mxid.at, mxid.why
        row["mxid_forced_earliest"], row["mxid_forced_latest"] = mxid.earliest, mxid.latest


def forecast(age: int | None, limit: int, reading: Reading, now: datetime) -> Forecast:
    """Return when an age passes a limit."""
    return wraparound.forecast(age, limit, reading.burn, reading.tested, now)


def with_words(row: AgedRow, now: datetime) -> SaidRow:
    """Return a row that has its dates with that of its transaction ids as the page says it."""
    date = Forecast(
        row["xid_forced_at"],
        row["xid_forced_earliest"],
        row["xid_forced_latest"],
        row["xid_forced_why"],
    )
    return {**row, "xid_forced": say_date(date, now)}


def newest_ids(target: Target, window: Window) -> dict[Kind, int | None]:
    """Return the server's next ids at the end of a window, None before they were read."""
    rows = tables.rows_at("databases", target, window)
    newest = max(
        (row for row in rows if row["next_xid"]), key=lambda row: row["next_xid"], default=None
    )
    return {
        kind: newest[xids.FIELDS[kind]] if newest is not None else None
        for kind in KINDS
    }  # fmt: skip
