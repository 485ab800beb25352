"""Wrong input: each mistake has its own sentence, on the page and at the command."""

from __future__ import annotations

import html
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from psycopg import sql

from dashboard.embedded import processes
from dashboard.embedded.postgres import Cluster
from monitors.acting import sweep
from monitors.acting.preview import preview_now
from monitors.collect import rounds
from monitors.models import Action, AuditEntry, Target, TargetCheck, TargetSecret
from monitors.targets import check, survey
from tests import peers, servers
from tests.conftest import missing
from tests.people import browser_of, person
from tests.servers import Server

pytestmark = pytest.mark.django_db

PASSWORD = "wrong-and-secret"
newest = pytest.mark.parametrize("server", [18], indirect=True, ids=str)


@dataclass(frozen=True)
class Bad:
    """What somebody typed, and what they are told."""

    sentence: str
    port: int
    host: str = "127.0.0.1"
    user: str = "collector"
    password: str = PASSWORD
    dbname: str = "postgres"
    sslmode: str = "disable"
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What a command printed and how it left."""

    status: int
    out: str
    err: str


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*words: object) -> Said:
        status = 0
        capsys.readouterr()
        try:
            call_command(*[str(word) for word in words])
        except SystemExit as left:
            status = int(left.code or 0)
        printed = capsys.readouterr()
        return Said(status, printed.out, printed.err)

    return run


@pytest.fixture
def admin() -> Client:
    return browser_of(person("admin", "admin"))


@pytest.fixture(scope="module")
def tls(fleet: Callable[[int], Server]) -> Iterator[tuple[int, str]]:
    """A server with a certificate that it signed itself, for db.example: (port, certificate)."""
    with servers.home() as folder:
        try:
            programs, settings = servers.fleet_programs(18), servers.certificate(folder)
        except servers.Missing as error:
            missing(str(error))
        cluster = Cluster(
            "tls", folder / "tls", programs, PASSWORD, {**servers.SETTINGS, **settings}
        )
        cluster.initialized(cluster.initialize())
        cluster.start(processes.free_port())
        try:
            cluster.wait()
            servers.create_roles(cluster, 18)
            yield cluster.port, settings["ssl_cert_file"]
        finally:
            cluster.stop()


@pytest.fixture
def roles(embedded: Server, worker_id: str) -> Iterator[dict[str, str]]:
    """A role that may not log in, one that may do nothing, and a database closed to all."""
    suffix = f"{worker_id}_{secrets.token_hex(3)}"
    names = {name: f"{name}_{suffix}" for name in ("asleep", "bare", "closed")}
    with embedded.connect() as connection:
        for name, login in (("asleep", "NOLOGIN"), ("bare", "LOGIN")):
            connection.execute(
                sql.SQL("CREATE ROLE {} {} PASSWORD {}").format(
                    sql.Identifier(names[name]), sql.SQL(login), embedded.password
                )
            )
        closed = sql.Identifier(names["closed"])
        connection.execute(sql.SQL("CREATE DATABASE {}").format(closed))
        connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(closed))
        yield names
        connection.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(closed))
        for name in ("asleep", "bare"):
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(names[name])))


@pytest.fixture
def peer() -> Iterator[Callable[[peers.Peer], int]]:
    """Keep a peer until the test ends: peer(peers.Peer()) -> port."""
    kept: list[peers.Peer] = []

    def keep(one: peers.Peer) -> int:
        kept.append(one)
        return one.port

    yield keep
    for one in kept:
        one.close()


Make = Callable[[pytest.FixtureRequest], Bad]


def at_server(sentence: str, **fields: Any) -> Make:
    """Return what makes a mistake at a server that works."""

    def make(request: pytest.FixtureRequest) -> Bad:
        embedded: Server = request.getfixturevalue("embedded")
        return Bad(sentence, **{"port": embedded.port, "password": embedded.password, **fields})

    return make


def at_peer(sentence: str, made: Callable[[], peers.Peer], **fields: Any) -> Make:
    """Return what connects to a peer that is no usable server."""

    def make(request: pytest.FixtureRequest) -> Bad:
        return Bad(sentence, port=request.getfixturevalue("peer")(made()), **fields)

    return make


def as_role(sentence: str, *, user: str = "", dbname: str = "") -> Make:
    """Return what logs in as a role, or to a database, that lacks a right; the sentence names it."""

    def make(request: pytest.FixtureRequest) -> Bad:
        names = request.getfixturevalue("roles")
        fields = {"user": names[user]} if user else {"dbname": names[dbname]}
        return at_server(sentence.format(**names), **fields)(request)

    return make


def at_tls(sentence: str, *, sslmode: str, trusted: bool) -> Make:
    """Return what connects to a server whose certificate is not for it."""

    def make(request: pytest.FixtureRequest) -> Bad:
        port, certificate = request.getfixturevalue("tls")
        named = {"HOWDAH_SSL_ROOT_CERT": certificate} if trusted else {}
        return Bad(sentence, port=port, sslmode=sslmode, environment=named)

    return make


def at_broker(request: pytest.FixtureRequest) -> Bad:
    """Return what takes a real server of another kind for a PostgreSQL: it waits for more."""
    port = urlsplit(request.getfixturevalue("broker_url")).port
    assert port is not None
    return Bad(SILENT, port=port)


NO_POSTGRES = "What answers there does not speak PostgreSQL's protocol."
SILENT = "No answer within the time limit: check address and firewall."
HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
MISTAKES: dict[str, Make] = {
    "host": at_server("The host name does not resolve.", host="nowhere.invalid"),
    "port": at_server("Connection refused: no server listens there.", port=1),
    "user": at_server(
        "Password authentication failed: check user and password.", user="nobody-of-that-name"
    ),
    "password": at_server(
        "Password authentication failed: check user and password.", password=PASSWORD
    ),
    "no password": at_server("The server asks for a password and none is stored.", password=""),
    "database": at_server("The database does not exist on the server.", dbname="nowhere"),
    "no TLS": at_server(
        "The server does not offer TLS: enable it there, or choose a weaker sslmode.",
        sslmode="require",
    ),
    "certificate of nobody": at_tls(
        "The server's certificate is not trusted: give its root certificate, or check sslmode.",
        sslmode="verify-full",
        trusted=False,
    ),
    "certificate of another": at_tls(
        "The server's certificate is for another host name.", sslmode="verify-full", trusted=True
    ),
    "other server": at_broker,
    "web server": at_peer(NO_POSTGRES, lambda: peers.Talking(HTTP)),
    "web server, with TLS": at_peer(
        NO_POSTGRES, lambda: peers.Talking(HTTP), sslmode="verify-full"
    ),
    "closes": at_peer("The server closed the connection.", peers.Resetting),
    "too old": at_peer(
        "PostgreSQL 13 is too old: 14 is the oldest that is read.",
        lambda: peers.Imitation("13.14"),
    ),
    "hangs at once": at_peer(SILENT, peers.Peer),
    "hangs later": at_peer(
        "The server did not answer within 1 s.", lambda: peers.Imitation("18.1")
    ),
    "may not log in": as_role(
        "The role may not log in, or does not exist: ALTER ROLE {asleep} LOGIN;"
        " or CREATE ROLE {asleep} LOGIN;",
        user="asleep",
    ),
    "may not connect": as_role(
        "The login may not connect to this database: GRANT CONNECT ON DATABASE {closed} TO collector;",
        dbname="closed",
    ),
}


@pytest.fixture(params=MISTAKES.values(), ids=list(MISTAKES))
def bad(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bad:
    """Each mistake in turn."""
    made: Bad = request.param(request)
    monkeypatch.setattr(survey, "SECONDS", 1.0)
    monkeypatch.delenv("HOWDAH_SSL_ROOT_CERT", raising=False)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def nothing_is_left() -> None:
    """Nothing was registered, no password is kept, and none stands in the audit."""
    assert Target.objects.count() == 0
    assert TargetSecret.objects.count() == 0
    assert not any(any(row.sealed.values()) for row in TargetCheck.objects.all())
    assert not AuditEntry.objects.filter(what="target.add").exists()
    assert PASSWORD not in str(list(AuditEntry.objects.values()))


def test_the_command_says_it_in_one_line_and_saves_nothing(
    bad: Bad, said: Callable[..., Said], tmp_path: Path
) -> None:
    login = ["--user", bad.user]
    if bad.password:
        (tmp_path / "password").write_text(bad.password + "\n", encoding="utf-8")
        login += ["--password-file", str(tmp_path / "password")]

    result = said(
        "target", "add", "orders", "--host", bad.host, "--port", bad.port, *login,
        "--database", bad.dbname, "--sslmode", bad.sslmode, "--environment", "development",
    )  # fmt: skip

    assert result.status == 1
    assert result.err == (
        f"{bad.host}: {bad.sentence} Nothing was saved; --no-check saves it unseen.\n"
    )
    assert result.out == ""
    assert TargetCheck.objects.count() == 0
    nothing_is_left()


def test_the_wizard_says_it_and_saves_nothing(bad: Bad, admin: Client) -> None:
    answer = admin.post(
        "/targets/new/",
        {
            "name": "orders",
            "environment": "development",
            "host": bad.host,
            "port": str(bad.port),
            "dbname": bad.dbname,
            "sslmode": bad.sslmode,
            "require_auth": "",
            "user": bad.user,
            "password": bad.password,
            "operator": "none",
        },
    )
    row = TargetCheck.objects.get()
    assert answer["Location"] == f"/targets/check/{row.pk}/"

    check.carry_out(str(row.pk))
    page = admin.get(answer["Location"]).content.decode()

    row.refresh_from_db()
    assert row.error == bad.sentence
    assert f"<p>{html.escape(bad.sentence)}</p>" in page
    assert "The connection failed" in page
    if bad.password:
        assert bad.password not in page
    nothing_is_left()
    # The answer itself is kept for a day, for the page.
    TargetCheck.objects.update(asked_at=timezone.now() - timedelta(days=1, seconds=1))
    sweep.tidy()
    assert TargetCheck.objects.count() == 0


def test_the_same_server_is_taken_where_its_certificate_is_trusted(
    tls: tuple[int, str], said: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is the certificate alone that the others fail for."""
    port, certificate = tls
    monkeypatch.setenv("HOWDAH_SSL_ROOT_CERT", certificate)
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")

    result = said(
        "target", "add", "orders", "--host", "127.0.0.1", "--port", port, "--user", "collector",
        "--password-file", tmp_path / "password", "--sslmode", "verify-ca",
        "--environment", "development",
    )  # fmt: skip

    assert result.status == 0, result.err
    assert Target.objects.get().sslmode == "verify-ca"


