"""A pair of real servers: the standby is read, left alone, and acted on once it is promoted."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from django.core.management import call_command
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from dashboard.embedded import processes
from dashboard.embedded.postgres import Cluster
from monitors.acting import ask, perform, preview
from monitors.action import Refused
from monitors.collect.rounds import take_now
from monitors.findings import judge, keep, unknowns
from monitors.findings.verdict import tell_verdict
from monitors.history.latest import read_latest
from monitors.history.marks import read_marks
from monitors.history.window import Window
from monitors.models import HISTORY, Action, FindingRecord, Snapshot, Target
from monitors.rows.locks import read_locks
from tests import servers
from tests.conftest import missing
from tests.servers import Server

pytestmark = pytest.mark.django_db

BACKUP = {
    14: ("SELECT pg_start_backup('standby', true, false)", "SELECT * FROM pg_stop_backup(false)"),
    15: ("SELECT pg_backup_start('standby', true)", "SELECT * FROM pg_backup_stop()"),
}
Register = Callable[..., Target]


def give(folder: Path) -> None:
    """Let the account that runs the servers own a folder and what is in it."""
    account = processes.unprivileged()
    if account is None:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def base_backup(primary: Server, data: Path, copied: Path) -> None:
    """Copy a running server's data as pg_basebackup does, which these builds come without."""
    start, stop = BACKUP[14 if primary.major == 14 else 15]
    with primary.connect() as session:
        session.execute(start)
        shutil.copytree(data, copied, ignore=shutil.ignore_patterns("postmaster.*"))
        row = session.execute(stop).fetchone()
    assert row is not None
    (copied / "backup_label").write_text(row[1], encoding="utf-8")
    (copied / "standby.signal").touch()


@contextmanager
def standby_of(primary: Server, home: Path) -> Iterator[Server]:
    """Run a streaming standby of a server that lives below a folder."""
    login = f"user=postgres password={primary.password}"
    source = f"host={primary.host} port={primary.port} {login}"
    cluster = Cluster(
        name="standby",
        folder=home / "standby",
        programs=servers.fleet_programs(primary.major),
        password=primary.password,
        settings={**servers.SETTINGS, "primary_conninfo": source},
    )
    cluster.folder.mkdir(mode=0o700)
    base_backup(primary, home / f"postgres-{primary.major}" / "data", cluster.data)
    give(cluster.folder)
    cluster.start(processes.free_port())
    try:
        cluster.wait()
        yield Server(primary.major, cluster.port, primary.password, str(cluster.log))
    finally:
        cluster.stop()


@pytest.fixture(params=[14, 15, 16, 17, 18], ids=str)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    """A primary and its standby; the table `stock` has 500 rows and 500 dead ones."""
    try:
        programs = servers.fleet_programs(request.param)
    except servers.Missing as error:
        missing(str(error))
        raise
    with servers.home() as home, servers.running(request.param, programs, home) as primary:
        with primary.connect(user="owner", dbname="shop") as owner:
            owner.execute("CREATE TABLE stock (id bigint) WITH (autovacuum_enabled = off)")
            owner.execute("INSERT INTO stock SELECT generate_series(1, 1000)")
            owner.execute("DELETE FROM stock WHERE id > 500")
        with standby_of(primary, home) as standby:
            yield primary, standby


def one(server: Server, query: str) -> Any:
    with server.connect(dbname="shop") as session:
        row = session.execute(query).fetchone()
    return row and row[0]


def kinds_of_marks(target: Target) -> set[str]:
    now = timezone.now() + timedelta(seconds=1)
    return {mark["kind"] for mark in read_marks(target.pk, Window.last("1h", now))}


def browser(user: Any) -> Client:
    """Return a browser in which somebody has logged in."""
    client = Client()
    client.force_login(user)
    return client


