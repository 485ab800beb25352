"""Servers before Django, sessions beside it, and what a missing peer means."""

from __future__ import annotations

import base64
import operator
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from nacl.public import PrivateKey

from dashboard.embedded.databases import HISTORY_SETTINGS
from dashboard.embedded.postgres import embedded_programs
from dashboard.embedded.processes import ROOT
from tests import german, poolers, servers
from tests.servers import Blocked, Server

SERVERS = "HOWDAH_TEST_SERVERS"
"""Environment variable that says where this process's servers are."""
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
"""One of several processes that share the work: each has servers of its own, or one's
resets and databases would stand in another's way."""
EMBEDDED_MAJOR = 18
COMPARE = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
EVERYTHING_ON_19 = "HOWDAH_TEST_EVERYTHING_ON_19"
"""Environment variable that runs every test of `server` on 19 too, not only those of servers.ALSO_ON_19."""
stack = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers once a run, then let Django read its settings."""
    if config.getoption("help") or config.getoption("version"):
        return
    if SERVERS not in os.environ or IS_WORKER:
        start_servers()
    server, broker = servers.load(os.environ[SERVERS])
    for name in ("MIGRATE_DATABASE_URL", "HOWDAH_MIGRATE", "HOWDAH_APP_ROLE", "HOWDAH_TLS"):
        os.environ.pop(name, None)
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "dashboard.settings",
        "DATABASE_URL": server.superuser_dsn.removesuffix("/postgres") + "/howdah",
        "REDIS_URL": broker,
        "HOWDAH_PREFIX": f"test-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}",
        "HOWDAH_ALLOW_LOOPBACK_TARGETS": "true",
        "HOWDAH_NO_ADOPT": "1",
        "STATICFILES_STORAGE": "django.contrib.staticfiles.storage.StaticFilesStorage",
        "DJANGO_ALLOW_ASYNC_UNSAFE": "true",  # playwright's sync API has an event loop
    }
    import django  # noqa: PLC0415 - after its environment is set
    from django.conf import settings  # noqa: PLC0415

    # Nothing is collected in a fresh checkout, and WhiteNoise warns of a missing folder.
    settings.STATIC_ROOT = settings.STATICFILES_DIRS[0]
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    django.setup()
    if config.getoption("numprocesses", None) and not IS_WORKER:
        # A worker that inherits this would read settings before it has servers of its own.
        del os.environ["DJANGO_SETTINGS_MODULE"]


def start_servers() -> None:
    """Start PostgreSQL and Valkey and say to later processes where they are."""
    folder = stack.enter_context(servers.home())
    programs = embedded_programs()
    # It holds our history too, so it has what bin/up gives that server.
    like_history = {name: HISTORY_SETTINGS[name] for name in ("shared_buffers", "jit")}
    server = stack.enter_context(servers.running(EMBEDDED_MAJOR, programs, folder, **like_history))
    broker = stack.enter_context(servers.broker(folder))
    key = PrivateKey.generate()
    os.environ |= {
        SERVERS: servers.dump(server, broker),
        "SECRET_KEY": secrets.token_urlsafe(40),
        "HOWDAH_PRIVATE_KEY": base64.b64encode(bytes(key)).decode(),
        "HOWDAH_PUBLIC_KEY": base64.b64encode(bytes(key.public_key)).decode(),
    }
    stack.callback(os.environ.pop, SERVERS, None)


def pytest_unconfigure() -> None:
    """Stop what this process started, and close what the product keeps open to targets."""
    if "monitors.collect.sessions" in sys.modules:
        from monitors.acting.connections import HANDS  # noqa: PLC0415 - after django.setup()
        from monitors.collect.sessions import SESSIONS  # noqa: PLC0415

        SESSIONS.forget(keep=set())
        HANDS.close()
    stack.close()


def pytest_report_header() -> str | None:
    """Name the servers of this run."""
    if SERVERS not in os.environ:
        return None
    server, _ = servers.load(os.environ[SERVERS])
    with server.connect() as connection:
        version = connection.info.parameter_status("server_version")
    try:
        newest = f"19 in {servers.fleet_programs(servers.PREPARED)}"
    except servers.Missing as error:
        newest = f"NOT on 19: {error}"
    return f"PostgreSQL {version}, fleet 14 to 18, {newest}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out benchmarks, and on 19 all but the parts that talk to it, unless asked for."""
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        bench = "bench" not in config.option.markexpr and item.get_closest_marker("bench")
        newest = major_of(item) == servers.PREPARED and not runs_on_19(item)
        (left_out if bench or newest else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


def major_of(item: pytest.Item) -> int:
    """Return the major version of a test's server."""
    callspec = getattr(item, "callspec", None)
    major: int = callspec.params.get("server", EMBEDDED_MAJOR) if callspec else EMBEDDED_MAJOR
    return major


def runs_on_19(item: pytest.Item) -> bool:
    """Tell whether a test of `server` runs on 19 in every run; `pg(">=19")` says so itself."""
    path = item.path.relative_to(ROOT / "tests").as_posix()
    needs = any("19" in marker.args[0] for marker in item.iter_markers("pg"))
    return path.startswith(servers.ALSO_ON_19) or needs or EVERYTHING_ON_19 in os.environ


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the server's version does not have."""
    major = major_of(item)
    for marker in item.iter_markers("pg"):
        found = re.fullmatch(r"\s*([<>=!]=?)\s*(\d+)\s*", marker.args[0])
        assert found, f"pg({marker.args[0]!r}) is no comparison with a major version"
        if not COMPARE[found[1]](major, int(found[2])):
            pytest.skip(f"needs PostgreSQL {marker.args[0]}, this is {major}")


def missing(reason: str) -> None:
    """A peer is missing: a failure in CI, which must have all, else a skip."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def worker_id() -> str:
    """`main`, or the name of the xdist worker; part of every server-wide object's name."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


@pytest.fixture(scope="session")
def embedded() -> Server:
    """The embedded PostgreSQL, which holds Django's test database too."""
    return servers.load(os.environ[SERVERS])[0]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """The test database; what its migrations filled in outlives tests that empty all tables."""
    from django.db import connection  # noqa: PLC0415 - Django is set up by now
    from django.db.models.signals import post_migrate  # noqa: PLC0415
    from django.utils import timezone  # noqa: PLC0415

    from monitors.history import partitions  # noqa: PLC0415
    from monitors.models import Environment  # noqa: PLC0415

    with django_db_blocker.unblock():
        made = list(Environment.objects.all())
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE monitors_auditentry DISABLE TRIGGER audit_not_emptied")
        # Shortly after midnight what tests keep as read an hour ago is of the day before.
        for table in partitions.partitioned_tables():
            partitions.ensure_partition(table, timezone.now() - timedelta(days=1))

    def fill_in(**_: Any) -> None:
        """Django sends this after it has emptied the tables."""
        Environment.objects.bulk_create(made, ignore_conflicts=True)

    post_migrate.connect(fill_in, weak=False)


@pytest.fixture(scope="session")
def broker_url() -> str:
    """Where the Valkey of this run is."""
    return servers.load(os.environ[SERVERS])[1]


@pytest.fixture(scope="session")
def fleet() -> Iterator[Callable[[int], Server]]:
    """A function from a major version to its server, started at its first use."""
    started: dict[int, Server] = {}
    with ExitStack() as running:
        folder = running.enter_context(servers.home())

        def get(major: int) -> Server:
            if major not in started:
                programs = servers.fleet_programs(major)
                spoken = running.enter_context(german.spoken(folder)) if german.WANTED else {}
                started[major] = running.enter_context(
                    servers.running(major, programs, folder, **spoken)
                )
            return started[major]

        yield get


@pytest.fixture(params=(*servers.MAJORS, servers.PREPARED), ids=str)
def server(request: pytest.FixtureRequest, fleet: Callable[[int], Server]) -> Server:
    """Each major version's server in turn; 19 where it was prepared, since Debian's suites move."""
    try:
        return fleet(request.param)
    except servers.Missing as error:
        if request.param == servers.PREPARED:
            pytest.skip(str(error))
        missing(str(error))
        raise


@pytest.fixture(autouse=True)
def shop_is_empty_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test finds another one's tables in the database `shop`, whatever the order is."""
    names = {"server", "embedded"}.intersection(request.fixturenames)
    used: list[Server] = [request.getfixturevalue(name) for name in names]
    yield
    for server in used:
        servers.empty_shop(server)


Live = Callable[..., psycopg.Connection[Any]]


@pytest.fixture
def live() -> Iterator[Live]:
    """Open sessions outside Django's transaction: live(server, user=…, dbname=…)."""
    connections: list[psycopg.Connection[Any]] = []

    def connect(server: Server, **options: Any) -> psycopg.Connection[Any]:
        connections.append(server.connect(**options))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()


@pytest.fixture(params=poolers.VERSIONS)
def pooler(request: pytest.FixtureRequest, embedded: Server) -> Iterator[Callable[..., Server]]:
    """Start a pooler before the embedded server: pooler(pool_mode="session", …); of each version."""
    try:
        program = poolers.program(request.param)
    except servers.Missing as error:
        if request.param != "installed":
            pytest.skip(str(error))
        missing(str(error))
        raise
    with ExitStack() as running:

        def start(**settings: str) -> Server:
            folder = running.enter_context(servers.home())
            return running.enter_context(
                poolers.pooling(program, folder, embedded, poolers.LOGINS, **settings)
            )

        yield start


@pytest.fixture
def crowd(live: Live, embedded: Server) -> Iterator[Callable[..., list[psycopg.Connection[Any]]]]:
    """Let clients of a pooler run a statement, each for itself: crowd(pooler, 6) -> sessions."""

    def start(
        pooler: Server, clients: int, text: str = "SELECT pg_sleep(60)", **options: Any
    ) -> list[psycopg.Connection[Any]]:
        given = {"user": "owner", "dbname": "shop", **options}
        sessions = [live(pooler, **given) for _ in range(clients)]
        for session in sessions:  # nobody waits for an answer, so no thread is needed
            session.pgconn.send_query(text.encode())
            session.pgconn.flush()
        return sessions

    yield start
    with embedded.connect() as superuser:  # a backend sleeps on when its pooler is gone
        superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = 'shop' AND usename = 'owner'"
        )


