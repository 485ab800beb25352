"""Tables as actions see them: found by name, addressed by oid, measured before and after.

Source: https://www.postgresql.org/docs/current/catalog-pg-class.html
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.abc import AdaptContext
from psycopg.rows import class_row, dict_row

from monitors import words
from monitors.pg import backends

FIRST_USER_OID = 16384
KINDS = {
    "r": "table",
    "m": "materialized view",
    "p": "partitioned table",
    "v": "view",
    "i": "index",
    "I": "partitioned index",
    "S": "sequence",
    "t": "TOAST table",
    "f": "foreign table",
    "c": "composite type",
}
MAINTAINED = frozenset("rmp")
INDEXES = frozenset("iI")
ARTICLES = {"table or materialized view": "a", "index": "an"}

# Lock modes that conflict with the one an action takes.
CONFLICTS = {
    "AccessShareLock": ("AccessExclusiveLock",),
    "ShareUpdateExclusiveLock": (
        "ShareUpdateExclusiveLock",
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
    "ShareLock": (
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
    "AccessExclusiveLock": (
        "AccessShareLock",
        "RowShareLock",
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
}

NAMED_SQL = """
SELECT pg_catalog.to_regclass(%(name)s)::oid::bigint AS relid
"""

RELATION_SQL = """
SELECT c.oid::bigint AS relid,
       n.nspname::text AS schemaname,
       c.relname::text AS relname,
       c.relkind::text AS relkind,
       c.relpersistence::text AS relpersistence,
       c.relisshared AS relisshared,
       r.rolname::text AS owner,
       r.rolsuper AS superuser,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usable,
       current_user::text AS login,
       pg_catalog.current_database()::text AS database,
       (SELECT d.oid::bigint FROM pg_catalog.pg_database AS d
         WHERE d.datname = pg_catalog.current_database()) AS datid,
       CASE pg_catalog.current_setting('server_encoding') WHEN 'SQL_ASCII'
       THEN pg_catalog.encode(pg_catalog.textsend(n.nspname::text), 'hex')
            || '.' || pg_catalog.encode(pg_catalog.textsend(c.relname::text), 'hex')
       ELSE '' END AS name_bytes
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_roles AS r ON r.oid = c.relowner
 WHERE c.oid = %(relid)s::oid
"""

# Of a partitioned table the sum over its partitions: it has no rows of its own.
# pg_partition_tree() would take a lock on each, pg_inherits takes none.
ROWS_SQL = """
WITH RECURSIVE tree AS (
  SELECT c.oid AS relid,
         c.relkind,
         c.relfilenode,
         c.relallvisible
    FROM pg_catalog.pg_class AS c
   WHERE c.oid = %(relid)s::oid
  UNION ALL
  SELECT c.oid,
         c.relkind,
         c.relfilenode,
         c.relallvisible
    FROM tree
    JOIN pg_catalog.pg_inherits AS i ON i.inhparent = tree.relid
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
   WHERE tree.relkind = 'p')
SELECT relid::bigint AS relid,
       relkind = 'p' AS partitioned,
       relfilenode::bigint AS relfilenode,
       relallvisible,
       pg_catalog.pg_stat_get_dead_tuples(relid) AS n_dead_tup,
       pg_catalog.pg_stat_get_live_tuples(relid) AS n_live_tup,
       pg_catalog.pg_stat_get_mod_since_analyze(relid) AS n_mod_since_analyze,
       pg_catalog.pg_stat_get_vacuum_count(relid) AS vacuum_count,
       pg_catalog.pg_stat_get_analyze_count(relid) AS analyze_count,
       ARRAY[pg_catalog.pg_stat_get_last_vacuum_time(relid),
             pg_catalog.pg_stat_get_last_autovacuum_time(relid),
             pg_catalog.pg_stat_get_last_analyze_time(relid),
             pg_catalog.pg_stat_get_last_autoanalyze_time(relid)] AS counted_at
  FROM tree
