"""Behind a pooler: in session mode all holds; else no session is opened, and nothing leaks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from django.contrib.auth.models import User

from monitors.collect.rounds import take_now
from monitors.models import Action, Snapshot, Target
from monitors.pg import connect
from monitors.pg.errors import NO_TURN, POOLER_REFUSES, Unreachable
from monitors.pg.pinned import IN_TRANSACTION_MODE, NO_RESET, NO_SECOND
from monitors.targets import check
from tests.servers import Server

Pooler = Callable[..., Server]

SETTINGS = ("statement_timeout", "lock_timeout", "default_transaction_read_only", "TimeZone")


def address(server: Server, user: str = "collector") -> connect.Address:
    return connect.Address(server.host, server.port, user, "shop", "disable", "", server.password)


def opened(server: Server, *, read_only: bool = True) -> psycopg.Connection:
    """Return a session of the collector, or of the operator."""
    return connect.open_target(
        address(server, "collector" if read_only else "operator"),
        purpose="test",
        statement_timeout_ms=5000,
        lock_timeout_ms=500,
        read_only=read_only,
        deadline_seconds=4,
    )


def refusal(server: Server, *, read_only: bool = True) -> str:
    """Return why no session is opened."""
    with pytest.raises(Unreachable) as caught:
        opened(server, read_only=read_only)
    return str(caught.value)


def shown(server: Server, user: str) -> list[str]:
    """Return what another client of a login is set to."""
    with server.connect(user=user, dbname="shop") as client:
        return [client.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS]  # type: ignore[index]


@pytest.mark.parametrize("read_only", [True, False])
def test_a_pooler_that_takes_no_options_is_named_with_what_helps(
    pooler: Pooler, read_only: bool
) -> None:
    said = refusal(pooler(pool_mode="session"), read_only=read_only)

    assert said == POOLER_REFUSES
    assert "ignore_startup_parameters = options" in said
    assert "pool_mode = session" in said
    assert len(said) <= 300


@pytest.mark.parametrize("round_robin", ["0", "1"])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_pooler_in_transaction_mode_is_refused_and_gets_nothing_to_leak(
    pooler: Pooler, read_only: bool, round_robin: str
) -> None:
    behind = pooler(
        pool_mode="transaction",
        ignore_startup_parameters="options",
        server_round_robin=round_robin,
        min_pool_size="3",
    )
    user = "collector" if read_only else "operator"
    before = shown(behind, user)

    said = {refusal(behind, read_only=read_only) for _ in range(5)}

    assert said == {IN_TRANSACTION_MODE}
    assert len(IN_TRANSACTION_MODE) <= 300
    for _ in range(5):
        assert shown(behind, user) == before


@pytest.fixture
def busy() -> Iterator[Callable[[Server], None]]:
    """Let six clients of the collector's pool work, each for itself: busy(server)."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def work(server: Server) -> None:
        with server.connect(user="collector", dbname="shop") as client:
            while not over.is_set():
                client.execute("SELECT pg_sleep(random() * 0.003)", prepare=False)

    def start(server: Server) -> None:
        threads.extend(threading.Thread(target=work, args=(server,)) for _ in range(6))
        for thread in threads:
            thread.start()

    yield start
    over.set()
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
@pytest.mark.parametrize("round_robin", ["0", "1"])
def test_a_pool_that_others_use_is_judged_the_same(
    pooler: Pooler, busy: Callable[[Server], None], pool_mode: str, round_robin: str
) -> None:
    behind = pooler(
        pool_mode=pool_mode, ignore_startup_parameters="options", server_round_robin=round_robin
    )
    busy(behind)

    if pool_mode == "transaction":
        assert {refusal(behind) for _ in range(20)} == {IN_TRANSACTION_MODE}
    else:
        for _ in range(5):
            opened(behind).close()


def test_a_pooler_in_statement_mode_is_refused(pooler: Pooler) -> None:
    behind = pooler(pool_mode="statement", ignore_startup_parameters="options")

    assert refusal(behind) == IN_TRANSACTION_MODE