@pytest.fixture
def watch_pooler(watch: Callable[..., Any]) -> Callable[..., Any]:
    """Register a pooler whose console the collector may see and the operator may use."""

    def register(pooler: Server, **fields: Any) -> Any:
        return watch(pooler, **{"name": "pool-1", "kind": "pgbouncer", "include": [], **fields})

    return register


@pytest.fixture
def blocked(worker_id: str) -> Iterator[Callable[..., Blocked]]:
    """Make one session wait for another, in the database `shop`: blocked(server)."""
    with ExitStack() as sessions:

        def block(server: Server, **options: Any) -> Blocked:
            return sessions.enter_context(servers.blocking(server, worker_id, **options))

        yield block


@pytest.fixture
def plain_bytes(embedded: Server) -> Iterator[str]:
    """A database without an encoding; what ran in it is forgotten with it.

    One statement in foreign bytes keeps pg_stat_statements from giving out any
    text of the whole server, so none may be left for the tests that follow.
    """
    name = "plain_bytes"
    with embedded.connect() as setup:
        setup.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        setup.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    yield name
    with embedded.connect(dbname="shop") as cleanup:
        cleanup.execute(
            "SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = %s",
            [name],
        )
        cleanup.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """How pytest-playwright starts a browser: the machine's own, which asks nobody for anything."""
    program = servers.chromium()
    if program is None:
        missing("No browser: install chromium, or name one with CHROMIUM=…")
    return {**browser_type_launch_args, "executable_path": program, "args": servers.BROWSER_FLAGS}