"""
SUMMED = ("n_dead_tup", "n_live_tup", "n_mod_since_analyze", "vacuum_count", "analyze_count")

SIZE_SQL = """
WITH RECURSIVE tree AS (
  SELECT c.oid AS relid,
         c.relkind
    FROM pg_catalog.pg_class AS c
   WHERE c.oid = %(relid)s::oid
  UNION ALL
  SELECT c.oid,
         c.relkind
    FROM tree
    JOIN pg_catalog.pg_inherits AS i ON i.inhparent = tree.relid
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
   WHERE tree.relkind = 'p')
SELECT sum(pg_catalog.pg_total_relation_size(relid))::bigint
  FROM tree
"""

HOLDERS_SQL = """
SELECT DISTINCT l.pid
  FROM pg_catalog.pg_locks AS l
 WHERE l.locktype = 'relation'
   AND l.relation = %(relid)s::oid
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d
                      WHERE d.datname = pg_catalog.current_database())
   AND l.mode = ANY (%(modes)s)
   AND l.pid IS NOT NULL
   AND l.pid <> pg_catalog.pg_backend_pid()
"""

AUTOVACUUM_SQL = """
SELECT v.pid,
       v.phase,
       v.heap_blks_scanned AS done,
       v.heap_blks_total AS total,
       a.query LIKE '%%(to prevent wraparound)' AS wraparound
  FROM pg_catalog.pg_stat_progress_vacuum AS v
  JOIN pg_catalog.pg_stat_activity AS a ON a.pid = v.pid
 WHERE v.relid = %(relid)s::oid
   AND v.datname = pg_catalog.current_database()
   AND a.backend_type = 'autovacuum worker'
"""


@dataclass(frozen=True)
class Relation:
    """One relation of the connection's database."""

    relid: int
    schemaname: str
    relname: str
    relkind: str
    relpersistence: str
    relisshared: bool
    owner: str
    superuser: bool  # whether its owner is one
    usable: bool  # whether the login may use its schema, and so name it
    login: str
    database: str
    datid: int
    name_bytes: str
    """Schema and name in hexadecimal where the database has no encoding, else ''."""

    @property
    def name(self) -> str:
        """Schema and name as PostgreSQL quotes them."""
        return words.quoted(self.schemaname, self.relname)

    def identity(self) -> dict[str, Any]:
        """Return what an action keeps of it; JSON."""
        kept = asdict(self)
        return {name: kept[name] for name in IDENTITY}


IDENTITY = ("relid", "schemaname", "relname", "relkind", "database", "datid", "name_bytes")


def by_name(connection: psycopg.Connection, name: str) -> Relation | None:
    """Return a relation by the name that `regclass` reads, with its schema; None for none.

    The session's search_path is empty, so a name without a schema finds only
    catalogs. Raises ValueError for a text that is no name, InsufficientPrivilege where the
    login may not use its schema.
    """
    try:
        row = connection.execute(NAMED_SQL, {"name": name}).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.errors.Error as error:
        raise ValueError(error.diag.message_primary or "no name") from None
    return by_oid(connection, row[0]) if row and row[0] else None


def by_oid(connection: psycopg.Connection, relid: int) -> Relation | None:
    """Return a relation of this database by oid, None where there is none (any more)."""
    with connection.cursor(row_factory=class_row(Relation)) as cursor:
        return cursor.execute(RELATION_SQL, {"relid": relid}).fetchone()


def reason_not_to_maintain(relation: Relation, kinds: Collection[str] = MAINTAINED) -> str:
    """Return why a relation is never maintained by us, '' where it may be."""
    if (
        relation.relid < FIRST_USER_OID
        or relation.relisshared
        or relation.schemaname in {"pg_catalog", "information_schema"}
        or (relation.schemaname == "pg_toast" and kinds != INDEXES)
    ):
        return f"{relation.name} is a system catalog: Howdah leaves those to autovacuum."
    if relation.relpersistence == "t":
        return f"{relation.name} is a temporary table of one session."
    if relation.relkind not in kinds:
        kind = KINDS.get(relation.relkind, "relation of another kind")
        article = "an" if kind[0] in "aeiou" else "a"
        choice = "table or materialized view" if "r" in kinds else "index"
        return f"{relation.name} is {article} {kind}: choose {ARTICLES[choice]} {choice}."
    return ""