def test_what_the_primary_alone_knows_is_not_told_of_a_standby(
    pair: tuple[Server, Server], watch: Register, person: Callable[..., Any], eventually: Any
) -> None:
    primary, standby = pair
    with primary.connect() as superuser:
        superuser.execute("ALTER SYSTEM SET autovacuum = off")
        superuser.execute("SELECT pg_reload_conf()")
    with standby.connect() as superuser:
        superuser.execute("ALTER SYSTEM SET autovacuum = off")
        superuser.execute("SELECT pg_reload_conf()")
    eventually(lambda: one(standby, "SHOW autovacuum") == one(primary, "SHOW autovacuum") == "off")
    read, copy = watch(primary, name="shop-1"), watch(standby, name="shop-standby")
    probes = ["activity", "sessions", "databases", "tables", "settings"]
    assert {result.state for one_of in (read, copy) for result in take_now(one_of, probes)} == {
        "ok"
    }
    read, copy = Target.objects.get(pk=read.pk), Target.objects.get(pk=copy.pk)

    assert "autovacuum_disabled" in {one.advisor for one in judge.find(read)}
    assert {one.advisor for one in judge.find(copy)} <= {"fsync_off"}
    keep.keep(copy.pk, set(probes))
    assert not FindingRecord.objects.filter(target=copy, advisor="autovacuum_disabled").exists()
    said = tell_verdict(copy, [], page="vacuum")
    assert (said.level, said.text) == ("unknown", unknowns.STANDBY)
    assert "no table is due" not in tell_verdict(copy, []).text

    client = browser(person("viewer"))
    for page in ("vacuum", "vacuum-queue"):
        text = client.get(reverse(page, args=[copy.name])).content.decode()
        assert "Not known on a standby" in text, page
        assert f'href="{reverse(page, args=[read.name])}"' in text, page
        assert "Good." not in text, page
        assert "Not known on a standby" not in (
            client.get(reverse(page, args=[read.name])).content.decode()
        )
    address = reverse("vacuum", args=[copy.name]) + "?filter=all&format=json"
    [row] = json.loads(body_of(client.get(address)))
    assert (row["relname"], row["n_dead_tup"], row["n_live_tup"]) == ("stock", None, None)
    assert row["xid_age"] is not None
    fleet = json.loads(body_of(client.get(reverse("fleet") + "?format=json")))
    assert {line["name"]: line["n_dead_tup"] for line in fleet}["shop-standby"] is None
    assert {line["name"]: line["n_dead_tup"] for line in fleet}["shop-1"] >= 500

    Target.objects.filter(pk=read.pk).delete()
    text = client.get(reverse("vacuum", args=[copy.name])).content.decode()
    assert "Register its primary" in text


DASH = "\N{EN DASH}"
NOT_HERE = "Not known on a standby"
ON_STANDBY = [
    # page of the standby, what it says, what it must not say
    ("horizon/", NOT_HERE, ["Vacuum could then remove every dead row", "No holder"]),
    ("vacuum/", f"Need vacuum {DASH}", ["Nothing held the horizon back", "Need vacuum 0"]),
    (
        "vacuum/",
        f"Due now {DASH}",
        ["All 0 due", "workers busy", "Nothing is vacuumed", "None ran"],
    ),
    ("vacuum/", "Autovacuum off 1", [">never<"]),
    ("vacuum/?filter=due", "stock", ["No table is due"]),
    ("vacuum/?filter=off", "autovacuum off</span>", ["Autovacuum is on for every table"]),
    ("vacuum/runs/", NOT_HERE, ["None ran in this window", "All 0<"]),
    ("vacuum/queue/", NOT_HERE, ["workers busy", "Nothing is vacuumed", "Workers over time"]),
    ("table", f"Score {DASH}", ["Score 0.00", "None ran", ">never<", "0 in this window"]),
    ("table", "the counters of tables are not replicated", ["is not due"]),
    ("what-if", "Ask for the table on its primary", ["Vacuums a day</dt>"]),
    ("wraparound/", unknowns.FORCED_ELSEWHERE, ["o forced vacuum is known to be near", ">never<"]),
    ("settings/?table=advice", "", ["No setting is off. Good."]),
    ("findings/", unknowns.STANDBY, []),
    ("", unknowns.STANDBY, ["no table is due"]),
]


