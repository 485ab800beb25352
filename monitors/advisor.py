"""What an advisor is: a pure judge of samples, and the findings that it says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from typing import Any

from monitors import words
from monitors.kinds import POSTGRES

Row = Mapping[str, Any]
"""One row of a probe, columns by name, with its `database_id`."""
Evidence = tuple[str, "float | datetime | str", str]
"""Label, value, unit: rows, bytes, seconds, pct, count, at (a datetime) or ''."""

MINUTE, HOUR, DAY = 60, 3600, 86400  # seconds
OUR_APPLICATION = "howdah"
DISABLED = "disabled"
"""`pg_stat_activity.state` of a backend with track_activities off: its statement and times are NULL."""
RUNNING = ("active", "fastpath function call")
TRANSFERS = ("COPY FROM", "COPY TO", "BASE BACKUP")
"""Commands of `progress` that maintain nothing."""
IDLE_IN_TRANSACTION = ("idle in transaction", "idle in transaction (aborted)")


class Severity(IntEnum):
    """How bad a finding is; the greater the worse."""

    NOTICE = 1
    WARNING = 2
    CRITICAL = 3


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """Why a finding does not count for now: it was acknowledged, or put off until a moment."""

    state: str  # acknowledged or snoozed
    by: str
    at: datetime
    reason: str
    until: datetime | None = None  # of what is snoozed


@dataclass(frozen=True)
class Hurt:
    """When a finding hurts, in words that end no sentence: what happens then, or why no date is told.

    `at` is the moment at the present rate; of what hurts `already` since when, as far as it is
    known. None: no date, and `text` says why.
    """

    text: str
    at: datetime | None = None
    already: bool = False


@dataclass(frozen=True)
class Rate:
    """How fast something grows, and the seconds of history that this comes from."""

    per_second: float  # below 0 where it shrinks
    seconds: float


Rates = Mapping[tuple[str, int | None, int], Rate]
"""By column, database and relid, of the objects that were measured."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that an advisor says: what, how bad, by which numbers, and what to do.

    `title` and `why` are sentences. `action` is the name of the action that helps
    ('' where none does) and `arguments` are its arguments as strings.
    """

    advisor: str
    severity: Severity
    title: str
    why: str
    object_name: str
    hurt: Hurt
    database_id: int | None = None  # None: of the whole server
    relid: int | None = None
    pid: int | None = None
    evidence: tuple[Evidence, ...] = ()
    action: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    score: float = 0.0  # how many times past its threshold; orders equals in severity
    backend_start: datetime | None = None  # of the backend `pid`: pids are used again
    part: str = ""  # where an advisor says several things of one object: toast
    quiet: Quiet | None = None  # set by those who keep findings, never by an advisor
    record_id: int | None = None  # of the row that keeps it

    @property
    def level(self) -> str:
        """The severity as a word: notice, warning or critical."""
        return self.severity.name.lower()

    @property
    def hurts(self) -> str:
        """What happens when it hurts, or why that has no date."""
        return self.hurt.text

    @property
    def hurts_at(self) -> datetime | None:
        """When it hurts, or since when."""
        return self.hurt.at

    @property
    def hurts_already(self) -> bool:
        """Whether it hurts already."""
        return self.hurt.already

    @property
    def object_key(self) -> str:
        """What it is about, the same text at every judgement: a backend, a relation, a name."""
        if self.pid is not None:
            began = spelled(self.backend_start) if self.backend_start else ""
            return f"backend {self.pid} {began}".strip()
        if self.relid is not None:
            return f"relation {self.database_id} {self.relid} {self.part}".strip()
        database = f"database {self.database_id} " if self.database_id is not None else ""
        return f"{database}{self.object_name} {self.part}".strip()


class NotRead(KeyError):
    """An advisor asks for a probe that it names neither in `reads` nor in `beside`."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What advisors judge: the facts of one target and rows of its probes at one moment."""

    now: datetime  # by the target's clock, when its activity was read
    server_version: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    max_connections: int | None = None
    reserved_connections: int | None = None
    in_recovery: bool | None = None  # a standby: counters of tables are the primary's alone
    database_names: Mapping[int, str] = field(default_factory=dict)  # {database_id: datname}
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """{probe: its rows}, of the probes that the advisors name; those of `horizon` have `held`
    (horizon.Held), None where it is not known."""
    burn: Mapping[str, Any] = field(default_factory=dict)  # {xid, mxid: wraparound.Burn}
    roles: Mapping[str, str] = field(default_factory=dict)  # {collector, operator: rolname}
    next_xid: int | None = None  # 64 bit
    behind: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    """Of a pooler: {(database, user): pooler.Behind} of the pools for which clients wait, where the
    server behind is registered."""
    # What takes hours of history is read by workers alone (monitors/findings/recent.py).
    rates: Rates = field(default_factory=dict)
    # For the advisors that are `kept`.
    updated: Sequence[Row] = ()  # tables with what their counters grew by in the last day
    passes: Sequence[Row] = ()  # vacuums of the last day that read their indexes more than once
    partitioned: Sequence[Row] = ()  # partitioned tables with the sums of their partitions
    workers: Sequence[int] = ()  # autovacuum workers at each reading of the last 15 minutes
    xids_per_second: float | None = None  # over the last day
    # Of those, for the advisors that read `databases` first (monitors/history/connecting.py).
    grown: Sequence[Row] = ()  # databases with what they counted in the last ten minutes
    grown_hour: Sequence[Row] = ()  # the same of the last hour
    newcomers: Sequence[Row] = ()  # whose new sessions were seen in the last ten minutes

    def of(self, probe: str) -> Sequence[Row]:
        """Return the rows of a probe; raises NotRead where the advisor doesn't name it."""
        if probe not in self.rows:
            raise NotRead(probe)
        return self.rows[probe]

    def having(self, **rows: Sequence[Row]) -> Samples:
        """Return the samples with other rows of some probes."""
        return replace(self, rows={**self.rows, **rows})

    def for_advisor(self, advisor: Advisor) -> Samples:
        """Return what an advisor named, and no rows else."""
        named = (*advisor.reads, *advisor.beside)
        return replace(self, rows={probe: self.of(probe) for probe in named})

    def rate(self, column: str, row: Row) -> Rate | None:
        """Return how fast a column of a table's or index's row grows, None where that was not measured."""
        return self.rates.get((column, row["database_id"], row["relid"]))


