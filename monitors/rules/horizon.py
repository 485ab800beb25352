"""Who keeps dead rows from being removed: scope, age in words, and the remedy of each holder.

Pure: rows of the `horizon` probe and when their horizon was set (`history/xids.py`) come in,
words go out. The Vacuum page, the advisor and the outcome of a vacuum speak with it.

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-SPACE-RECOVERY
and `ComputeXidHorizons()` in src/backend/storage/ipc/procarray.c of 14 to 18.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from monitors import words
from monitors.advisor import HOUR, IDLE_IN_TRANSACTION, Row, remedy_of

SESSION, PREPARED, FEEDBACK = "session", "prepared xact", "standby feedback"
SLOT, CATALOG_SLOT = "slot xmin", "slot catalog_xmin"
KINDS = (SESSION, SLOT, CATALOG_SLOT, PREPARED, FEEDBACK)
OF_ONE_DATABASE = (SESSION, PREPARED)
PRECISE = timedelta(minutes=3)  # a horizon that is dated so closely has one age
TIMEOUT_MAJOR = 18  # idle_replication_slot_timeout


@dataclass(frozen=True)
class Held:
    """When a horizon was set: after `earliest` and not later than `latest`.

    `earliest` is None where the history begins later than the horizon.
    """

    earliest: datetime | None
    latest: datetime

    def seconds(self, now: datetime) -> float:
        """Return for how long it has been held at least."""
        return max((now - self.latest).total_seconds(), 0.0)

    def words(self, now: datetime) -> str:
        """Return `31 h`, `at least 6 h`, `31 h to 33 h`, below two hours `1 h 12 min`."""
        least = hours(self.seconds(now))
        if self.earliest is None:
            return f"at least {least}"
        most = hours(max((now - self.earliest).total_seconds(), 0.0))
        if self.latest - self.earliest <= PRECISE or most == least:
            return least
        return f"{least} to {most}"


def hours(seconds: float) -> str:
    """Return a duration in hours, below two of them with its minutes."""
    return words.duration(seconds) if seconds < 2 * HOUR else f"{seconds / HOUR:,.0f} h"


@dataclass(frozen=True)
class Remedy:
    """What ends a hold: an action's name and arguments, else (or too) a statement and where it runs."""

    text: str
    action: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    code: str = ""


def blocks(row: Row, datname: str) -> bool:
    """Tell whether a holder keeps dead rows of a database's own tables."""
    if row["kind"] == CATALOG_SLOT:
        return False
    return row["kind"] not in OF_ONE_DATABASE or row["datname"] == datname


def scope_of(row: Row) -> str:
    """Return what a holder keeps vacuum from cleaning, in words."""
    if row["kind"] == CATALOG_SLOT:
        return "the catalogs of every database"
    if row["kind"] not in OF_ONE_DATABASE:
        return "every database"
    if row["datname"] is None:
        return "the shared catalogs"
    return f"database {row['datname']} and the shared catalogs"


def kept_by(row: Row) -> str:
    """Return what a holder does, as a sentence."""
    return f"Keeps dead rows of {scope_of(row)}."


def scope_from_standby(row: Row, *, feedback: bool | None) -> str:
    """Return what a holder on a standby keeps the primary from cleaning.

    By hot_standby_feedback the primary hears of the oldest snapshot, for all databases alike;
    None: the setting is not known.
    """
    if feedback is None:
        return "not known"
    if not feedback:
        return "nothing"
    return scope_of(row) if row["kind"] == CATALOG_SLOT else "every database"


def kept_from_standby(row: Row, *, feedback: bool | None) -> str:
    """Return what a holder on a standby does to the primary, as a sentence."""
    if feedback is None:
        return (
            "Whether the primary keeps dead rows for it is not known: settings were not read yet."
        )
    if not feedback:
        return (
            "The primary keeps no dead rows for it, since hot_standby_feedback is off: when they are "
            "removed there, it may be cancelled here."
        )
    scope = scope_from_standby(row, feedback=feedback)
    return f"By hot_standby_feedback the primary keeps dead rows of {scope} for it."


def is_ours(row: Row) -> bool:
    """Tell whether a marked holder is one of Howdah's own sessions."""
    return row["kind"] == SESSION and bool(row.get("ours"))