TYPED: dict[str, tuple[dict[str, str], int, str, str]] = {
    # field and value, the command's status and words, the page's words
    "taken name": ({"name": "taken"}, 1, "There is a target taken already", "exists already"),
    "bad name": ({"name": "Orders 1"}, 2, "lower-case", "lower-case"),
    "reserved name": ({"name": "new"}, 2, "Choose another", "Choose another name"),
    "path": ({"host": "/var/run/postgresql"}, 2, "one host name", "one host name"),
    "list": ({"host": "a,b"}, 2, "one host name", "one host name"),
    "metadata": ({"host": "169.254.169.254"}, 2, "metadata service", "metadata service"),
    "port": ({"port": "70000"}, 2, "65535", "65535"),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPED)
def test_what_can_not_be_is_told_before_anybody_connects(
    name: str, admin: Client, said: Callable[..., Said], watch: Callable[..., Target],
    embedded: Server,
) -> None:  # fmt: skip
    fields, status, command_says, page_says = TYPED[name]
    watch(embedded, name="taken")
    typed = {"name": "orders", "host": "127.0.0.1", "port": "1", **fields}

    result = said(
        "target", "add", typed["name"], "--host", typed["host"], "--port", typed["port"],
        "--user", "collector", "--environment", "development",
    )  # fmt: skip
    answer = admin.post(
        "/targets/new/",
        {
            **typed,
            "environment": "development",
            "dbname": "postgres",
            "user": "collector",
            "password": PASSWORD,
            "operator": "none",
        },
    )

    assert result.status == status
    assert result.err.count("\n") == 1
    assert command_says in result.err
    page = answer.content.decode()
    assert answer.status_code == 400
    assert page_says in page
    assert PASSWORD not in page
    assert TargetCheck.objects.count() == 0
    assert [target.name for target in Target.objects.all()] == ["taken"]
    assert TargetSecret.objects.count() == 1


