"""VACUUM FULL: it says what it locks and needs, and the measured size shrinks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from monitors.actions.vacuum_full import ACTION
from monitors.models import Action, Target
from tests.servers import Server

pytestmark = pytest.mark.django_db


def test_it_needs_a_confirmation_and_where_protected_a_second_person() -> None:
    assert ACTION.destructive
    assert ACTION.second_person
    assert ACTION.lock == "AccessExclusiveLock"
    assert 0 < ACTION.lock_timeout_ms <= 5000


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 'VACUUM (FULL) "s"."t"'), ({"analyze": "true"}, 'VACUUM (FULL, ANALYZE) "s"."t"')],
)
def test_its_statement(given: dict[str, str], expected: str) -> None:
    cleaned = ACTION.clean({"database": "shop", "relid": "1", **given})

    text = ACTION.statement(cleaned, {"schemaname": "s", "relname": "t"}, 180000).as_string(None)

    assert text == expected


def test_it_says_what_it_needs_and_what_it_gave_back(
    server: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    previewed: Callable[..., Action],
    done: Callable[..., Action],
) -> None:
    target = watch(server, operator_user="operator")
    name = table(server, dead=990)
    user = person("dba")

    preview = previewed(user, target, "vacuum_full", table=name).preview
    row = done(user, target, "vacuum_full", table=name)

    assert "Free disk space needed" in dict(preview["facts"])
    assert any("Nobody can read" in warning for warning in preview["warnings"])
    assert row.state == "succeeded"
    assert row.effect.startswith("size \N{MINUS SIGN}")
    assert row.after["size_bytes"] < row.before["size_bytes"]
