"""makemigrations writes what Django does not know of our tables, and sees where it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db.migrations import CreateModel, Migration
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.writer import MigrationWriter

from monitors.history.operations import GiveToApp
from monitors.management.commands import makemigrations
from monitors.management.commands.makemigrations import complete, problems_of

TABLES = ("statementssample", "statementslatest", "statementshour", "statementsday")


@pytest.fixture(scope="module")
def found() -> list[Operation]:
    """What Django finds where a probe with rollups is new."""
    loader = MigrationLoader(None)
    after = loader.project_state()
    before = after.clone()
    for name in TABLES:
        before.remove_model("monitors", name)
    changes = MigrationAutodetector(before, after).changes(loader.graph)
    [migration] = changes["monitors"]
    return list(migration.operations)


def written(operations: list[Operation]) -> str:
    migration = Migration("0099_new", "monitors")
    migration.operations = complete(operations)  # type: ignore[misc]
    assert list(problems_of(migration)) == []
    return MigrationWriter(migration).as_string()


def test_tables_of_a_new_probe_are_partitioned_and_given_to_the_app(
    found: list[Operation], tmp_path: Path
) -> None:
    text = written(found)

    assert text.count("CreatePartitioned(\n") == 3
    assert text.count("partition_by='taken_at'") == 1
    assert text.count("partition_by='start_at'") == 2
    assert text.count("migrations.CreateModel(\n") == 1
    assert text.rstrip().endswith("GiveToApp(\n        ),\n    ]")
    compile(text, "0099_new.py", "exec")


def test_what_is_no_table_of_the_history_stays_as_it_is(found: list[Operation]) -> None:
    other = CreateModel("Other", [])

    assert complete([other]) == [other]


def test_a_migration_that_lacks_it_is_told(found: list[Operation]) -> None:
    migration = Migration("0099_new", "monitors")
    migration.operations = found  # type: ignore[misc]

    assert list(problems_of(migration)) == [
        "StatementsDay is not partitioned: write CreatePartitioned.",
        "StatementsHour is not partitioned: write CreatePartitioned.",
        "StatementsSample is not partitioned: write CreatePartitioned.",
        "what it creates is not given to the app's role: end it with GiveToApp().",
    ]


@pytest.mark.django_db
def test_the_check_fails_where_one_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)

    monkeypatch.setattr(makemigrations, "problems_of", lambda _: ["it lacks something"])
    with pytest.raises(CommandError, match="0001_initial: it lacks something"):
        call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)


def test_what_was_given_before_it_was_created_is_not_given(found: list[Operation]) -> None:
    migration = Migration("0099_new", "monitors")
    migration.operations = [GiveToApp(), *complete(found)[:-1]]  # type: ignore[misc]

    assert len(list(problems_of(migration))) == 1