def test_no_page_of_a_standby_calls_well_or_zero_what_the_primary_alone_knows(
    pair: tuple[Server, Server], watch: Register, person: Callable[..., Any], live: Any
) -> None:
    primary, standby = pair
    opened = live(primary, user="owner", dbname="shop")
    opened.execute("BEGIN")
    opened.execute("INSERT INTO stock VALUES (0)")
    with primary.connect(user="owner", dbname="shop") as owner:
        owner.execute("INSERT INTO stock VALUES (1)")  # a younger transaction: the other one holds
    read, copy = watch(primary, name="shop-1"), watch(standby, name="shop-standby")
    for target in (read, copy):
        take_now(target)
    [row] = read_latest("tables", copy.pk, key={"relname": "stock"})
    datid = copy.databases_by_id[row["database_id"]].datid
    addresses = {
        name: reverse(view, args=[copy.name, datid, row["relid"]])
        for name, view in (("table", "table"), ("what-if", "table-what-if"))
    }
    client = browser(person("viewer"))

    wrong = []
    for page, says, never in ON_STANDBY:
        address = addresses.get(page, f"/targets/{copy.name}/{page}")
        text = client.get(address).content.decode()
        wrong += [(page, "lacks", says)] if says not in text else []
        wrong += [(page, "has", words) for words in never if words in text]
    assert wrong == []
    for page in ("horizon", "vacuum-queue", "vacuum-runs", "wraparound"):
        text = client.get(reverse(page, args=[copy.name])).content.decode()
        assert f'href="{reverse(page, args=[read.name])}"' in text, page
        assert "Good." not in text, page
    held = client.get(reverse("horizon", args=[read.name])).content.decode()
    assert f"Backend {opened.info.backend_pid} " in held
    for chosen in ("", "&filter=due"):  # nothing is left out by counts that are not known
        address = reverse("vacuum", args=[copy.name]) + f"?format=json{chosen}"
        [line] = json.loads(body_of(client.get(address)))
        assert (line["relname"], line["n_dead_tup"], line["threshold_pct"]) == ("stock", None, None)
    for page in ("vacuum", "wraparound"):
        said = tell_verdict(Target.objects.get(pk=copy.pk), [], page=page, at=timezone.now())
        assert said.level == "unknown", (page, said)


def test_commands_about_a_standby_leave_to_the_primary_what_it_alone_knows(
    pair: tuple[Server, Server], watch: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    _, standby = pair
    copy = watch(standby, name="shop-standby")
    take_now(copy)
    FindingRecord.objects.filter(target=copy).delete()

    def said(*words: str) -> str:
        call_command(*words)
        return capsys.readouterr().out

    text = said("autovacuum", copy.name)
    assert unknowns.STANDBY in text
    assert not [words for words in ("Due: 0", "Running: 0", "Workers: 0") if words in text]
    told = json.loads(said("autovacuum", copy.name, "--json"))
    assert (told["workers"]["busy"], told["left"]) == (None, None)
    text = said("finding", "list", "--target", copy.name)
    assert unknowns.STANDBY in text
    assert "Good." not in text
    with pytest.raises(SystemExit):
        call_command("simulate", copy.name, "--database", "shop", "--table", "public.stock")
    assert "not known on a standby" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("feedback", "scope", "keeps"),
    [
        ("on", "every database", "By hot_standby_feedback the primary keeps dead rows of every"),
        ("off", "nothing", "since hot_standby_feedback is off"),
    ],
)
def test_a_query_of_a_standby_says_what_it_keeps_the_primary_from(  # noqa: PLR0917 - fixtures
    pair: tuple[Server, Server],
    watch: Register,
    person: Callable[..., Any],
    live: Any,
    eventually: Callable[..., None],
    feedback: str,
    scope: str,
    keeps: str,
) -> None:
    primary, standby = pair
    with standby.connect() as superuser:
        superuser.execute(f"ALTER SYSTEM SET hot_standby_feedback = {feedback}")
        superuser.execute("SELECT pg_reload_conf()")
    eventually(lambda: one(standby, "SHOW hot_standby_feedback") == feedback)
    reader = live(standby, user="owner", dbname="shop")
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT count(*) FROM stock")
    with primary.connect(user="owner", dbname="shop") as owner:
        owner.execute("INSERT INTO stock VALUES (0)")
    eventually(lambda: one(standby, "SELECT count(*) FROM stock") == 501)
    copy = watch(standby, name="shop-standby")
    take_now(copy)

    client = browser(person("viewer"))
    text = client.get(reverse("horizon", args=[copy.name])).content.decode()
    exported = client.get(reverse("horizon", args=[copy.name]) + "?format=json")

    assert keeps in text
    assert NOT_HERE in text
    assert [line["scope"] for line in json.loads(body_of(exported))] == [scope]


