"""What a probe is: a named read of one subject, and the history of its rows.

A sample model states one field per column of the probe's SQL and says which of
them are the key, which are counters and which are gauges. `monitors/history`
builds four tables from that declaration alone:

    samples   a row for each object that changed, partitioned by day
    latest    a row an object, as the server last said it
    hour, day rollups: sum of a counter's differences, last and max of a gauge
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from django.db import models

from monitors.kinds import PGBOUNCER, POSTGRES

Row = tuple[Any, ...]
"""The values of `Sample.columns()`, in that order."""
Reading = Mapping[str, Any]
"""The same by name, as it comes out of the history: one object of a probe."""

OLDEST_MAJOR = 14
NEWEST_MAJOR = 19
ALL_STATISTICS = (
    "pg_stat_activity",
    "pg_stat_get_activity",
    "pg_stat_progress",
    "pg_stat_statements",
)
"""Views and functions that show other roles' rows empty, without an error, to who lacks pg_read_all_stats."""


HIDDEN = "What other roles do is hidden from this login."


class Sample(models.Model):
    """One row kept from a snapshot of one object.

    A subclass is abstract, names its fields after the catalog's columns and
    sets the class variables; every field of it appears in exactly one of `key`,
    `counters`, `gauges`, `facts` and `labels`.
    """

    key: ClassVar[tuple[str, ...]] = ()
    """What makes a row the same object in the next snapshot."""
    counters: ClassVar[tuple[str, ...]] = ()
    """Fields that only grow until a reset; samples hold their differences."""
    gauges: ClassVar[tuple[str, ...]] = ()
    """Numbers whose value is kept; rollups hold the last and the greatest."""
    facts: ClassVar[tuple[str, ...]] = ()
    """Times and states: kept in samples and latest, not rolled up."""
    labels: ClassVar[tuple[str, ...]] = ()
    """Names and options: kept in latest alone, where objects that are gone
    keep theirs until their history ends."""
    redacted: ClassVar[tuple[str, ...]] = ()
    """Texts whose literals are replaced before anything is stored."""
    refined: ClassVar[tuple[str, ...]] = ()
    """Columns that the SQL itself does not return, so they are carried over from
    snapshot to snapshot. `Probe.refine_sql` reads them for some objects (then they
    are gauges and labels, None until they were read; the last one is the last to
    be), or `Probe.measuring` says how they are settled."""
    added: ClassVar[tuple[str, ...]] = ()
    """Counters that an earlier version did not read: what they stood at when it was replaced is
    not known, so the first reading after that tells of no growth."""
    counts_since: ClassVar[str] = ""
    """The fact that says since when an object's counters count; as long as it is the same
    moment they never started anew, whatever happened to the server."""
    reset_fact: ClassVar[str] = ""
    """The fact that changes when statistics were reset of which an object's counters may
    be some, or not."""

    unreplicated: ClassVar[tuple[str, ...]] = ()
    """Columns of which a standby has figures of its own, or none: there they are not known."""

    class Meta:
        abstract = True

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Every column that the probe's newest SQL returns, key first."""
        names = (*cls.key, *cls.counters, *cls.gauges, *cls.facts, *cls.labels)
        return tuple(name for name in names if name not in cls.refined)


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How a probe measures some objects a snapshot, those that want it most, within a budget.

    It reads the objects' pages, so it does so only where its extension is
    installed in the database, and never waits for a lock.
    """

    extension: str
    pick_sql: str
    """Given `%(keys)s` in the order of their urgency: relid, relkind and the pages that
    a measurement would read; without what is locked."""
    sql: Mapping[str, str]
    """By relkind: given `%(key)s`, one row of figures; `{schema}` is the extension's."""
    pages: int = 20_000
    """Read in one snapshot of one database at most."""
    objects: int = 200
    seconds: float = 3.0
    """No further object is begun after that long."""
    again_seconds: float = 60.0
    """An object is not measured again sooner."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What to read, how often, and which table keeps it.

    `sql` maps the lowest PostgreSQL major version that a text fits to that
    text; the highest key not above the server's major wins. A text returns a
    subset of the sample's columns, the others stay None. Where the probe reads
    an extension, the keys are the extension's versions as 109 for 1.9, and
    `{schema}` in a text is the schema that it was found in.
    """

    name: str
    sample: type[Sample]
    sql: Mapping[int, str] = field(default_factory=dict)
    show: str = ""
    """Of a pooler: what its console is asked to SHOW, as POOLS; then there is no `sql`."""
    shape: Callable[[Sequence[Reading]], Iterable[Reading]] = list
    """Makes rows of the sample of those that the console shows: by the names of their columns,
    of which each version has others."""
    every: timedelta
    per_database: bool = False
    """Read once in each database; else once a target, from any database."""
    fast: bool = False
    """Belongs to the fast lease (every few seconds, small budget)."""
    rollups: bool = True
    """Whether hours and days are kept beyond the samples."""
    reset_sql: str = ""
    """One row (stats_reset, a counter of the whole) that tells a reset of
    this probe's counters; empty where counters can't be reset alone."""
    reset_is_whole: bool = False
    """Whether stats_reset changes when everything was reset and never else, be it by a
    crash: then nothing else tells it. Where it is not, everything was reset only where
    the counter of the whole fell too."""
    evicts: bool = False
    """Whether the counter of the whole counts rounds in which objects were thrown out."""
    refine_sql: str = ""
    """Given `%(keys)s` (an array of the key's first column), returns the key and
    the `refined` columns, None where one can't be read now; run for objects of
    which a label changed, and for those whose last refined column was not read yet."""
    unread_sql: str = ""
    """The same where a text is in an encoding that the database can't hold; it reads none."""
    refine_changed: bool = False
    """Whether it is run for whatever changed."""
    refine_hourly: bool = False
    """Whether the first snapshot of each hour runs it for everything: it reads what
    changes without a trace in the other columns."""
    refine_at_once: int = 300
    """For how many objects a snapshot at most."""
    measuring: Measuring | None = None
    """How its refined columns are settled from measurements (`history/settle.py`)."""
    carry: Callable[[Row | None, Row], Row] | None = None
    """Given an object's row of the snapshot before (None: it was not there) and the one that was
    read, returns the one that is kept: of what a server goes on saying though it is over."""
    nested_loops: bool = True
    """False: the planner may not use them, since they would take minutes."""
    extension: str = ""
    """The extension that it reads, looked for in every database."""
    statement_timeout_ms: int = 5000
    needs: str = ""
    """What makes it work where a right or extension is missing (one
    statement); empty: `GRANT pg_monitor TO <collector>`."""

    @property
    def kind(self) -> str:
        """The kind of target that it reads."""
        return PGBOUNCER if self.show else POSTGRES

    @property
    def needs_all_statistics(self) -> bool:
        """Whether it reads views that hide other roles' rows from who lacks pg_read_all_stats."""
        return any(view in text for text in self.sql.values() for view in ALL_STATISTICS)

    def sql_for(self, server_version: int, extension_version: str = "") -> str | None:
        """Return the text for a server_version as libpq says it (170002), None if none fits.

        `extension_version` is that of the probe's extension, as '1.11'; a
        server that was upgraded may still have an older one.
        """
        known = server_version // 10000
        if self.extension:
            major, _, minor = extension_version.partition(".")
            known = int(major or 0) * 100 + int(minor or 0)
        fitting = [version for version in self.sql if version <= known]
        return self.sql[max(fitting)] if fitting else None

    def tell_age(self, server_version: int, extension_version: str) -> str:
        """Say why there is no text for a server (180004) or for its extension's version."""
        if not self.extension:
            return f"Not on PostgreSQL {server_version // 10000}."
        return (
            f"{self.extension} {extension_version} is too old here: "
            f"ALTER EXTENSION {self.extension} UPDATE;"
        )
