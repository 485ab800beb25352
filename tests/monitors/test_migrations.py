"""Histories that earlier code made become today's, and a migration that landed never changes again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dashboard.embedded.processes import ROOT
from tests import servers
from tests.servers import Server

LANDED = {
    "87c643b": "first light",
    "4085046": "statements are read",
    "6f31807": "what a snapshot costs is measured",
    "11e4d77": "hours are rated by what their differences took",
    "38c33ca": "the whole ground",
    "70ad628": "bloat, findings, jobs and the record of vacuums",
    "4703d14": "the vacuum desk",
}
"""Commits of the main branch, by whose migrations somebody's history was made."""

EDITED = {
    "0001_initial": "cc7de1c",
    "0002_statements": "7d7c14b",
    "0003_horizon": "70ad628",
    "0004_bloat": "70ad628",
    "0005_batches": "70ad628",
    "0006_findings": "70ad628",
    "0007_relallfrozen": "70ad628",
    "0008_vacuum_runs": "70ad628",
    "0009_settings": "70ad628",
    "0010_verdict": "70ad628",
    "0011_jobs": "70ad628",
}
"""{migration: the commit of the main branch that edited it last}, from before this was tested."""

COLUMNS = """
SELECT c.relkind::text, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), a.attidentity::text
  FROM pg_class AS c
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
"""
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
"""
INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
TRIGGERS = """
SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), tgenabled::text
  FROM pg_trigger WHERE NOT tgisinternal
"""
FUNCTIONS = """
SELECT proname, pg_get_functiondef(oid) FROM pg_proc
 WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'
   AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
"""
TABLES = """
SELECT c.relname, pg_get_userbyid(c.relowner), pg_get_partkeydef(c.oid), a.acl
  FROM pg_class AS c,
       LATERAL (SELECT string_agg(item::text, ' ' ORDER BY item::text) AS acl
                  FROM unnest(c.relacl) AS item) AS a
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
"""
SCHEMA = {
    "columns": COLUMNS,
    "constraints": CONSTRAINTS,
    "indexes": INDEXES,
    "triggers": TRIGGERS,
    "functions": FUNCTIONS,
    "tables": TABLES,
}

Schema = dict[str, set[tuple[Any, ...]]]


def git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Ask git about this checkout."""
    return subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments], cwd=ROOT, capture_output=True, check=False
    )


