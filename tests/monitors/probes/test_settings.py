"""Settings as the server has them, not as Howdah's own session sets them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from monitors.collect.rounds import take_now
from monitors.history.latest import read_latest
from monitors.models import HISTORY, Target
from monitors.models.history import Change
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]


def test_a_change_is_kept_and_nothing_else_is_written(
    server: Server, watch: Callable[..., Target], eventually: Callable[..., None]
) -> None:
    target = watch(server)
    with server.connect() as admin:
        take_now(target, ["settings"])
        admin.execute("ALTER SYSTEM SET autovacuum_vacuum_threshold = 77")
        admin.execute("SELECT pg_reload_conf()")
        try:
            eventually(
                lambda: admin.execute("SHOW autovacuum_vacuum_threshold").fetchone() == ("77",)
            )
            [result] = take_now(target, ["settings"])
        finally:
            admin.execute("ALTER SYSTEM RESET autovacuum_vacuum_threshold")
            admin.execute("SELECT pg_reload_conf()")

    assert result.rows > 300
    changed = HISTORY["settings"].samples._default_manager.filter(change=Change.CHANGED)
    # Reloading may also note that a setting of the command line awaits a restart.
    names = set(changed.values_list("name", flat=True)) - {"shared_buffers"}
    assert names == {"autovacuum_vacuum_threshold"}
    assert result.stored <= 2
    samples = HISTORY["settings"].samples._default_manager
    changes = samples.filter(name="autovacuum_vacuum_threshold").order_by("taken_at")
    assert list(changes.values_list("setting", flat=True)) == ["50", "77"]


def test_what_our_own_session_sets_is_not_taken_for_the_servers(
    server: Server, watch: Callable[..., Target]
) -> None:
    target = watch(server)

    take_now(target, ["settings"])

    rows = {row["name"]: row for row in read_latest("settings", target.pk)}
    assert rows["lock_timeout"]["setting"] is None
    assert rows["search_path"]["setting"] is None
    assert rows["max_connections"]["setting"] == "100"


def test_no_connection_string_is_read(
    server: Server, watch: Callable[..., Target], eventually: Callable[..., None]
) -> None:
    target = watch(server)
    with server.connect() as admin:
        admin.execute("ALTER SYSTEM SET primary_conninfo = 'host=h password=canary'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            eventually(lambda: "canary" in str(admin.execute("SHOW primary_conninfo").fetchone()))
            take_now(target, ["settings"])
        finally:
            admin.execute("ALTER SYSTEM RESET primary_conninfo")
            admin.execute("SELECT pg_reload_conf()")

    rows = {row["name"]: row for row in read_latest("settings", target.pk)}
    assert rows["primary_conninfo"]["setting"] == "(not read)"