def test_a_signal_reaches_a_backend_of_a_standby(
    pair: tuple[Server, Server],
    watch: Register,
    person: Callable[..., Any],
    live: Callable[..., Any],
    eventually: Callable[..., None],
) -> None:
    _, standby = pair
    target = watch(standby, name="shop-standby", operator_user="operator")
    take_now(target, ["activity"])
    target = Target.objects.get(pk=target.pk)
    assert target.in_recovery is True
    dba = person("dba")
    for name, state in (("cancel_backend", "idle"), ("terminate_backend", None)):
        session = live(standby, user="owner", dbname="shop")
        pid = session.info.backend_pid
        began = one(standby, f"SELECT backend_start::text FROM pg_stat_activity WHERE pid = {pid}")
        thread = threading.Thread(target=sleep_in, args=[session], daemon=True)
        thread.start()
        query = f"SELECT query_start::text FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep' AND clock_timestamp() - query_start > interval '0.3 s'"
        eventually(lambda query=query: one(standby, query))

        arguments = {"pid": str(pid), "backend_start": began, "query_start": one(standby, query)}
        row = ask.preview(dba, target, name, arguments, source="test")
        preview.preview_now(str(row.pk))
        row = ask.request(dba, Action.objects.get(pk=row.pk), source="test", confirmed=True)
        perform.perform(str(row.pk))
        row.refresh_from_db()

        assert row.state == "succeeded", row.outcome
        thread.join(10)
        assert one(standby, f"SELECT state FROM pg_stat_activity WHERE pid = {pid}") == state


def test_what_only_reads_or_counts_works_on_a_standby(
    pair: tuple[Server, Server],
    watch: Register,
    person: Callable[..., Any],
    done: Callable[..., Action],
    eventually: Callable[..., None],
) -> None:
    primary, standby = pair
    with primary.connect(dbname="shop") as superuser:
        superuser.execute("CREATE EXTENSION pgstattuple")
        superuser.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        superuser.execute("GRANT pg_stat_scan_tables TO operator")
        superuser.execute("GRANT SELECT ON stock TO operator")
        superuser.execute(
            "DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc"
            " WHERE proname = 'pg_stat_statements_reset' LOOP"
            " EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO operator', f); END LOOP; END $$"
        )
    extension = "SELECT 1 FROM pg_extension WHERE extname = 'pgstattuple'"
    eventually(lambda: one(standby, extension))
    target = watch(standby, name="shop-standby", operator_user="operator")
    take_now(target)
    target = Target.objects.get(pk=target.pk)
    dba = person("dba")

    measured = done(dba, target, "measure_bloat", table="public.stock")
    reset = done(dba, target, "reset_statements")

    assert measured.state == "succeeded", measured.outcome
    assert reset.state == "succeeded", reset.outcome


