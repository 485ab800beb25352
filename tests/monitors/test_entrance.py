"""Who is let in: what a server answers at its door, and what each refusal costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from django.utils import timezone

from dashboard.embedded import processes
from dashboard.embedded.postgres import Cluster
from dashboard.frame import states
from monitors.collect.sessions import SESSIONS
from monitors.models import Lease, ProbeState, Target
from monitors.pg.doors import read_doors
from monitors.targets import check
from monitors.targets.check import CheckFailed
from tests import servers
from tests.conftest import missing
from tests.leases import take_lease
from tests.servers import Server

pytestmark = [pytest.mark.django_db, pytest.mark.fleet]

Watch = Callable[..., Target]


@pytest.fixture(scope="module", params=servers.MAJORS, ids=str)
def door(request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, Server]]:
    """A server with TLS whose pg_hba.conf, roles and databases a test may change."""
    with servers.home() as folder:
        try:
            programs, settings = servers.fleet_programs(request.param), servers.certificate(folder)
        except servers.Missing as error:
            missing(str(error))
        cluster = Cluster(
            "door", folder / "door", programs, "secret-of-door", {**servers.SETTINGS, **settings}
        )
        cluster.initialized(cluster.initialize())
        cluster.start(processes.free_port())
        try:
            cluster.wait()
            servers.create_roles(cluster, request.param)
            yield cluster, Server(request.param, cluster.port, cluster.password, str(cluster.log))
        finally:
            cluster.stop()


@contextmanager
def rules(cluster: Cluster, *lines: str) -> Iterator[None]:
    """Let pg_hba.conf say nothing but these lines for a while."""
    path = Path(cluster.data) / "pg_hba.conf"
    before = path.read_text(encoding="utf-8")
    with cluster.connect() as session:

        def set_to(text: str) -> None:
            path.write_text(text, encoding="utf-8")
            loaded = session.execute("SELECT pg_conf_load_time()").fetchone()
            session.execute("SELECT pg_reload_conf()")
            processes.wait_until(
                lambda: session.execute("SELECT pg_conf_load_time()").fetchone() != loaded,
                seconds=10,
            )

        set_to("\n".join(lines) + "\n")
        try:
            yield
        finally:
            set_to(before)


def test_after_a_restart_everything_is_read_within_a_minute(
    door: tuple[Cluster, Server], watch: Watch
) -> None:
    cluster, server = door
    target = watch(server)
    for kind in (Lease.Kind.FAST, Lease.Kind.SLOW):
        take_lease(target, kind)
    cluster.stop()
    try:
        for _ in range(4):  # so that both leases are tried ever more rarely
            for kind in (Lease.Kind.SLOW, Lease.Kind.FAST):
                take_lease(target, kind)
    finally:
        cluster.start(server.port)
        cluster.wait()
    now = timezone.now()
    failed = ProbeState.objects.filter(target=target, state="unreachable")
    assert failed.count() == ProbeState.objects.filter(target=target).count()
    assert max(failed.values_list("due_at", flat=True)) <= now + timedelta(seconds=60)
    assert states.down(target) is not None

    take_lease(target, Lease.Kind.FAST)

    slow = Lease.objects.get(target=target, kind=Lease.Kind.SLOW)
    assert (slow.failures, slow.due_at <= timezone.now()) == (0, True)
    assert states.down(target) is None  # the tables' last attempt failed, the target answers
    take_lease(target, Lease.Kind.SLOW)
    assert not failed.exists()
    SESSIONS.forget(set())


def refusal(server: Server, watch: Watch, **fields: object) -> str:
    """Return what the check of a target says of the collector's login."""
    Target.objects.all().delete()
    with pytest.raises(CheckFailed) as caught:
        check.check(watch(server, **fields), {"collector": server.password})
    return str(caught.value)


def test_a_server_that_asks_for_tls_and_a_role_that_it_does_not_know_read_differently(
    door: tuple[Cluster, Server], watch: Watch
) -> None:
    cluster, server = door
    with rules(cluster, "hostssl all all 127.0.0.1/32 scram-sha-256"):
        without_tls = refusal(server, watch)
        unknown = refusal(server, watch, user="nobody_here", sslmode="require")
    with rules(cluster, "hostssl all collector 127.0.0.1/32 scram-sha-256"):
        not_listed = refusal(server, watch, user="nobody_here", sslmode="require")
        either = refusal(server, watch, user="nobody_here", sslmode="prefer")
    with rules(cluster, "host all all 127.0.0.1/32 reject"):
        rejected = refusal(server, watch)

    assert without_tls == (
        "The server's pg_hba.conf has no entry for this host, user and database without TLS, or"
        " rejects them: where it asks for TLS choose a stronger sslmode, else add the entry."
    )
    assert unknown == "Password authentication failed: check user and password."
    assert not_listed == either
    # One SQLSTATE and one place of the source for both; the words are in the server's language.
    assert either == (
        "The server's pg_hba.conf has no entry for this host, user and database, or rejects them."
    )
    assert rejected == without_tls


def test_the_limit_of_a_role_of_a_database_and_of_the_server_read_differently(
    door: tuple[Cluster, Server], watch: Watch
) -> None:
    _, server = door
    with server.connect() as setup, server.connect(user="owner"):
        setup.execute("ALTER ROLE owner CONNECTION LIMIT 1")
        setup.execute("ALTER DATABASE shop CONNECTION LIMIT 0")
        try:
            of_role = refusal(server, watch, user="owner")
            of_database = refusal(server, watch, dbname="shop")
            with server.connect(user="collector") as outside:
                doors = read_doors(outside).values()
            [before_the_door] = [door.reason for door in doors if door.datname == "shop"]
        finally:
            setup.execute("ALTER ROLE owner CONNECTION LIMIT -1")
            setup.execute("ALTER DATABASE shop CONNECTION LIMIT -1")
    taken: list[psycopg.Connection] = []
    try:
        with suppress(psycopg.OperationalError):
            while True:
                taken.append(server.connect(user="owner"))
        of_server = refusal(server, watch, user="owner")
    finally:
        for one in taken:
            one.close()

    assert of_role == (
        "The login's own CONNECTION LIMIT lets no further session in:"
        " ALTER ROLE owner CONNECTION LIMIT 5;"
    )
    assert of_database == before_the_door  # a snapshot and a check ask first, an action does not
    assert of_database == (
        "The database's own CONNECTION LIMIT lets no further session in:"
        " ALTER DATABASE shop CONNECTION LIMIT -1;"
    )
    assert of_server == "Too many connections: the server has no slot left for this login."


def test_a_database_that_takes_nobody_says_why_and_what_helps(
    door: tuple[Cluster, Server], watch: Watch
) -> None:
    _, server = door
    with server.connect() as setup:
        setup.execute("CREATE DATABASE half_dropped")
        setup.execute("CREATE DATABASE shut ALLOW_CONNECTIONS false")
        setup.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_dropped'")
        try:
            half_dropped = refusal(server, watch, dbname="half_dropped")
            shut = refusal(server, watch, dbname="shut")
        finally:
            setup.execute("DROP DATABASE half_dropped")
            setup.execute("DROP DATABASE shut")

    assert half_dropped == (
        "The database is invalid: its DROP was interrupted. Once more: DROP DATABASE half_dropped;"
    )
    assert shut == "The database takes no connections: ALTER DATABASE shut ALLOW_CONNECTIONS true;"