def is_same(identity: dict[str, Any], relation: Relation | None) -> bool:
    """Return whether an oid still means what it meant when the action was asked for."""
    return relation is not None and relation.identity() == {
        name: identity.get(name) for name in IDENTITY
    }


def holders(connection: psycopg.Connection, relid: int, lock: str) -> list[dict[str, Any]]:
    """Return who holds or awaits a lock on a relation that conflicts with a mode."""
    values = {"relid": relid, "modes": list(CONFLICTS[lock])}
    pids = [pid for (pid,) in connection.execute(HOLDERS_SQL, values)]
    return backends.describe(connection, pids) if pids else []


def autovacuums(connection: psycopg.Connection, relid: int) -> list[dict[str, Any]]:
    """Return the autovacuum workers on a relation: pid, phase, done, total, wraparound."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(AUTOVACUUM_SQL, {"relid": relid}).fetchall()


def measure(connection: psycopg.Connection, relid: int) -> dict[str, Any]:
    """Return a relation's row counts, vacuum counts and size_bytes with indexes and TOAST.

    n_dead_tup is the server's number, which a rewrite leaves as it was: `leaves`, of the tables
    that hold the rows, have what tells whether it is true (as `monitors.probes.tables.Dead`).
    size_bytes is None where the table stays locked longer than the session's
    lock_timeout, or is gone.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        tree = cursor.execute(ROWS_SQL, {"relid": relid}).fetchall()
    leaves = [row for row in tree if not row["partitioned"]]
    found: dict[str, Any] = {name: sum(row[name] for row in tree) for name in SUMMED if tree}
    if len(leaves) != len(tree):
        found["partitions"] = len(leaves)
    try:
        size = connection.execute(SIZE_SQL, {"relid": relid}).fetchone()
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
        size = None
    return {**found, "leaves": leaves, "size_bytes": size[0] if size else None}


RELTUPLES_SQL = """
SELECT c.reltuples::bigint
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = %(relid)s::oid
"""


def reltuples(connection: psycopg.Connection, relid: int) -> int | None:
    """Return how many rows the planner assumes, None where it was never told."""
    row = connection.execute(RELTUPLES_SQL, {"relid": relid}).fetchone()
    return row[0] if row and row[0] >= 0 else None


def measure_after(
    connection: psycopg.Connection, relid: int, before: dict[str, Any], counter: str
) -> dict[str, Any]:
    """Return the same once `counter` has moved; PostgreSQL 14 tells its statistics late.

    Gives up after 2 s: numbers that may be old are better than none.
    """
    deadline = time.monotonic() + 2
    while True:
        after = measure(connection, relid)
        if after.get(counter) != before.get(counter) or time.monotonic() > deadline:
            return after
        time.sleep(0.05)


class Bytes(sql.Composable):
    """A piece of a statement that is sent as it is: names that no encoding reads."""

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        """Return the very bytes."""
        sent: bytes = self._obj
        return sent


def identifier(identity: Any) -> sql.Composable:
    """Return a relation's qualified name for a statement."""
    if identity.get("name_bytes"):
        names = [bytes.fromhex(name) for name in identity["name_bytes"].split(".")]
        return Bytes(b".".join(b'"' + name.replace(b'"', b'""') + b'"' for name in names))
    return sql.Identifier(identity["schemaname"], identity["relname"])


def effect(before: dict[str, Any], after: dict[str, Any], *, rows: bool) -> str:
    """Return `dead rows 81,204 → 0, size +1.2 GB` of what could be measured."""
    parts = []
    if rows and before.get("n_dead_tup") is not None and after.get("n_dead_tup") is not None:
        parts.append(f"dead rows {before['n_dead_tup']:,} → {after['n_dead_tup']:,}")
    if before.get("size_bytes") is not None and after.get("size_bytes") is not None:
        change = after["size_bytes"] - before["size_bytes"]
        sign = words.MINUS if change < 0 else "+"
        parts.append(f"size {sign}{words.size(abs(change))}" if change else "size unchanged")
    return ", ".join(parts)