def has_commit(commit: str) -> bool:
    """Whether this checkout knows a commit: a shallow one does not."""
    return git("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


@contextmanager
def database(server: Server, name: str, **more: str) -> Iterator[dict[str, str]]:
    """Make a database for as long as the context lasts; gives the environment that names it."""
    identifier = sql.Identifier(name)
    with server.connect() as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        try:
            url = f"{server.superuser_dsn.removesuffix('/postgres')}/{name}"
            yield {**os.environ, "DATABASE_URL": url, "PYTHONDONTWRITEBYTECODE": "1", **more}
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def migrate(code: Path, environment: dict[str, str]) -> None:
    """Migrate as a start of that code does.

    Without its checks, which import pages and so libraries that today's code needs no more.
    """
    done = subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--no-input", "--skip-checks", "-v", "0"],
        cwd=code,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def schema_of(server: Server, name: str) -> Schema:
    """Everything that migrations make, without what a history holds."""
    with server.connect(dbname=name) as session:
        found = {kind: set(session.execute(query).fetchall()) for kind, query in SCHEMA.items()}
    return {kind: {row for row in rows if not is_partition(row)} for kind, rows in found.items()}


def is_partition(row: tuple[Any, ...]) -> bool:
    """Whether a row tells of the partition that `use` made."""
    return any("_p19700101" in str(value) for value in row)


def use(server: Server, name: str) -> None:
    """Leave the traces of an hour: a partition, and that snapshots covered it."""
    with server.connect(dbname=name) as session:
        session.execute("SET session_replication_role = replica")  # no target stands behind it
        session.execute(
            "CREATE TABLE monitors_snapshot_p19700101 PARTITION OF monitors_snapshot"
            " FOR VALUES FROM ('1970-01-01 00:00Z') TO ('1970-01-02 00:00Z')"
        )
        if not has_column(session, "monitors_coverage", "spanned_seconds"):
            session.execute(
                "INSERT INTO monitors_coverage (target_id, probe, hour, covered_seconds, failed)"
                " VALUES (1, 'tables', '1970-01-01 00:00Z', 60, 0)"
            )


def has_column(session: psycopg.Connection[Any], table: str, column: str) -> bool:
    """Whether a table has a column."""
    query = "SELECT FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s"
    return session.execute(query, [table, column]).fetchone() is not None


@pytest.fixture(scope="module")
def fresh(embedded: Server, worker_id: str) -> Schema:
    """What today's migrations make of an empty database."""
    name = f"fresh_{worker_id}"
    with database(embedded, name) as environment:
        migrate(ROOT, environment)
        return schema_of(embedded, name)


@pytest.fixture(scope="module")
def code_of() -> Iterator[Callable[[str], Path]]:
    """A function from a commit to a folder with the code as it was then."""
    with servers.home() as home:

        def unpack(commit: str) -> Path:
            folder = home / commit
            if not has_commit(commit):
                pytest.skip("This checkout is shallow: the commit is not in it.")
            if not folder.exists():
                folder.mkdir()
                archive = git("archive", commit)
                subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
            return folder

        yield unpack


@pytest.mark.parametrize("commit", LANDED, ids=[name.replace(" ", "-") for name in LANDED.values()])
def test_a_history_of_every_landed_state_becomes_what_a_fresh_one_is(
    embedded: Server,
    worker_id: str,
    fresh: Schema,
    code_of: Callable[[str], Path],
    commit: str,
) -> None:
    name = f"landed_{commit}_{worker_id}"
    code = code_of(commit)
    with database(embedded, name) as environment:
        migrate(code, environment)
        use(embedded, name)

        migrate(ROOT, environment)

        found = schema_of(embedded, name)
    for kind, rows in fresh.items():
        assert sorted(map(str, rows ^ found[kind])) == [], kind


def test_a_migration_that_landed_never_changes_again() -> None:
    if not has_commit(next(iter(LANDED))):
        pytest.skip("This checkout is shallow: what landed is not in it.")
    changed = {
        path.stem: first
        for path in sorted((ROOT / "monitors" / "migrations").glob("0*.py"))
        if (first := landed_at(path)) and content_at(first, path) != path.read_bytes()
    }

    assert changed == {}, "Undo the edit, and write what it was for as a new migration."


def landed_at(path: Path) -> str:
    """Return the commit of the main branch by which a migration counts, '' where none has it yet."""
    if path.stem in EDITED:
        return EDITED[path.stem]
    added = git("log", "--first-parent", "--diff-filter=A", "--format=%h", "--", str(path)).stdout
    return (added.decode().split() or [""])[-1]


def content_at(commit: str, path: Path) -> bytes:
    """Return what a file held in a commit."""
    return git("show", f"{commit}:{path.relative_to(ROOT)}").stdout


def test_the_roles_of_production_can_repair_a_history(
    embedded: Server, worker_id: str, fresh: Schema, code_of: Callable[[str], Path]
) -> None:
    """The owner migrates; the app owns the tables of the history."""
    name, owner, app = (f"{part}_{worker_id}" for part in ("roles", "roles_owner", "roles_app"))
    code = code_of("4085046")
    with roles(embedded, owner, app), database(embedded, name) as environment:
        with embedded.connect() as admin:
            admin.execute(f"ALTER DATABASE {name} OWNER TO {owner}")
        with embedded.connect(dbname=name) as admin:
            admin.execute(f"GRANT CREATE ON SCHEMA public TO {owner}, {app}")
        url = environment["DATABASE_URL"].replace("//postgres:", f"//{owner}:")
        environment |= {"DATABASE_URL": url, "HOWDAH_APP_ROLE": app}
        migrate(code, environment)

        migrate(ROOT, environment)

        found = schema_of(embedded, name)
    assert {kind: found[kind] for kind in ("columns", "indexes")} == {
        kind: fresh[kind] for kind in ("columns", "indexes")
    }


@contextmanager
def roles(server: Server, owner: str, app: str) -> Iterator[None]:
    """Make the two roles of docs/deploy.md for as long as the context lasts."""
    with server.connect() as admin:
        for role in (owner, app):
            admin.execute(f"DROP ROLE IF EXISTS {role}")
            password = sql.Literal(server.password)
            admin.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), password)
            )
        admin.execute(f"GRANT {app} TO {owner}")
        try:
            yield
        finally:
            admin.execute(f"DROP ROLE {owner}, {app}")
