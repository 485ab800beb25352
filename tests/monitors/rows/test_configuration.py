"""Changes of settings: what counts as one, what is marked, and the past rebuilt from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.findings import judge
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.models import HISTORY, Mark, SettingChange, Target
from monitors.rows import configuration
from monitors.rows.configuration import mark_text
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]
newest = pytest.mark.parametrize("server", [18], indirect=True, ids=str)

DELAY = "bgwriter_delay"  # milliseconds; no other test sets it
SLOTS = "max_wal_senders"  # needs a restart


@pytest.fixture
def change(server: Server, eventually: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """Set a setting for the server and reload: change(name, value, condition). Undone afterwards."""
    before: dict[str, str] = {}

    def value(name: str, column: str = "setting") -> str:
        with server.connect() as new:  # a reload reaches an old session later
            found = new.execute(
                f"SELECT ({column})::text FROM pg_settings WHERE name = %s", [name]
            ).fetchone()
        return str(found[0]) if found else ""

    def send(statement: str) -> None:
        with server.connect() as admin:
            admin.execute(statement)
            admin.execute("SELECT pg_reload_conf()")

    def alter(name: str, to: str, condition: str) -> None:
        before.setdefault(name, value(name))
        send(f"ALTER SYSTEM SET {name} = {to}")
        eventually(lambda: value(name, condition) == "true")

    yield alter
    for name, former in before.items():
        # The server forgets that a restart is awaited only when it reads the running value.
        send(f"ALTER SYSTEM SET {name} = '{former}'")
        eventually(lambda name=name: value(name, "pending_restart") == "false")
        eventually(lambda name=name, former=former: value(name) == former)
        send(f"ALTER SYSTEM RESET {name}")
        eventually(lambda name=name: value(name, "source") in ("default", "configuration file"))


def window() -> Window:
    return Window.last("1h", timezone.now())


def changes(target: Target, *names: str) -> list[tuple[str, str, str, str]]:
    """Return kind, name, before and after of what changed; of a reload also settings of others."""
    return [
        (row["kind"], row["name"], row["was"], row["value"])
        for row in configuration.changes_of(target, window())
        if row["name"] in names
    ]


def test_a_change_is_listed_and_marked_and_the_past_shows_the_former_value(
    server: Server, watch: Callable[..., Target], change: Callable[..., None]
) -> None:
    target = watch(server)
    take_now(target, ["settings"])
    assert configuration.changes_of(target, window()) == []
    assert not Mark.objects.filter(kind=Mark.Kind.SETTING).exists()
    then = timezone.now()

    change(DELAY, "'300ms'", "setting = '300'")
    take_now(target, ["settings"])

    assert changes(target, DELAY) == [("value", DELAY, "200 ms", "300 ms")]
    [row] = [one for one in configuration.changes_of(target, window()) if one["name"] == DELAY]
    assert row["before_at"] < then < row["at"]
    assert (row["source_before"], row["source"]) == ("default", "configuration file")
    [mark] = [one for one in read_marks(target.pk, window()) if one["kind"] == "setting"]
    assert f"{DELAY} 200 ms to 300 ms" in mark["text"]
    now = {one["name"]: one for one in configuration.settings_of(target)}
    past = {one["name"]: one for one in configuration.settings_of(target, then)}
    assert (now[DELAY]["setting"], past[DELAY]["setting"]) == ("300", "200")
    assert (now[DELAY]["source"], past[DELAY]["source"]) == ("configuration file", "default")
    assert now.keys() == past.keys()
    assert configuration.settings_of(target, then - timedelta(days=1)) == []


def test_the_past_outlives_the_samples(
    server: Server, watch: Callable[..., Target], change: Callable[..., None]
) -> None:
    target = watch(server)
    take_now(target, ["settings"])
    then = timezone.now()
    change(DELAY, "'400ms'", "setting = '400'")
    take_now(target, ["settings"])
    HISTORY["settings"].samples._default_manager.all().delete()

    past = {one["name"]: one["setting"] for one in configuration.settings_of(target, then)}

    assert past[DELAY] == "200"


def test_a_remedy_for_what_the_command_line_sets_is_no_alter_system(
    server: Server, watch: Callable[..., Target], change: Callable[..., None]
) -> None:
    target = watch(server)
    change("autovacuum", "off", "setting = 'off'")
    take_now(target, ["settings", "tables"])
    target.refresh_from_db()

    found = {one.advisor: one.why for one in judge.find(target)}

    assert "command line: change it there" in found["fsync_off"]  # as servers of tests have it
    assert "ALTER SYSTEM" not in found["fsync_off"]
    assert "Run ALTER SYSTEM SET autovacuum = on;" in found["autovacuum_disabled"]


def test_what_awaits_a_restart_is_said_so(
    server: Server, watch: Callable[..., Target], change: Callable[..., None]
) -> None:
    target = watch(server)
    take_now(target, ["settings"])
    with server.connect() as admin:
        now = str((admin.execute(f"SHOW {SLOTS}").fetchone() or ("",))[0])
    change(SLOTS, str(int(now) + 1), "pending_restart")
    take_now(target, ["settings"])

    assert changes(target, SLOTS) == [("pending", SLOTS, now, now)]
    [mark] = Mark.objects.filter(target=target, kind=Mark.Kind.SETTING)
    assert f"{SLOTS} awaits a restart" in mark.text
    [finding] = [one for one in judge.find(target) if one.advisor == "pending_restart"]
    assert SLOTS in finding.title
    assert "shared_buffers" not in finding.title  # the command line sets it, and wins again


def test_a_setting_of_the_collectors_own_role_is_no_change(
    server: Server, watch: Callable[..., Target], worker_id: str
) -> None:
    role = f"reader_{worker_id}"
    with server.connect() as admin:
        admin.execute(f"DROP ROLE IF EXISTS {role}")
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{server.password}'")
        admin.execute(f"GRANT pg_monitor TO {role}")
        try:
            target = watch(server, user=role)
            take_now(target, ["settings"])
            admin.execute(f"ALTER ROLE {role} SET work_mem = '77MB'")
            admin.execute(f"ALTER ROLE {role} IN DATABASE postgres SET temp_buffers = '9MB'")
            take_now(target, ["settings"])  # a new session, so it has them
        finally:
            admin.execute(f"DROP ROLE {role}")

    rows = {row["name"]: row for row in configuration.settings_of(target)}
    assert rows["work_mem"]["setting"] is None
    assert rows["temp_buffers"]["setting"] is None
    assert SettingChange.objects.filter(name="work_mem").exists()
    assert changes(target, "work_mem", "temp_buffers") == []
    assert not Mark.objects.filter(target=target, kind=Mark.Kind.SETTING).exists()


def test_two_servers_differ_and_one_lacks_what_the_other_has(
    server: Server, fleet: Callable[[int], Server], watch: Callable[..., Target]
) -> None:
    here, there = watch(server), watch(fleet(18), name="shop-18")
    take_now(here, ["settings"])
    take_now(there, ["settings"])

    found = {
        row["name"]: row
        for row in configuration.difference_of(
            configuration.settings_of(here), configuration.settings_of(there)
        )
    }

    assert "work_mem" not in found
    assert "lock_timeout" not in found  # our sessions set it
    assert ("server_version" in found) == (server.major != 18)
    lacking = {"io_method", "autovacuum_vacuum_max_threshold"} & found.keys()
    assert bool(lacking) == (server.major < 18)
    for name in lacking:
        assert (found[name]["difference"], found[name]["value"]) == ("only there", None)


def row(setting: str | None, *, source: str = "default", **fields: Any) -> dict[str, Any]:
    return {"setting": setting, "source": source, "unit": None, "pending_restart": False} | fields


def test_an_upgrade_is_one_mark() -> None:
    found: list[configuration.Change] = [
        ("server_version", row("16.4"), row("18.1")),
        *((f"changed_{n}", row("1"), row("2")) for n in range(9)),
        *((f"new_{n}", None, row("2")) for n in range(5)),
        ("old", row("2"), None),
    ]

    assert mark_text(found) == (
        "Settings: changed_0 1 to 2, changed_1 1 to 2, changed_2 1 to 2,"
        " 6 more changed, 5 new, 1 gone."
    )


def test_what_changes_no_value_is_no_mark() -> None:
    assert mark_text([("a", row("1"), row("1", source="configuration file"))]) == ""
    assert mark_text([("a", None, row("1"))]) == ""
    assert mark_text([("a", row(None), row("1"))]) == ""
    assert len(mark_text([("a", row("x" * 900), row("y" * 900))])) < 300


@newest
def test_the_command_says_what_the_page_says(
    server: Server,
    watch: Callable[..., Target],
    change: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = watch(server)
    take_now(target, ["settings", "databases", "tables"])
    then = timezone.now()
    change(DELAY, "'300ms'", "setting = '300'")
    take_now(target, ["settings"])
    capsys.readouterr()

    def said(*words: str) -> Any:
        call_command("settings", target.name, *words, "--json")
        return json.loads(capsys.readouterr().out)

    rows = {one["name"]: one for one in said("--changed")}
    assert rows[DELAY]["setting"] == "300"
    assert "work_mem" not in rows
    past = {one["name"]: one for one in said("--at", then.isoformat())}
    assert past[DELAY]["setting"] == "200"
    [different] = [one for one in said("--with-at", then.isoformat()) if one["name"] == DELAY]
    assert (different["setting"], different["with_setting"]) == ("300", "200")
    assert DELAY in [one["name"] for one in said("--history", "1h")]
    assert "track_io_timing" in [one["name"] for one in said("--advice")]
    call_command("settings", target.name, "--changed")
    assert f"{DELAY} = 300 ms  (configuration file)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status"),
    [(("--at", "2020-01-01T00:00:00Z"), 1), (("--at", "soon"), 2), (("--with", "nobody"), 1)],
)
@newest
def test_the_command_fails_in_one_line(
    server: Server,
    watch: Callable[..., Target],
    words: tuple[str, ...],
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = watch(server)
    take_now(target, ["settings"])
    with pytest.raises(SystemExit) as left:
        call_command("settings", target.name, *words)

    assert left.value.code == status
    assert capsys.readouterr().err.count("\n") == 1