def sleep_in(session: Any) -> None:
    with suppress(psycopg.Error):
        session.execute("SELECT pg_sleep(60)")


def test_a_standby_is_read_and_nothing_is_done_to_it_until_it_is_promoted(
    pair: tuple[Server, Server],
    watch: Register,
    person: Callable[..., Any],
    done: Callable[..., Action],
    eventually: Callable[..., None],
) -> None:
    primary, standby = pair
    dba = person("dba")
    with primary.connect(user="owner", dbname="shop") as owner:
        owner.execute("INSERT INTO stock SELECT generate_series(2001, 2007)")
    eventually(lambda: one(standby, "SELECT count(*) FROM stock") == 507)
    target = watch(standby, name="shop-standby", operator_user="operator")

    results = take_now(target)

    assert {result.probe: result.error for result in results if result.state != "ok"} == {}
    target = Target.objects.get(pk=target.pk)
    assert target.in_recovery is True
    latest = HISTORY["tables"].latest._default_manager.filter(target_id=target.pk)
    assert latest.filter(relname="stock").exists()

    # The web knows it from the last contact; a worker learns it from the server itself.
    arguments = {"database": "shop", "table": "public.stock"}
    with pytest.raises(Refused, match="is a standby in recovery: act on its primary"):
        ask.preview(dba, target, "vacuum", arguments, source="test")
    Target.objects.filter(pk=target.pk).update(in_recovery=None)
    target.refresh_from_db()
    draft = ask.preview(dba, target, "vacuum", arguments, source="test")
    preview.preview_now(str(draft.pk))
    draft.refresh_from_db()
    assert "is a standby in recovery" in draft.preview["refused"]
    assert "statement: VACUUM" not in standby.log_text()

    one(standby, "SELECT pg_promote(true, 30)")
    eventually(lambda: one(standby, "SELECT NOT pg_is_in_recovery()"))
    assert {result.state for result in take_now(target)} == {Snapshot.State.OK}

    target = Target.objects.get(pk=target.pk)
    assert target.in_recovery is False
    # The new timeline stands in the control file once the first checkpoint is over.
    eventually(lambda: take_now(target) and "promotion" in kinds_of_marks(target), seconds=30)
    row = done(dba, target, "vacuum", table="public.stock")
    assert (row.state, one(standby, "SELECT count(*) FROM stock")) == ("succeeded", 507)
    assert standby.log_text().count("statement: VACUUM") == 1


def body_of(response: HttpResponseBase) -> bytes:
    """Return the whole of an answer that is streamed."""
    assert isinstance(response, StreamingHttpResponse)
    return b"".join(cast("Iterator[bytes]", response.streaming_content))


def test_recovery_that_waits_for_a_query_is_told_though_the_server_names_nobody(
    pair: tuple[Server, Server], watch: Register, eventually: Any
) -> None:
    primary, standby = pair
    target = watch(standby, name="shop-standby", dbname="shop")
    eventually(lambda: one(standby, "SELECT count(*) FROM stock") == 500)
    reader = standby.connect(dbname="shop", autocommit=False)
    reader.execute("SELECT count(*) FROM stock")
    with primary.connect(dbname="shop") as setup:
        setup.execute("ALTER TABLE stock ADD COLUMN w int")
    of_recovery = (
        " FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event_type = 'Lock'"
    )
    eventually(lambda: one(standby, f"SELECT pid{of_recovery}"))
    assert one(standby, f"SELECT pg_blocking_pids(pid){of_recovery}") == []

    take_now(target, ["activity", "locks"])
    found = read_locks(target, Window.last("1h", timezone.now()))
    pid = reader.info.backend_pid
    reader.close()

    [root], [edge] = found.roots, found.edges
    assert (root["root_pid"], root["blocked"], root["way_out"]) == (pid, 1, "terminate")
    assert (edge["hard"], edge["lock"], edge["mode"]) == (
        True, "public.stock", "AccessExclusiveLock",
    )  # fmt: skip