def name_of(row: Row, now: datetime | None = None) -> str:
    """Return a holder in words: `backend 4321 (billing-api, idle in transaction since 02:11 UTC)`.

    The time is that of a transaction's start, with its day unless that is the day of now.
    """
    who = row["application_name"] or row["who"] or ""
    if row["kind"] == SESSION:
        state = row["state"] or "at work"
        since = f" since {words.clock(row['since'], now)}" if row["since"] else ""
        named = "one of Howdah's own" if is_ours(row) else who
        said = ", ".join(part for part in (named, f"{state}{since}") if part)
        return f"backend {row['holder']} ({said})"
    if row["kind"] == PREPARED:
        since = f" of {words.clock(row['since'], now)}" if row["since"] else ""
        return f"prepared transaction {literal(row['holder'])}{since}"
    if row["kind"] == FEEDBACK:
        return f"the feedback of standby {who or row['holder']}"
    used = "" if row["active"] else " that nobody reads"
    return f"replication slot {row['holder']}{used}"


def remedy(row: Row, backend: Row | None, server_version: int | None) -> Remedy:
    """Return what ends a hold; `backend` is the activity row of a session, if there is one."""
    if row["kind"] == SESSION:
        return session_remedy(row, backend)
    if row["kind"] == PREPARED:
        return Remedy(
            f"Ask whose it is; then run one of the two in database {row['datname']}, as its owner "
            f"{row['who']} or a superuser: ROLLBACK loses its work, COMMIT keeps it.",
            code=f"ROLLBACK PREPARED {literal(row['holder'])};\n"
            f"-- or: COMMIT PREPARED {literal(row['holder'])};",
        )
    if row["kind"] == FEEDBACK:
        return Remedy(
            "A long query on the standby needs these rows. End it there, or on the standby set "
            "hot_standby_feedback = off (then such queries may be cancelled by "
            "max_standby_streaming_delay instead).",
            code="-- on the standby, what holds it:\n"
            "SELECT pid, usename, application_name, state, xact_start, query\n"
            "  FROM pg_stat_activity WHERE backend_xmin IS NOT NULL\n"
            " ORDER BY age(backend_xmin) DESC;",
        )
    return slot_remedy(row, server_version)


def session_remedy(row: Row, backend: Row | None) -> Remedy:
    """Return the button of a session, or why it has none."""
    if is_ours(row):
        return Remedy("Howdah's own reads and actions are bounded in time: it ends by itself.")
    action, arguments = remedy_of(backend) if backend is not None else ("", {})
    if action == "cancel_backend":
        text = "Cancelling its statement lets go of the snapshot, unless the transaction goes on."
        return Remedy(text, action, arguments)
    if action:
        text = "Terminating it rolls its transaction back; what it wrote since is lost."
        return Remedy(text, action, arguments)
    if row["state"] in IDLE_IN_TRANSACTION:
        return Remedy("It is idle with its transaction open: terminate it.")
    return Remedy("It lets go when its statement or transaction ends.")


def slot_remedy(row: Row, server_version: int | None) -> Remedy:
    """Return how to get rid of a slot's hold."""
    known = server_version is None or server_version // 10000 >= TIMEOUT_MAJOR
    never = "idle_replication_slot_timeout or max_slot_wal_keep_size" if known else (
        "max_slot_wal_keep_size"
    )  # fmt: skip
    if row["active"]:
        what = "the standby's feedback" if row["kind"] == SLOT else "its consumer"
        return Remedy(
            f"Somebody reads this slot: {what} lags or holds it. See to the reader first; "
            "a slot in use can't be dropped."
        )
    return Remedy(
        "Nobody reads this slot. If its reader is gone for good, drop it: the reader can't come "
        f"back to it then. {never} lets the server give up such slots by itself.",
        code="-- in any database, as a superuser or with REPLICATION:\n"
        f"SELECT pg_drop_replication_slot({literal(row['holder'])});",
    )


def literal(text: str) -> str:
    """Return a text as PostgreSQL writes a literal."""
    escaped = text.replace("'", "''")
    if "\\" in text:
        return "E'{}'".format(escaped.replace("\\", "\\\\"))
    return f"'{escaped}'"


def key_of(row: Row) -> tuple[Any, Any]:
    """Return what tells a session from one that had its pid before: pid and backend_start."""
    return int(row["holder"]), row["backend_start"]


def oldest_first(rows: Iterable[Row]) -> list[Row]:
    """Return those that hold anything back, the oldest first."""
    holding = [row for row in rows if row["xmin_age"]]
    return sorted(holding, key=lambda row: -row["xmin_age"])


def table_words(names: Iterable[str]) -> str:
    """Return `public.orders`, or `public.orders and 3 more tables`."""
    first, *others = names
    if not others:
        return first
    return f"{first} and {len(others):,} more table{'' if len(others) == 1 else 's'}"
