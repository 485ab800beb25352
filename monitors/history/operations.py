"""Migration operations: partitioned tables, and who owns what."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import CreateModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from psycopg import sql


class CreatePartitioned(CreateModel):
    """Creates a model's table as one that is partitioned by range of a column."""

    def __init__(
        self, name: str, fields: list[Any], options: dict[str, Any], partition_by: str
    ) -> None:
        super().__init__(name, fields, options)
        self.partition_by = partition_by

    def deconstruct(self) -> tuple[str, Any, Any]:
        """Return what writes this operation into a migration."""
        name, args, kwargs = super().deconstruct()
        return name, args, {**kwargs, "partition_by": self.partition_by}

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Create the table, partitioned."""
        ordinary = schema_editor.sql_create_table
        column = schema_editor.quote_name(self.partition_by)
        schema_editor.sql_create_table = f"{ordinary} PARTITION BY RANGE ({column})"
        try:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        finally:
            schema_editor.sql_create_table = ordinary


class GiveToApp(Operation):
    """Gives the app's database role what it needs, where there is one.

    The history tables change their owner, since only an owner makes and drops
    partitions; audit rows may be added and read; everything else may be
    written. Without a role of its own the app is the owner and needs nothing.
    """

    reversible = True
    reduces_to_sql = False

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Change nothing in the models."""

    def database_backwards(self, *args: object) -> None:
        """Leave the grants: the tables go with their own operations."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Grant and hand over every table that stands."""
        role = settings.APP_DATABASE_ROLE
        if not role:
            return
        with schema_editor.connection.cursor() as cursor:
            for statement in statements_for(role, history_tables(cursor)):
                cursor.execute(statement)

    def describe(self) -> str:
        """Say what it does, for `migrate`."""
        return "Give the app's role its tables"


HISTORY_TABLES_SQL = """
SELECT c.relname
  FROM pg_class AS c
 WHERE c.relnamespace = current_schema()::regnamespace
   AND c.relkind IN ('r', 'p')
   AND c.relname ~ '^monitors_(snapshot|.*_(sample|latest|hour|day))(_p[0-9]+)?$'
   AND pg_get_userbyid(c.relowner) = current_user
"""


def history_tables(cursor: Any) -> list[str]:
    """Return the names of the history's tables that the migrating role owns."""
    cursor.execute(HISTORY_TABLES_SQL)
    return [name for (name,) in cursor.fetchall()]


def statements_for(role: str, tables: list[str]) -> list[sql.Composed]:
    """Return the statements that give a role what the app needs."""
    app = sql.Identifier(role)
    audit = sql.Identifier("monitors_auditentry")
    return [
        *(
            sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(table), app)
            for table in tables
        ),
        sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}").format(
            app
        ),
        sql.SQL("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {}").format(app),
        # Tables of later migrations and of other applications too.
        sql.SQL(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public"
            " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {}"
        ).format(app),
        sql.SQL(
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {}"
        ).format(app),
        sql.SQL("REVOKE UPDATE, DELETE, TRUNCATE ON {} FROM {}").format(audit, app),
    ]
