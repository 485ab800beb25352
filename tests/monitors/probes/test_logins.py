"""Roles whose password expires, read by a login that may not see passwords."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.findings import judge
from monitors.history.latest import read_latest
from monitors.models import Target
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


@pytest.fixture
def expires(server: Server) -> Iterator[Callable[[str, str], None]]:
    """Give a role's password an end: expires("operator", "2030-01-01 00:00+00")."""
    changed = []

    def change(role: str, until: str) -> None:
        changed.append(role)
        with server.connect() as connection:
            connection.execute(f"ALTER ROLE {role} VALID UNTIL '{until}'")

    yield change
    with server.connect() as connection:
        for role in changed:
            connection.execute(f"ALTER ROLE {role} VALID UNTIL 'infinity'")


def read(target: Target) -> dict[str, datetime]:
    [result] = take_now(target, ["logins"])
    assert result.error == ""
    return {row["rolname"]: row["rolvaliduntil"] for row in read_latest("logins", target.pk)}


def test_only_what_expires_is_read(
    server: Server, watch: Callable[..., Target], expires: Callable[[str, str], None]
) -> None:
    target = watch(server, operator_user="operator")
    expires("operator", "2030-01-01 00:00+00")
    expires("owner", "infinity")
    expires("collector", "294000-01-01")

    assert read(target) == {"operator": datetime(2030, 1, 1, tzinfo=UTC)}

    expires("operator", "infinity")
    assert read(target) == {}


def test_both_logins_are_told_of_a_week_before(
    server: Server, watch: Callable[..., Target], expires: Callable[[str, str], None]
) -> None:
    target = watch(server, operator_user="operator")
    for role in ("collector", "operator", "owner"):
        expires(role, (timezone.now() + timedelta(days=6)).isoformat())
    take_now(target)

    found = [one for one in judge.find(target) if one.advisor == "password_expires"]

    assert {one.object_name for one in found} == {"collector", "operator"}
    assert {one.level for one in found} == {"warning"}
