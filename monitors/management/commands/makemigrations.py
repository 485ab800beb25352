"""Django's makemigrations; the history's tables become partitioned ones, new tables the app's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import apps
from django.core.management.base import CommandError
from django.core.management.commands import makemigrations
from django.db.migrations import CreateModel, Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation

from monitors.history import partitions
from monitors.history.operations import CreatePartitioned, GiveToApp
from monitors.models import HISTORY

APP = "monitors"


class Command(makemigrations.Command):
    """`manage.py makemigrations`; with `--check` also what landed is looked through."""

    def handle(self, *app_labels: Any, **options: Any) -> None:
        """Write migrations, or say what one lacks."""
        if options["check_changes"]:
            loader = MigrationLoader(None)
            found = [
                f"{name}: {problem}"
                for (app, name), migration in sorted(loader.disk_migrations.items())
                if app == APP
                for problem in problems_of(migration)
            ]
            if found:
                raise CommandError("\n".join(found))
        super().handle(*app_labels, **options)

    def write_migration_files(
        self, changes: dict[str, list[Migration]], *args: Any, **options: Any
    ) -> None:
        """Write them with what Django does not know of our tables."""
        for migration in changes.get(APP, []):
            migration.operations = complete(migration.operations)  # type: ignore[misc]
        super().write_migration_files(changes, *args, **options)


def complete(operations: Sequence[Operation]) -> list[Operation]:
    """Return operations that create partitioned tables, and give new ones to the app's role."""
    columns = partition_columns()
    found = [
        CreatePartitioned(one.name, one.fields, one.options, columns[one.name])
        if isinstance(one, CreateModel) and one.name in columns
        else one
        for one in operations
    ]
    return [*found, GiveToApp()] if any(map(is_of_history, found)) else found


def partition_columns() -> dict[str, str]:
    """Return {model: the column that its table is partitioned by} of the history's models."""
    columns = {one.table: one.column for one in partitions.partitioned_tables()}
    models = apps.get_app_config(APP).get_models()
    return {
        str(model._meta.object_name): columns[model._meta.db_table]
        for model in models
        if model._meta.db_table in columns
    }


def is_of_history(operation: Operation) -> bool:
    """Whether an operation creates a table that the app's role must own: it makes partitions.

    Of other tables that role has what it needs by default privileges.
    """
    kept = {str(one.latest._meta.object_name) for one in HISTORY.values()} | {*partition_columns()}
    return isinstance(operation, CreateModel) and operation.name in kept


def problems_of(migration: Migration) -> Iterator[str]:
    """Yield what a migration lacks that makemigrations would have written."""
    columns = partition_columns()
    last = given = -1
    for position, one in enumerate(migration.operations):
        if isinstance(one, GiveToApp):
            given = position
        if is_of_history(one):
            last = position
        ordinary = isinstance(one, CreateModel) and not isinstance(one, CreatePartitioned)
        if ordinary and (name := getattr(one, "name", "")) in columns:
            yield f"{name} is not partitioned: write CreatePartitioned."
    if last > given:
        yield "what it creates is not given to the app's role: end it with GiveToApp()."
