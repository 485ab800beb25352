"""A server that speaks German is judged as one that speaks English."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from django.contrib.auth.models import User

from monitors.collect.rounds import take_now
from monitors.models import Action, Snapshot, Target
from monitors.pg import connect
from monitors.pg.errors import DatabaseClosed, Unreachable
from monitors.targets import check
from tests import german, servers
from tests.servers import Server

Done = Callable[..., Action]


@pytest.fixture(scope="module", params=german.MAJORS, ids=str)
def speaker(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that speaks German, and lets nobody into some of its databases."""
    with ExitStack() as running:
        try:
            programs = german.programs(request.param)
            folder = running.enter_context(servers.home())
            spoken = running.enter_context(german.spoken(folder))
        except servers.Missing as error:
            pytest.skip(str(error))
        found = running.enter_context(servers.running(request.param, programs, folder, **spoken))
        with found.connect() as setup:
            with pytest.raises(psycopg.errors.DivisionByZero, match="Division durch Null"):
                setup.execute("SELECT 1 / 0")
            for name, option in (
                ("crowded", "CONNECTION LIMIT 0"),
                ("shut", "ALLOW_CONNECTIONS off"),
            ):
                setup.execute(f"CREATE DATABASE {name} {option}")
            setup.execute("CREATE DATABASE half_dropped")
            setup.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_dropped'")
            setup.execute("CREATE DATABASE private")
            setup.execute("REVOKE CONNECT ON DATABASE private FROM PUBLIC")
            password = psycopg.sql.Literal(found.password)
            for name, option in (("limited", "LOGIN CONNECTION LIMIT 0"), ("asleep", "NOLOGIN")):
                statement = psycopg.sql.SQL(f"CREATE ROLE {name} {option} PASSWORD {{}}")
                setup.execute(statement.format(password))
        yield found


def refusal(speaker: Server, **changes: str) -> Unreachable:
    """Return what keeps a collector out."""
    known = {"user": "collector", "dbname": "postgres", "password": speaker.password, **changes}
    address = connect.Address(
        speaker.host, speaker.port, known["user"], known["dbname"], "disable", "", known["password"]
    )
    with pytest.raises(Unreachable) as caught:
        connect.open_target(
            address, purpose="test", statement_timeout_ms=5000, lock_timeout_ms=500, read_only=True
        )
    return caught.value


@pytest.mark.parametrize(
    ("changes", "closed", "said"),
    [
        ({"dbname": "nowhere"}, True, "The database does not exist on the server."),
        (
            {"dbname": "crowded"},
            True,
            "The database's own CONNECTION LIMIT lets no further session in: ",
        ),
        ({"dbname": "shut"}, True, "The database takes no connections: "),
        ({"dbname": "half_dropped"}, True, "The database is invalid: "),
        ({"dbname": "private"}, True, "The login may not connect to this database: "),
        (
            {"user": "limited"},
            True,
            "The login's own CONNECTION LIMIT lets no further session in: ",
        ),
        ({"user": "asleep"}, False, "The role may not log in, or does not exist: "),
        ({"password": "wrong"}, False, "Password authentication failed: "),
    ],
)
def test_each_refusal_has_its_sentence_and_only_a_databases_own_costs_it_alone(
    speaker: Server, changes: dict[str, str], closed: bool, said: str
) -> None:
    found = refusal(speaker, **changes)

    assert str(found).startswith(said)
    assert isinstance(found, DatabaseClosed) is closed


@pytest.mark.django_db
def test_every_probe_is_read_and_a_closed_database_costs_itself_alone(
    speaker: Server, watch: Callable[..., Target]
) -> None:
    target = watch(speaker, include=["shop", "crowded", "private"])
    take_now(target)  # learns the databases

    found = {(one.probe, one.database): one.state for one in take_now(target)}

    assert {state for (_, name), state in found.items() if name in {"", "shop"}} == {
        Snapshot.State.OK
    }
    assert {state for (_, name), state in found.items() if name in {"crowded", "private"}} == {
        Snapshot.State.DENIED
    }
    checked = check.check(target, {"collector": speaker.password})
    assert [one["name"] for one in checked["probes"] if not one["works"]] == []


@pytest.mark.django_db
def test_what_vacuum_analyze_and_reindex_leave_out_is_no_success(
    speaker: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    done: Done,
) -> None:
    user, acting = person("dba"), watch(speaker, operator_user="operator")
    with speaker.connect() as setup:
        setup.execute("CREATE ROLE powerless LOGIN IN ROLE pg_read_all_stats")
        setup.execute(psycopg.sql.SQL("ALTER ROLE powerless PASSWORD {}").format(speaker.password))
    powerless = watch(speaker, name="shop-2", operator_user="powerless")
    locked, broken = table(speaker), table(speaker)
    with speaker.connect(user="owner", dbname="shop") as owner:
        owner.execute(f"INSERT INTO {broken} VALUES (500)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            owner.execute(f"CREATE UNIQUE INDEX CONCURRENTLY twice ON {broken} (id)")
        owner.execute(f"CREATE INDEX ON {broken} (id)")

    rows = {
        "vacuum": done(user, powerless, "vacuum", table=table(speaker)),
        "analyze": done(user, powerless, "analyze", table=table(speaker)),
    }
    with speaker.connect(user="owner", dbname="shop", autocommit=False) as owner:
        owner.execute(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
        rows["locked"] = done(user, acting, "vacuum", table=locked, skip_locked="true")
    reindexed = done(user, acting, "reindex", table=broken)
    with speaker.connect() as setup:
        setup.execute("DROP ROLE powerless")

    assert {name: row.state for name, row in rows.items()} == dict.fromkeys(rows, "skipped")
    assert all(row.outcome.startswith("The server skipped it: ") for row in rows.values())
    assert "GRANT" in rows["vacuum"].outcome
    assert "GRANT" not in rows["locked"].outcome
    assert reindexed.state == "succeeded"
    assert " The server left out: " in reindexed.outcome