def words_of(page: str) -> str:
    """Return a page's text without its marks."""
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def test_a_role_without_rights_is_told_what_it_lacks(
    embedded: Server,
    roles: dict[str, str],
    admin: Client,
    said: Callable[..., Said],
    tmp_path: Path,
) -> None:
    """It can connect, so it may be saved: each thing that does not work names its statement."""
    grant = f"GRANT pg_monitor TO {roles['bare']};"
    (tmp_path / "password").write_text(embedded.password, encoding="utf-8")
    asked = admin.post(
        "/targets/new/",
        {
            "name": "bare",
            "environment": "development",
            "host": embedded.host,
            "port": str(embedded.port),
            "dbname": "postgres",
            "user": roles["bare"],
            "password": embedded.password,
            "operator": "none",
        },
    )
    check.carry_out(str(TargetCheck.objects.get().pk))

    page = words_of(admin.get(asked["Location"]).content.decode())
    result = said(
        "target", "add", "orders", "--host", embedded.host, "--port", embedded.port,
        "--user", roles["bare"], "--password-file", tmp_path / "password",
        "--environment", "development",
    )  # fmt: skip

    assert grant in page
    assert "do not work yet" in page
    assert f"activity: needs: {grant}" in result.out
    assert result.status == 0


@newest
def test_a_table_that_is_gone_is_told_on_page_and_command(
    server: Server,
    watch: Callable[..., Target],
    table: Callable[..., str],
    said: Callable[..., Said],
) -> None:
    target = watch(server, operator_user="operator")
    user = person("dba-1", "dba")
    browser = browser_of(user)
    where = table(server)
    with server.connect(dbname="shop") as connection:
        row = connection.execute(
            "SELECT %s::regclass::oid, d.oid FROM pg_database AS d WHERE d.datname = 'shop'",
            [where],
        ).fetchone()
        assert row is not None
        relid, datid = row
        rounds.take_now(target, ["databases", "tables"])
        url = f"/targets/shop-1/databases/{datid}/tables/{relid}/"
        assert browser.get(url).status_code == 200
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(*where.split("."))))
    rounds.take_now(target, ["tables"])

    page = browser.get(url).content.decode()
    asked = browser.post("/targets/shop-1/actions/vacuum/", {"database": "shop", "relid": relid})
    draft = Action.objects.get()
    preview_now(str(draft.pk))
    preview = browser.get(asked["Location"]).content.decode()
    result = said(
        "act", "vacuum", "--target", "shop-1", "--as", "dba-1", "--wait",
        "--arg", "database=shop", "--arg", f"relid={relid}",
    )  # fmt: skip

    assert "gone" in page
    sentence = f"There is no table with oid {relid} in shop"
    assert sentence in preview
    assert "Nothing is sent" in preview
    assert result.status == 4
    assert sentence in result.err
    assert set(Action.objects.values_list("state", flat=True)) == {"draft"}
