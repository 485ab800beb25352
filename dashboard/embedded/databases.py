"""Roles and databases of the history server and of the demonstration target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql

from dashboard.embedded.postgres import Cluster

HISTORY_SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_wal_size": "256MB",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "track_io_timing": "on",
    "jit": "off",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %u@%d %a ",
}
DEMO_SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements,auto_explain",
    "shared_buffers": "64MB",
    "max_connections": "50",
    "max_wal_size": "96MB",
    "min_wal_size": "32MB",
    "track_io_timing": "on",
    "track_functions": "pl",
    "jit": "off",
    "autovacuum_naptime": "15s",
    # Three formats for whoever reads logs; a day of hourly files, then over again.
    "logging_collector": "on",
    "log_destination": "stderr,csvlog,jsonlog",
    "log_filename": "postgresql-%H.log",
    "log_rotation_age": "60min",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_line_prefix": "%m [%p] %u@%d %a ",
    "log_min_duration_statement": "1s",
    "log_lock_waits": "on",
    "log_autovacuum_min_duration": "1s",
    "log_checkpoints": "off",
    "auto_explain.log_min_duration": "2s",
}
COLLECTOR = "howdah_collector"
OPERATOR = "howdah_operator"
OWNER = "howdah_owner"
APP = "howdah_app"
CONNECTION_LIMIT = 10
DEMO_DATABASES = ("shop", "billing")


def prepare_history(cluster: Cluster, passwords: Mapping[str, str]) -> None:
    """Make our own database with its two roles: one owns it, the other works in it."""
    with cluster.connect() as connection:
        create_logins(connection, passwords)
        for role in (OWNER, APP):
            create_login(connection, role, passwords[role])
        # The owner hands the history tables to the app, which alone makes partitions.
        connection.execute(
            sql.SQL("GRANT {} TO {}").format(sql.Identifier(APP), sql.Identifier(OWNER))
        )
        create_database(connection, "howdah", OWNER)
    with cluster.connect(dbname="howdah") as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        connection.execute(
            sql.SQL("GRANT CREATE ON SCHEMA public TO {}, {}").format(
                sql.Identifier(APP), sql.Identifier(OWNER)
            )
        )
        for rights, kind in (
            ("SELECT, INSERT, UPDATE, DELETE", "TABLES"),
            ("USAGE, SELECT", "SEQUENCES"),
        ):
            connection.execute(
                sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} GRANT {} ON {} TO {}").format(
                    sql.Identifier(OWNER), sql.SQL(rights), sql.SQL(kind), sql.Identifier(APP)
                )
            )


def forget_workers(cluster: Cluster) -> None:
    """Delete the last start's signs of life, so that only this one's count as healthy."""
    with cluster.connect(dbname="howdah") as connection:
        connection.execute("DELETE FROM public.monitors_workerbeat")


def login_of(cluster: Cluster, name: str) -> str | None:
    """Return an account's password hash, None where there is no such active account."""
    with cluster.connect(dbname="howdah") as connection:
        row = connection.execute(
            "SELECT password FROM public.auth_user WHERE username = %s AND is_active", [name]
        ).fetchone()
    return row[0] if row else None


def prepare_demo(cluster: Cluster, passwords: Mapping[str, str]) -> None:
    """Make the demonstration's database and logins."""
    with cluster.connect() as connection:
        create_logins(connection, passwords)
        create_login(connection, "shop", passwords["shop"])
        # Only an owner may set a table's autovacuum options, also where pg_maintain is given.
        connection.execute(sql.SQL("GRANT shop TO {}").format(sql.Identifier(OPERATOR)))
        for name in DEMO_DATABASES:
            create_database(connection, name, "shop")
    for name in ("postgres", "shop"):
        with cluster.connect(dbname=name) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            connection.execute(
                sql.SQL("GRANT EXECUTE ON FUNCTION public.pg_stat_statements_reset TO {}").format(
                    sql.Identifier(OPERATOR)
                )
            )
    for name in DEMO_DATABASES:
        with cluster.connect(dbname=name) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")


def create_logins(connection: psycopg.Connection[Any], passwords: Mapping[str, str]) -> None:
    """Make the two logins of a target, with what the grant script gives them."""
    create_login(connection, COLLECTOR, passwords[COLLECTOR], limit=CONNECTION_LIMIT)
    create_login(connection, OPERATOR, passwords[OPERATOR], limit=CONNECTION_LIMIT)
    connection.execute(
        sql.SQL("GRANT pg_monitor TO {}, {}").format(
            sql.Identifier(COLLECTOR), sql.Identifier(OPERATOR)
        )
    )
    connection.execute(
        sql.SQL("GRANT pg_signal_backend, pg_maintain, pg_stat_scan_tables TO {}").format(
            sql.Identifier(OPERATOR)
        )
    )


def create_login(
    connection: psycopg.Connection[Any], name: str, password: str, *, limit: int = -1
) -> None:
    """Make a role that can log in, where there is none of its name."""
    exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
    statement = sql.SQL(
        "ALTER ROLE {} PASSWORD {}" if exists else "CREATE ROLE {} LOGIN PASSWORD {}"
    )
    connection.execute(statement.format(sql.Identifier(name), sql.Literal(password)))
    connection.execute(
        sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(
            sql.Identifier(name), sql.Literal(limit)
        )
    )


def create_database(connection: psycopg.Connection[Any], name: str, owner: str) -> None:
    """Make a database, where there is none of its name."""
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
        return
    connection.execute(
        sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner))
    )
