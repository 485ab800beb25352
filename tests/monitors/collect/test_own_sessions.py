"""Which sessions are Howdah's own: the target's logins under its name, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from monitors.acting import gates
from monitors.advisor import is_ours
from monitors.collect import rounds
from monitors.findings import thresholds
from monitors.findings.samples import samples_of
from monitors.models import Target
from tests.servers import Server

Session = psycopg.Connection[Any]
LOGINS = frozenset({"collector", "operator"})


@pytest.mark.parametrize(
    ("name", "login", "expected"),
    [
        ("howdah:collector:fast", "collector", True),
        ("howdah:action:1", "operator", True),
        ("howdahX", "joe", False),
        ("howdah:collector:fast", "joe", False),
        ("psql", "collector", False),
        (None, "collector", False),
        ("howdah:action:1", None, False),
    ],
)
def test_login_and_name_make_a_session_ours(
    name: str | None, login: str | None, expected: bool
) -> None:
    assert is_ours(name, login, LOGINS) is expected


@pytest.mark.django_db
@pytest.mark.parametrize("server", [18], indirect=True, ids=str)
def test_findings_and_load_see_a_client_that_takes_our_name(
    server: Server,
    watch: Callable[..., Target],
    live: Callable[..., Session],
    sleeping: Callable[..., Session],
) -> None:
    target = watch(server, operator_user="operator")
    idle = gates.load_of(target).active_backends
    client = sleeping(application_name="howdahX")
    ours = live(server, user="operator", autocommit=False, application_name="howdah:action:1")
    for session in (ours, held := live(server, user="owner", application_name="howdahX")):
        session.execute("BEGIN")
        session.execute("SELECT pg_current_xact_id()")
    rounds.take_now(target, ["activity", "horizon"])

    samples = samples_of([target], thresholds.the_fleet())[target.pk]

    marks = {row["pid"]: row["ours"] for row in samples.of("activity")}
    pids = [one.info.backend_pid for one in (client, held, ours)]
    assert [marks[pid] for pid in pids] == [False, False, True]
    holders = {row["holder"]: row["ours"] for row in samples.of("horizon")}
    assert holders.get(str(pids[1]), False) is False
    assert gates.load_of(target).active_backends == idle + 1
    sleeping(user="operator", application_name="howdah:action:1")
    assert gates.load_of(target).active_backends == idle + 1
