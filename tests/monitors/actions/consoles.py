"""What tests of actions on poolers share: a look at the console, as somebody has it who types."""

from __future__ import annotations

from typing import Any

from tests.servers import Server


def shown(pooler: Server, what: str, database: str = "shop") -> list[dict[str, Any]]:
    """Return what the console shows of a database."""
    with pooler.connect(user="operator", dbname="pgbouncer", autocommit=True) as console:
        cursor = console.execute(f"SHOW {what}")
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [row for row in rows if database in {row.get("name"), row.get("database")}]


def is_paused(pooler: Server) -> bool:
    """Tell whether the database `shop` is paused."""
    return any(row["paused"] for row in shown(pooler, "DATABASES"))


def told(pooler: Server, command: str) -> None:
    """Send the console a command."""
    with pooler.connect(user="operator", dbname="pgbouncer", autocommit=True) as console:
        console.execute(command)