Thresholds = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Advisor:
    """A judge with its thresholds; `advise` has no connection, no clock and no settings."""

    name: str
    kind: str = POSTGRES
    """The kind of target that it judges."""
    subject: str  # the page whose verdict it belongs to: activity, vacuum, bloat, settings, …
    defaults: Thresholds
    advise: Callable[[Samples, Thresholds], Iterator[Finding]]
    plural: str = ""  # said before the worst of several findings; holds {count}
    reads: tuple[str, ...] = ("tables",)
    """Probes that it judges: a new snapshot of the first has workers judge again, and a finding
    resolves only while all of them can be read."""
    beside: tuple[str, ...] = ()
    """Probes that it looks at too, as they were read last."""
    on_standby: bool = True
    """Whether it has something to say of a standby, where no vacuum runs and no row is written."""
    opens_after: float = 0.0  # seconds that a finding must last before it is one
    kept: bool = False
    """Whether it needs hours of history: then workers alone judge, and pages show what they kept."""


def times_of(value: float, threshold: float) -> float:
    """Return how many times a threshold a value is, to order findings by; one of 0 counts as 1."""
    return value / (threshold or 1)


def severity_of(value: float, thresholds: Thresholds, unit: str) -> Severity | None:
    """Return the severity whose `<severity>_<unit>` threshold a value has passed.

    A threshold that is missing is never passed; None where none is.
    """
    for severity in sorted(Severity, reverse=True):
        limit = thresholds.get(f"{severity.name.lower()}_{unit}")
        if limit is not None and value > limit:
            return severity
    return None


def severity_by(row: Row, state: str, seconds: float, thresholds: Thresholds) -> Severity | None:
    """Return the severity of how long a backend has been in a state (`rules.stuck.STATES`).

    Where a definition of the team names its application, user or database (`limits`), nothing
    is found within that limit, and what is past it is a warning at least.
    """
    found = severity_of(seconds, thresholds, "seconds")
    if "limits" not in row:
        return found
    limit = row["limits"][state]
    if limit is None or seconds <= limit:
        return None
    return max(found or Severity.WARNING, Severity.WARNING)


def seconds_since(moment: datetime | None, now: datetime) -> float:
    """Return the seconds from a moment to now, 0 where it is unknown or still to come."""
    return max((now - moment).total_seconds(), 0.0) if moment else 0.0


def table_name(row: Row) -> str:
    """Return `schema.table` of a tables row as regclass reads it."""
    return f"{words.quoted(row['schemaname'])}.{words.quoted(row['relname'])}"


def is_ours(application_name: str | None, usename: str | None, logins: Collection[str]) -> bool:
    """Tell whether a session is Howdah's: one of its own logins, under its name.

    The name alone says nothing, since whoever connects chooses it.
    """
    return usename in logins and (application_name or "").startswith(OUR_APPLICATION)


def marked(rows: Iterable[Row], logins: Collection[str]) -> list[dict[str, Any]]:
    """Return rows of sessions or of holders with `ours`: whether they are Howdah's."""
    return [
        {
            **row,
            "ours": is_ours(
                row.get("application_name"), row.get("usename", row.get("who")), logins
            ),
        }
        for row in rows
    ]


def is_client(row: Row) -> bool:
    """Tell whether a marked activity row is a client's backend, and not one of Howdah's."""
    return row.get("backend_type") == "client backend" and not row.get("ours")


def backend_name(row: Row) -> str:
    """Return `Backend 4321 (billing-api)`; without a name the user, or the kind of process."""
    who = row.get("application_name") or row.get("usename") or row.get("backend_type")
    return f"Backend {row['pid']} ({who})" if who else f"Backend {row['pid']}"


def remedy_of(row: Row) -> tuple[str, dict[str, str]]:
    """Return the action that ends what a backend does, with the identity that it must still have.

    A running statement is cancelled, an open transaction that runs none is terminated.
    ('', {}) for all else: what is no client's backend, what is idle outside a transaction,
    and what the collector may not see the times of.
    """
    if not is_client(row):
        return "", {}
    times: tuple[str, ...]
    if row.get("state") in IDLE_IN_TRANSACTION:
        action, times = "terminate_backend", ("backend_start", "xact_start", "state_change")
    elif row.get("state") in RUNNING:
        action, times = "cancel_backend", ("backend_start", "query_start")
    else:
        return "", {}
    if any(row.get(name) is None for name in times):
        return "", {}
    return action, {name: spelled(row[name]) for name in ("pid", *times)}


def spelled(value: datetime | int) -> str:
    """Return an argument as text; times in ISO 8601 with microseconds."""
    return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else str(value)
