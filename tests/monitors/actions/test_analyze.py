"""ANALYZE: the planner's statistics are new afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from monitors.actions.analyze import ACTION
from monitors.models import Action, Target
from tests.servers import Server

pytestmark = pytest.mark.django_db


def test_its_statement() -> None:
    cleaned = ACTION.clean({"database": "shop", "relid": "1"})

    text = ACTION.statement(cleaned, {"schemaname": "s", "relname": "t"}, 180000).as_string(None)

    assert text == 'ANALYZE "s"."t"'


def test_it_says_how_many_changes_it_caught_up_with(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    done: Callable[..., Action],
) -> None:
    target = watch(server, operator_user="operator")

    row = done(person("operator"), target, "analyze", table=table(server, dead=100))

    assert row.state == "succeeded"
    assert row.effect == "rows changed since the last analyze 1,100 → 0"
