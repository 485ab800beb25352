"""What a role carries changes no answer: every session is set to what it rests on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from psycopg import sql

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Action, Mark, Snapshot, Target
from monitors.pg import connect
from monitors.targets import check
from tests.servers import Server

pytestmark = pytest.mark.django_db

Watch = Callable[..., Target]
Done = Callable[..., Action]

LOGINS = ("collector", "operator", "powerless")
# Each has harmed somebody: marks of crashes, actions that were lost, a VACUUM that skipped its
# table and was called a success, connections that were gone at the next read.
NAMED = {
    "client_min_messages": "error",
    "DateStyle": "SQL, DMY",
    "idle_session_timeout": "1s",
    "IntervalStyle": "sql_standard",
    "lock_timeout": "1ms",
    "role": "another",
    "search_path": "nowhere",
    "statement_timeout": "20ms",
    "TimeZone": "Asia/Kathmandu",
}
NAMED_SINCE_17 = {"transaction_timeout": "1s", "restrict_nonsystem_relation_kind": "view"}
NOT_CARRIED = {
    "transaction_deferrable": "the server refuses it",
    "transaction_isolation": "the server refuses it",
    "transaction_read_only": "a default of the server that is honoured: test_read_only_target.py",
    "default_transaction_read_only": "the same",
    "debug_discard_caches": "makes the server some hundred times slower",
    "log_min_messages": "fills the disk",
    "vacuum_cost_delay": "how gently Howdah vacuums is for the role to say",
}
"""Settings of sessions that the tests leave out -> why."""


def settings_of(server: Server, which: str) -> dict[str, str]:
    """Return a value that is not the usual one for every setting that a role may carry."""
    with server.connect() as session:
        rows = session.execute(
            "SELECT name, vartype, setting, min_val, max_val, enumvals FROM pg_settings"
            " WHERE context IN ('user', 'superuser')"
        ).fetchall()
    found = dict(NAMED) | (NAMED_SINCE_17 if server.major >= 17 else {})
    for name, vartype, setting, lowest, highest, words in rows:
        if name in found or name in NOT_CARRIED:
            continue
        if name == "standard_conforming_strings" and server.major >= 19:
            continue  # it is always on there
        others = [word for word in words or () if word != setting]
        value = {
            "bool": "off" if setting == "on" else "on",
            "enum": (others[0] if which == "lowest" else others[-1]) if others else setting,
            "string": setting,
        }.get(vartype, lowest if which == "lowest" else highest)
        if value != setting and (name, value) != ("max_stack_depth", highest):
            found[name] = value
    return found


@pytest.fixture(params=["named", "lowest", "highest"])
def carried(request: pytest.FixtureRequest, server: Server) -> Iterator[Callable[[], None]]:
    """A function that lets both logins carry settings, until the test ends."""
    found = NAMED | (NAMED_SINCE_17 if server.major >= 17 else {})
    if request.param != "named":
        found = settings_of(server, request.param)
    with server.connect() as session:
        for role in ("another", "powerless"):
            session.execute(f"DROP ROLE IF EXISTS {role}")
        session.execute("CREATE ROLE another")
        session.execute(
            sql.SQL("CREATE ROLE powerless LOGIN PASSWORD {} IN ROLE pg_read_all_stats").format(
                sql.Literal(server.password)
            )
        )

        def carry() -> None:
            for login in LOGINS:
                session.execute(f"GRANT another TO {login}")
                for name, value in found.items():
                    if name == "track_counts" and login != "collector":
                        continue  # refused: test_a_login_whose_work_is_not_counted_does_nothing
                    session.execute(
                        sql.SQL("ALTER ROLE {} SET {} = {}").format(
                            sql.Identifier(login), sql.Identifier(name), sql.Literal(value)
                        )
                    )

        try:
            yield carry
        finally:
            for login in LOGINS:
                session.execute(f"ALTER ROLE {login} RESET ALL")
            session.execute("DROP ROLE another, powerless")


def labels(target: Target) -> dict[str, list[dict[str, Any]]]:
    """Return what the history says of each probe's objects besides their numbers."""
    return {
        name: sorted(
            history.latest._default_manager.filter(target_id=target.pk, gone_at=None).values(
                *history.probe.sample.key, *history.probe.sample.labels
            ),
            key=str,
        )
        for name, history in HISTORY.items()
        if name in {"tables", "indexes", "bloat", "databases", "settings"}
    }


def test_what_a_role_carries_changes_no_reading(
    server: Server, watch: Watch, carried: Callable[[], None]
) -> None:
    target = watch(server)
    take_now(target)  # learns the databases
    plain = {(one.probe, one.database): (one.state, one.error) for one in take_now(target)}
    known, identified = labels(target), Target.objects.get().settings

    carried()
    found = {(one.probe, one.database): (one.state, one.error) for one in take_now(target)}

    assert found == plain
    assert labels(target) == known
    assert list(Mark.objects.values_list("kind", "text")) == []
    now = Target.objects.get().settings
    assert {name: identified[name] for name in now} == now
    assert set(plain.values()) >= {(Snapshot.State.OK, "")}


def test_what_a_role_carries_changes_no_outcome(
    server: Server,
    watch: Watch,
    person: Callable[..., User],
    table: Callable[..., str],
    done: Done,
    carried: Callable[[], None],
) -> None:
    target, user = watch(server, operator_user="operator"), person("dba")
    dead, analyzed, rebuilt = (table(server) for _ in range(3))
    carried()

    rows = {
        "vacuum": done(user, target, "vacuum", table=dead),
        "analyze": done(user, target, "analyze", table=analyzed),
        "full": done(user, target, "vacuum_full", table=rebuilt),
    }
    target = watch(server, name="shop-2", operator_user="powerless")
    rows["without the right"] = done(user, target, "vacuum", table=table(server))

    assert {name: row.state for name, row in rows.items()} == {
        "vacuum": "succeeded",
        "analyze": "succeeded",
        "full": "succeeded",
        "without the right": "skipped",
    }, {name: row.outcome for name, row in rows.items()}
    assert rows["vacuum"].effect.startswith("dead rows 100 → 0")


def test_a_login_whose_work_is_not_counted_does_nothing(
    server: Server, watch: Watch, person: Callable[..., User], table: Callable[..., str], done: Done
) -> None:
    """VACUUM would say nothing to the statistics, and rows that are gone would be told to stay."""
    target, name = watch(server, operator_user="operator"), table(server)
    with server.connect() as session:
        session.execute("ALTER ROLE operator SET track_counts = off")
        try:
            row = done(person("dba"), target, "vacuum", table=name)
            passwords = {"collector": server.password, "operator": server.password}
            works = {one["name"]: one["works"] for one in check.check(target, passwords)["actions"]}
        finally:
            session.execute("ALTER ROLE operator RESET ALL")

    assert row.state == "failed"
    assert not works["vacuum"]
    assert row.outcome.startswith("Nothing was sent: track_counts is off for this login alone")


def test_a_kept_session_outlives_what_its_role_says_of_idle_ones(
    server: Server, carried: Callable[[], None]
) -> None:
    carried()
    address = connect.Address(
        server.host, server.port, "collector", "shop", "disable", "", server.password
    )
    session = connect.open_target(
        address, purpose="test", statement_timeout_ms=5000, lock_timeout_ms=500, read_only=True
    )
    with session:
        time.sleep(1.5)
        with session.transaction():
            session.execute("SELECT pg_catalog.pg_sleep(1.5)")
        who = session.execute("SELECT current_user, session_user").fetchone()

    assert who == ("collector", "collector")
