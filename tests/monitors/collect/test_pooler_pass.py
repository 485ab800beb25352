"""Where a pooler's console can't be read it is told why; one that restarts is read on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monitors.collect.rounds import take_now
from monitors.models import ProbeState, Snapshot, Target
from monitors.pg import console, console_door
from tests import poolers
from tests.servers import Server

Pooler = Callable[..., Server]


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_whoever_is_not_let_in_is_told_what_to_do(
    pooler: Pooler, embedded: Server, watch_pooler: Callable[..., Target]
) -> None:
    closed = pooler()
    reasons = {
        "not allowed": watch_pooler(closed),
        "no such user": watch_pooler(closed, name="pool-2", user="nobody"),
        "a server": watch_pooler(embedded, name="pool-3"),
    }

    said = {name: {one.error for one in take_now(target)} for name, target in reasons.items()}

    assert said == {
        "not allowed": {console_door.NOT_ADMITTED.format(user="collector")},
        "no such user": {console_door.NO_LOGIN.format(user="nobody")},
        "a server": {console_door.NO_CONSOLE},
    }
    assert {row.state for row in ProbeState.objects.all()} == {Snapshot.State.UNREACHABLE}


@pytest.mark.django_db
@pytest.mark.parametrize("pooler", ["installed"], indirect=True)
def test_what_the_console_never_is_asked(pooler: Pooler) -> None:
    behind = pooler(**poolers.CONSOLE)
    with (
        behind.connect(user="collector", dbname="pgbouncer") as session,
        pytest.raises(ValueError, match="FDS"),
    ):
        console.show(session, "FDS")
