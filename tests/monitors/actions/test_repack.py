"""REPACK: its text as PostgreSQL 19 documents it; older servers have none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from monitors.actions.repack import ACTION
from monitors.models import Action, Target
from tests.servers import Server


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 'REPACK (CONCURRENTLY) "s"."t"'),
        ({"concurrently": "false"}, 'REPACK "s"."t"'),
    ],
)
def test_its_statement(given: dict[str, str], expected: str) -> None:
    cleaned = ACTION.clean({"database": "shop", "relid": "1", **given})

    text = ACTION.statement(cleaned, {"schemaname": "s", "relname": "t"}, 190000).as_string(None)

    assert text == expected


def test_it_asks_as_vacuum_full_does() -> None:
    assert ACTION.destructive
    assert ACTION.second_person


@pytest.mark.django_db
def test_a_server_without_it_says_so(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Callable[..., Action],
) -> None:
    target = watch(server, operator_user="operator")

    draft = previewed(person("dba"), target, "repack", table=table(server))

    assert (
        f"This server is PostgreSQL {server.major}: REPACK came with 19."
        in draft.preview["refused"]
    )
    assert draft.sql == ""