@pytest.mark.django_db
def test_in_transaction_mode_the_check_each_probe_and_each_action_say_so(
    pooler: Pooler,
    embedded: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    previewed: Callable[..., Action],
) -> None:
    behind = pooler(pool_mode="transaction", ignore_startup_parameters="options")
    target = watch(behind, operator_user="operator")

    with pytest.raises(check.CheckFailed) as caught:
        check.check(target, {"collector": embedded.password, "operator": embedded.password})
    read = take_now(target)
    preview = previewed(person("dba"), target, "vacuum", table="public.nowhere").preview

    assert preview["refused"] == f"{target.name} could not be asked: {IN_TRANSACTION_MODE}"
    assert str(caught.value) == IN_TRANSACTION_MODE
    assert {(one.state, one.error) for one in read} == {
        (Snapshot.State.UNREACHABLE, IN_TRANSACTION_MODE)
    }


@pytest.mark.django_db
@pytest.mark.usefixtures("all_readable")
def test_in_session_mode_everything_is_read_and_done_as_without_a_pooler(
    pooler: Pooler,
    embedded: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    table: Callable[..., str],
    done: Callable[..., Action],
) -> None:
    behind = pooler(pool_mode="session", ignore_startup_parameters="options")
    target, user = watch(behind, operator_user="operator"), person("dba")
    before = {login: shown(behind, login) for login in ("collector", "operator")}

    take_now(target)  # learns the databases
    read = take_now(target)
    checked = check.check(target, {"collector": embedded.password, "operator": embedded.password})
    rows = [
        done(user, target, "vacuum", table=table(embedded)),
        done(user, target, "vacuum_full", table=table(embedded)),
    ]

    assert {one.state for one in read} == {Snapshot.State.OK}, read
    assert [one["name"] for one in checked["probes"] if not one["works"]] == []
    assert [(row.state, row.outcome[:10]) for row in rows] == [
        ("succeeded", rows[0].outcome[:10]),
        ("succeeded", rows[1].outcome[:10]),
    ], [row.outcome for row in rows]
    assert {login: shown(behind, login) for login in before} == before


def test_in_session_mode_a_session_is_what_howdah_set(pooler: Pooler) -> None:
    behind = pooler(pool_mode="session", ignore_startup_parameters="options")

    with opened(behind) as session:
        found = [session.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS]  # type: ignore[index]

    assert found == ["5s", "500ms", "on", "UTC"]


@pytest.mark.parametrize("round_robin", ["0", "1"])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_pooler_that_takes_nothing_back_is_refused_and_gets_nothing_to_leak(
    pooler: Pooler, read_only: bool, round_robin: str
) -> None:
    behind = pooler(
        pool_mode="session",
        ignore_startup_parameters="options",
        server_reset_query="",
        server_round_robin=round_robin,
        min_pool_size="3",
    )
    user = "collector" if read_only else "operator"
    before = shown(behind, user)

    said = {refusal(behind, read_only=read_only) for _ in range(4)}

    assert said == {NO_RESET}
    assert "server_reset_query = DISCARD ALL" in NO_RESET
    assert len(NO_RESET) <= 300
    for _ in range(5):
        assert shown(behind, user) == before


@pytest.mark.django_db
def test_without_a_reset_the_check_each_probe_and_each_action_say_so(
    pooler: Pooler,
    embedded: Server,
    watch: Callable[..., Target],
    person: Callable[..., User],
    previewed: Callable[..., Action],
) -> None:
    behind = pooler(pool_mode="session", ignore_startup_parameters="options", server_reset_query="")
    target = watch(behind, operator_user="operator")

    with pytest.raises(check.CheckFailed) as caught:
        check.check(target, {"collector": embedded.password, "operator": embedded.password})
    read = take_now(target)
    preview = previewed(person("dba"), target, "vacuum", table="public.nowhere").preview

    assert str(caught.value) == NO_RESET
    assert {(one.state, one.error) for one in read} == {(Snapshot.State.UNREACHABLE, NO_RESET)}
    assert preview["refused"] == f"{target.name} could not be asked: {NO_RESET}"


@pytest.mark.parametrize(
    ("waits", "reason"),
    [({}, "The server did not answer within 2 s."), ({"query_wait_timeout": "1"}, NO_TURN)],
)
def test_a_pool_of_one_is_refused_and_not_waited_for(
    pooler: Pooler, waits: dict[str, str], reason: str
) -> None:
    settings = {"ignore_startup_parameters": "options", "default_pool_size": "1", **waits}
    behind = pooler(pool_mode="session", **settings)

    assert refusal(behind) == f"{NO_SECOND} {reason}"
    assert "a pool_size of at least 2" in NO_SECOND
    assert len(NO_SECOND) < 200
