"""What must be known before a page says that all is well: page by page, unknown by unknown."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from dashboard.embedded.postgres import embedded_programs
from dashboard.embedded.processes import ROOT
from monitors.collect.rounds import take_now
from monitors.findings import unknowns, verdict
from monitors.models import HISTORY, ProbeState, Target
from tests import servers
from tests.people import browser_of, person

pytestmark = pytest.mark.django_db

FLEET = "the fleet"
SAFE = {
    "fsync": "on",
    "full_page_writes": "on",
    "autovacuum_naptime": "5min",
    "shared_buffers": "128MB",
}
NO_ACTIVITIES = "track_activities is off: which statements run, and for how long, is not known."
NO_COUNTS = "track_counts is off: rows that die or change are not counted."
HIDDEN = "1 backend has track_activities off: what it runs, and for how long, is not known."
UNKNOWN, ZERO = (f'<td class="num">{word}</td>' for word in ("\N{EN DASH}", "0"))
ONE_LEFT = "1 table has passed a threshold"

SAYS = [
    # page, what is not known, what it says instead, what it must not say
    ("", "track_activities", NO_ACTIVITIES, "no transaction was left open"),
    ("", "track_activities", "No open finding", "No open finding. Good."),
    ("", "track_counts", NO_COUNTS, "no table is due for vacuum"),
    ("activity/", "track_activities", NO_ACTIVITIES, "no statement or transaction has been open"),
    ("activity/", "track_activities", "Nobody is blocked.", "No statement runs"),
    ("vacuum/", "track_counts", NO_COUNTS, "No table needs vacuum. Good."),
    ("vacuum/?filter=due", "track_counts", NO_COUNTS, "No table is due. Good."),
    ("vacuum/queue/", "track_counts", NO_COUNTS, "No table is due. Good."),
    (FLEET, "track_activities", NO_ACTIVITIES, "Nothing to report."),
    (FLEET, "track_activities", "Nothing is known to need you.", "All targets that were read are"),
    (FLEET, "track_activities", ">none known<", ">none open<"),
    ("vacuum/", "track_activities", f"Nothing that shows. {NO_ACTIVITIES}", "or rewritten now"),
    ("vacuum/", "track_activities", ">not known: track_activities is off<", ">none busy<"),
    ("vacuum/queue/", "track_activities", f"that shows. {NO_ACTIVITIES}", "or rewritten now"),
    ("vacuum/queue/", "track_activities", ">not known: track_activities is off<", "_slots "),
    ("vacuum/queue/", "one backend", f"Nothing that shows. {HIDDEN}", "or rewritten now"),
    ("", "one backend", HIDDEN, "no transaction was left open"),
    ("activity/", "one backend", HIDDEN, "no statement or transaction has been open"),
    (FLEET, "one backend", HIDDEN, "Nothing to report."),
    ("", "one backend", ">not known<", "none open"),
    ("activity/", "track_activities", "No backend is known to have been", "No backend was active"),
    ("activity/", "hidden queue", "What it does is not known", "Cancelling it ends its statement"),
    ("activity/", "hidden queue", "1 root, 1 blocked. Longest wait", "Longest wait 0 ms"),
    ("activity/", "hidden queue", "Only terminating it surely frees 1", "Disabled for"),
    ("", "server off", "Run ALTER SYSTEM SET autovacuum = on; SELECT", "postgresql.conf"),
    ("", "track_counts", ">not known: track_counts is off<", "TOAST included"),
    (FLEET, "track_counts", "in 0 of 1 targets", "in 1 of 1 targets"),
    ("vacuum/", "track_counts", ">not known: track_counts is off<", ">past the threshold"),
    ("vacuum/?filter=all", "track_counts", f"{UNKNOWN}{UNKNOWN}", f"{ZERO}{UNKNOWN}"),
    ("vacuum/", "server off", "past the threshold, 1 with autovacuum off", "0 due"),
    ("vacuum/", "server off", "0 in the queue", "All 0"),
    ("vacuum/queue/", "server off", " more with autovacuum off", "Tables due"),
    ("bloat/", "no statistics", ">not known<", "nothing grew in this window"),
    ("bloat/", "some statistics", ">nothing that is judged grew<", "nothing grew in this window"),
    ("vacuum/queue/", "autovacuum off", ONE_LEFT, "No table is due. Good."),
    ("vacuum/", "autovacuum off", ONE_LEFT, "No table is due. Good."),
    ("bloat/", "no statistics", "How much is wasted is not known", "wastes so much"),
    ("bloat/", "some statistics", "Of 1 object nothing is known.", "No table or index wastes"),
    (
        "bloat/?tab=growers",
        "some statistics",
        "Of 1 object nothing is known.",
        "Nothing grew. Good.",
    ),
    ("settings/", "settings", "The server&#x27;s settings have not been read.", "fsync is on"),
    ("vacuum/queue/", "settings", "have not been read yet", "No table is due. Good."),
]

GOOD = {
    # what a template calls good: what must be known for it, and who sees to that
    ("overview/_findings.html", "No open finding. Good."): "the verdict is not `unknown`",
    ("findings.html", "Nothing to report. Good."): "the verdict over it is good",
    ("activity.html", "No blocked backends. Good."): "wait events: track_activities hides none",
    ("locks/_now.html", "Nobody waits for a lock. Good."): "a reading of locks that is not stale",
    ("pooler_clients.html", "No client waits or has a server. Good."): "a reading of its clients",
    ("vacuum/_queue_empty.html", "No table is due. Good."): unknowns.COUNTS,
    ("vacuum/_tables.html", "No table needs vacuum. Good."): unknowns.COUNTS,
    ("vacuum/_tables.html", "No table is due. Good."): unknowns.COUNTS,
    ("vacuum/_tables.html", "Autovacuum is on for every table. Good."): "the storage options",
    ("bloat/_tabs.html", "Nothing grew. Good."): "every object is judged",
    ("settings/_table.html", "No setting awaits a restart. Good."): "a full reading of settings",
    ("settings/_advice.html", "No setting is off. Good."): "a full reading of settings",
}


@pytest.fixture(scope="module")
def own():
    """A server with nothing to report: tests may change its settings."""
    with (
        servers.home() as folder,
        servers.running(18, embedded_programs(), folder, **SAFE) as server,
    ):
        yield server


@pytest.fixture
def shop(own, watch):
    """A function that lets some statements run in `shop`, which has one table, and reads the target."""
    with own.connect(dbname="shop") as connection:
        connection.execute("CREATE TABLE t (id int)")

    def read(*statements: str) -> Target:
        with own.connect(dbname="shop") as connection:
            for statement in statements:
                connection.execute(statement)
        target: Target = watch(own)
        take_now(target)
        target.refresh_from_db()
        return target

    yield read
    with own.connect(dbname="shop") as connection:
        connection.execute("DROP TABLE IF EXISTS t, other")
        connection.execute("ALTER SYSTEM RESET ALL")
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
def make(own, shop, live, blocked):
    """A function from an unknown of SAYS to a target that has it, read by real probes."""
    fill = "INSERT INTO t SELECT generate_series(1, 5000)"
    statements = {
        "track_activities": ("ALTER SYSTEM SET track_activities = off", "SELECT pg_reload_conf()"),
        "track_counts": ("ALTER SYSTEM SET track_counts = off", "SELECT pg_reload_conf()"),
        "autovacuum off": (
            "ALTER TABLE t SET (autovacuum_enabled = off)",
            *("INSERT INTO t SELECT generate_series(1, 900)", "DELETE FROM t"),
            "SELECT pg_stat_force_next_flush()",
        ),
        "server off": (
            *("ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()"),
            *("INSERT INTO t SELECT generate_series(1, 4000)", "DELETE FROM t"),
            "SELECT pg_stat_force_next_flush()",
        ),
        "no statistics": (fill,),
        "some statistics": (
            *(fill, "ANALYZE t", "CREATE TABLE other AS TABLE t"),
            "GRANT SELECT ON t, other TO collector",
        ),
    }

    def read(unknown: str) -> Target:
        if unknown == "one backend":
            live(own, dbname="shop").execute("SET track_activities = off")
        if unknown == "hidden queue":
            blocked(own, options="-c track_activities=off")
        target: Target = shop(*statements.get(unknown, ()))
        if unknown == "settings":  # as before its first contact
            target.settings = {}
            target.save()
        return target

    return read


@pytest.mark.parametrize(("page", "unknown", "says", "never"), SAYS)
def test_a_page_says_what_is_not_known_in_place_of_good(make, page, unknown, says, never):
    target = make(unknown)

    text = text_of(target, page)

    assert says in text, told_by(text)
    assert never not in text, told_by(text)


@pytest.mark.parametrize("page", ["", "activity/", "vacuum/", FLEET])
def test_it_says_that_all_is_well_where_all_is_known(shop, page):
    target = shop()

    text = text_of(target, page)

    assert unknowns.unknowns_of(target) == {}
    assert re.search(r'class="verdict" data-level="good"|No table is due. Good.', text), told_by(
        text
    )
    assert "Not known" not in text


def test_every_sentence_that_says_good_is_in_the_table():
    found = {
        (str(path.relative_to(ROOT / "templates")), " ".join(title.split()))
        for path in Path(ROOT / "templates").rglob("*.html")
        for title in re.findall(r'title="([^"]*Good\.)"', path.read_text(encoding="utf-8"))
    }

    assert found == set(GOOD)


def test_a_verdict_claims_only_what_is_known():
    needed = (unknowns.STATEMENTS, unknowns.COUNTS, unknowns.SETTINGS, unknowns.FORCED)
    every = {need: f"{need} is not known" for need in needed}

    for page, claims in verdict.GOOD.items():
        needs = {need for _, need in claims} - {""}
        left = verdict.all_well(page, every)
        assert verdict.missing_for(page, every) == [
            every[n] for n in dict.fromkeys(n for _, n in claims) if n
        ]
        assert all((claim in left.lower()) == (need == "") for claim, need in claims), page
        assert needs <= set(every)


def test_nobody_connected_is_zero_and_not_unknown(shop):
    target = shop()
    HISTORY["sessions"].latest._default_manager.filter(target_id=target.pk).delete()

    text = text_of(target, "")

    for title in ("Connections", "Blocked backends"):
        assert re.search(rf'{title}</dt><dd class="tile-value">0\b', text), title


def test_a_target_that_nobody_reads_any_more_is_not_called_well(shop):
    target = shop()
    long_ago = timezone.now() - timedelta(hours=1)
    ProbeState.objects.filter(target=target).update(taken_at=long_ago)

    text = text_of(target, FLEET)

    assert "Nothing was tried since: check that Howdah&#x27;s beat and workers run." in text
    assert "Nothing is urgent. 1 of 1 targets deserves a look." in text


def told_by(text: str) -> list[str]:
    """Return the sentences of a page's verdict and states, for a failure to show."""
    return [re.sub(r"<[^>]*>", " ", one) for one in re.findall(r"<(?:p|h3)[^>]*>.*?</", text)]


def text_of(target: Target, page: str) -> str:
    """Return a page as somebody who may see it gets it."""
    client = browser_of(person("reader", "viewer"))
    address = "/" if page == FLEET else f"/targets/{target.name}/{page}"
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()