@pytest.fixture(scope="session")
def axe() -> str:
    """The script that finds what a person with a screen reader can't use."""
    path = ROOT / ".cache" / "axe.min.js"
    if not path.exists():
        missing("axe-core was not fetched: run bin/test once.")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Poll until a condition holds: eventually(lambda: …, seconds=10)."""

    def wait(condition: Callable[[], object], *, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.02)

    return wait


@pytest.fixture
def watch() -> Callable[..., Any]:
    """Register a server: watch(server, name=…, user=…, operator_user=…) -> Target."""
    from monitors.models import Environment, Target, TargetSecret  # noqa: PLC0415
    from monitors.targets import secrets as sealed_box  # noqa: PLC0415

    def register(server: Server, *, name: str = "shop-1", **fields: Any) -> Target:
        environment, _ = Environment.objects.get_or_create(name=fields.pop("env", "development"))
        options = {"user": "collector", "sslmode": "disable", "include": ["shop"], **fields}
        target = Target.objects.create(
            name=name, host=server.host, port=server.port, environment=environment, **options
        )
        logins = {"collector": target.user, "operator": target.operator_user}
        for login, user in logins.items():
            if user:
                sealed, key_id = sealed_box.seal_password(
                    server.password, target.host, target.port, user
                )
                TargetSecret.objects.create(
                    target=target, login=login, sealed=sealed, key_id=key_id
                )
        return target

    return register
