"""What a page showed then is what it shows with that moment in its address."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.template import Context, Template
from django.urls import reverse
from django.utils import timezone
from psycopg import sql

from monitors import maintenance
from monitors.advisor import Finding, Hurt, Severity
from monitors.advisors import dead_tuples, hot_ratio_low
from monitors.collect.rounds import take_now
from monitors.findings import judge, keep, past, thresholds
from monitors.history.window import Window
from monitors.models import FindingRecord, FindingVersion, Fleet, Target, TargetFacts
from monitors.probes import PROBES
from tests.addresses import LISTS, OF_THE_TARGET

NOT_REBUILT = {
    "state",  # of a target: whether it answers is told of now alone
    "since",
    "query",  # of a running backend: its literals are never stored
    "xact_per_second",  # over the few seconds since the first reading
}
FILTERED = ("activity", "settings", "vacuum")
"""Pages that show a part of their rows unless all are asked for."""
CLOSE = timedelta(seconds=20)
"""What ages between the look at a page and the moment that was noted before it."""


@pytest.fixture
def read(shop, browse):
    """A function from a moment to every export of the target's pages then: {address: rows}."""
    client = browse("dba")
    junk = shop_table(shop)

    def addresses() -> list[str]:
        found = [reverse(name, args=[shop.name]) for name in OF_THE_TARGET if name not in LISTS]
        for name in FILTERED:
            found.remove(reverse(name, args=[shop.name]))
            found.append(reverse(name, args=[shop.name]) + "?filter=all")
        return [
            *found,
            reverse("vacuum", args=[shop.name]) + "?filter=off",
            reverse("table", args=[shop.name, junk["datid"], junk["relid"]]),
            reverse("fleet"),
            reverse("findings"),
        ]

    def get(at: datetime | None = None) -> dict[str, list[dict[str, Any]]]:
        found = {}
        for address in addresses():
            url = address + ("&" if "?" in address else "?") + "format=json&window=1h"
            url += f"&at={at.timestamp():.6f}" if at else ""
            response = client.get(url)
            assert response.status_code == 200, (url, response.content)
            if "json" not in response["Content-Type"]:
                continue  # it has no export
            content = response.streaming_content if response.streaming else [response.content]
            found[address] = json.loads(b"".join(content))
        return found

    return get


def shop_table(shop: Target) -> dict[str, Any]:
    from monitors.models import HISTORY  # noqa: PLC0415

    rows = HISTORY["tables"].latest._default_manager.filter(
        target_id=shop.pk, relname__startswith="Odd"
    )
    row = rows.values("database_id", "relid", "relname")[0]
    return {**row, "datid": shop.databases_by_id[row["database_id"]].datid}


def close(key: str, then: Any, now: Any) -> bool:
    """Tell whether two values of a key are the same, but for what ages in a moment."""
    if then == now:
        return True
    if key.endswith(("_seconds", "_at", "_since", "_earliest", "_latest")) and then and now:
        if isinstance(then, (int, float)):
            return bool(abs(then - now) <= CLOSE.total_seconds())
        return key != "read_at" and abs(
            datetime.fromisoformat(then) - datetime.fromisoformat(now)
        ) <= max(CLOSE, 0.05 * abs(datetime.fromisoformat(then) - timezone.now()))
    if isinstance(then, float) and isinstance(now, (int, float)):
        return bool(abs(then - now) <= 0.05 * max(abs(then), abs(now)))
    return False


def pid_of(row: dict[str, Any]) -> int:
    return int(row["pid"])


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return where two answers of all pages differ."""
    found = []
    for address, rows in then.items():
        later = now[address]
        if len(rows) != len(later):
            found.append(f"{address}: {len(rows)} rows then, {len(later)} now")
            continue
        if "/activity/" in address:  # equals have no order
            pairs = zip(*(sorted(some, key=pid_of) for some in (rows, later)), strict=True)
        else:
            pairs = zip(rows, later, strict=True)
        for row, again in pairs:
            found += [
                f"{address} {key}: {row[key]!r} then, {again[key]!r} now"
                for key in row
                if key not in NOT_REBUILT and not close(key, row[key], again[key])
            ]
    return found


@pytest.fixture(autouse=True)
def no_history_of_rhythms():
    """What upkeep does seldom is due."""
    cache.clear()


@pytest.fixture
def restored(embedded):
    """Takes back what a test changed on the server."""
    yield
    with embedded.connect(dbname="shop") as owner:
        owner.execute("DROP TABLE IF EXISTS another, second, clean, toasted, renamed")
    with embedded.connect() as superuser:
        superuser.execute("ALTER SYSTEM RESET autovacuum_vacuum_threshold")
        superuser.execute("ALTER SYSTEM RESET autovacuum_vacuum_scale_factor")
        superuser.execute("SELECT pg_reload_conf()")


def everything(target: Target) -> None:
    """Read all of a target and judge it, as workers do."""
    take_now(target)
    keep.keep(target.pk, {probe.name for probe in PROBES})


@pytest.mark.usefixtures("restored")
def test_what_was_shown_then_is_what_the_moment_shows(shop, junk, read, embedded, live, eventually):
    name = sql.Identifier(junk)
    with embedded.connect(user="owner", dbname="shop", autocommit=True) as owner:
        owner.execute(sql.SQL("ALTER TABLE {} RESET (autovacuum_enabled)").format(name))
        owner.execute("DROP TABLE IF EXISTS another, second, clean, toasted, renamed")
        owner.execute("CREATE TABLE clean (id int) WITH (autovacuum_enabled = off)")
        owner.execute("INSERT INTO clean SELECT generate_series(1, 900)")  # no dead row
        owner.execute("CREATE TABLE toasted (words text) WITH (autovacuum_enabled = off)")
        long = "SELECT string_agg(md5(g::text), '') FROM generate_series(1, 1000) AS g"
        owner.execute(sql.SQL("INSERT INTO toasted {}").format(sql.SQL(long)))
        owner.execute("CREATE TABLE another (id int) WITH (autovacuum_enabled = off)")
        owner.execute("INSERT INTO another SELECT generate_series(1, 9000)")
        owner.execute("DELETE FROM another WHERE id <= 6000")
    idle = live(embedded, user="owner", dbname="shop", autocommit=False)
    idle.execute("SELECT 1")

    def all_are_counted() -> bool:
        everything(shop)
        return dead_of(shop, "another") == 6000

    eventually(all_are_counted, seconds=30)
    with embedded.connect(user="owner", dbname="shop", autocommit=True) as owner:
        owner.execute("VACUUM toasted")
    everything(shop)
    at = timezone.now()
    then = read()
    told = [(one.severity, one.title, one.hurts) for one in judge.find(fresh(shop))]
    assert any("clean in" in title for _, title, _ in told)
    runs = then[reverse("vacuum-runs", args=[shop.name])]
    assert "public.toasted" in [row["toast_of"] for row in runs]

    idle.rollback()
    with embedded.connect() as superuser:
        superuser.execute("ALTER SYSTEM SET autovacuum_vacuum_threshold = 7")
        superuser.execute("ALTER SYSTEM SET autovacuum_vacuum_scale_factor = 0.5")
        superuser.execute("SELECT pg_reload_conf()")
    with embedded.connect(user="owner", dbname="shop", autocommit=True) as owner:
        owner.execute(sql.SQL("ALTER TABLE {} SET (autovacuum_vacuum_threshold = 9)").format(name))
        owner.execute("ALTER TABLE another SET (autovacuum_enabled = on, fillfactor = 50)")
        owner.execute("ALTER TABLE another RENAME TO second")
        owner.execute("INSERT INTO clean SELECT generate_series(1, 70)")
        owner.execute("ALTER TABLE toasted RENAME TO renamed")
        owner.execute("INSERT INTO second SELECT generate_series(1, 50000)")
        owner.execute("DELETE FROM second WHERE id <= 45000")
        owner.execute(sql.SQL("VACUUM ANALYZE {}").format(name))
    wanted = {("dead_tuples", "min_rows"): 3.0, ("autovacuum_disabled", "min_rows"): 10.0}
    thresholds.change("dba", "test", Fleet.objects.get_or_create(pk=1)[0], wanted)
    thresholds.change("dba", "test", fresh(shop), {("dead_tuples", "warning_ratio"): 1.1})
    everything(shop)
    everything(shop)

    assert [(one.severity, one.title, one.hurts) for one in judge.find(fresh(shop), at)] == told
    assert "\n".join(differences(then, read(at))) == ""


def fresh(target: Target) -> Target:
    return Target.objects.select_related("environment").get(pk=target.pk)


def dead_of(target: Target, relname: str) -> int | None:
    from monitors.models import HISTORY  # noqa: PLC0415

    rows = HISTORY["tables"].latest._default_manager.filter(target_id=target.pk, relname=relname)
    return rows.values_list("n_dead_tup", flat=True).first()


def test_what_workers_alone_judge_says_then_what_it_said_then(shop):
    """Their findings rest on hours of history that nobody judges again: each version is kept."""
    advisor = hot_ratio_low.ADVISOR
    reads = keep.Reads(shop, shop.databases_by_id)
    said = [(Severity.NOTICE, "20 %"), (Severity.WARNING, "5 %"), (Severity.WARNING, "4 %")]
    moments = []
    for severity, share in said:
        one = Finding(
            advisor=advisor.name,
            severity=severity,
            title=f"Only {share} of the updates are HOT.",
            why="",
            object_name="public.hot",
            hurt=Hurt("no date", at=timezone.now()),
            database_id=next(iter(shop.databases_by_id)),
            relid=4711,
            evidence=(("Share", share, ""), ("Since", timezone.now(), "at")),
        )
        keep.store(shop, [advisor], {(advisor.name, one.object_key): one}, reads)
        moments.append(timezone.now())
    keep.store(shop, [advisor], {}, reads)

    for (severity, share), moment in zip(said, moments, strict=True):
        [row] = keep.as_then(FindingRecord.objects.filter(advisor=advisor.name), moment)
        worst_yet = max(level for level, _ in said[: moments.index(moment) + 1])
        assert (row.severity, row.worst, share in row.title) == (severity, worst_yet, True)
        assert row.resolved_at is None
        [told] = [one for one in judge.find(fresh(shop), moment) if one.relid == 4711]
        assert (told.severity, share in told.title) == (severity, True)
        assert isinstance(told.evidence[1][1], datetime)
    assert FindingVersion.objects.count() == 2
    FindingVersion.objects.update(at=timezone.now() - timedelta(days=8))
    maintenance.maintain(timezone.now())
    assert not FindingVersion.objects.exists()


def test_a_standby_of_then_is_judged_as_one(shop):
    """What the server was, its settings and limits are those of the moment."""
    at = timezone.now()
    TargetFacts.objects.filter(target=shop).delete()
    shop.in_recovery, shop.max_connections = True, 17
    past.note_facts(shop, at - timedelta(hours=2))
    past.note_facts(shop, at - timedelta(hours=1))
    shop.in_recovery, shop.max_connections = False, 18
    past.note_facts(shop, at)

    assert TargetFacts.objects.filter(target=shop).count() == 2
    for hours, known in ((3, (True, 17)), (1.5, (True, 17)), (0, (False, 18))):
        then = past.as_of(fresh(shop), at - timedelta(hours=hours))
        assert (then.in_recovery, then.max_connections) == known


def test_thresholds_are_those_of_then(shop):
    advisor = dead_tuples.ADVISOR
    first = timezone.now()
    thresholds.change("dba", "test", fresh(shop), {(advisor.name, "min_rows"): 5.0})
    second = timezone.now()
    thresholds.change("dba", "test", fresh(shop), {(advisor.name, "min_rows"): 7.0})
    third = timezone.now()
    thresholds.change("dba", "test", fresh(shop), {(advisor.name, "min_rows"): None})

    for moment, value in ((first, 1000), (second, 5), (third, 7), (timezone.now(), 1000)):
        then = past.as_of(fresh(shop), moment)
        fleet = thresholds.the_fleet(moment)
        assert thresholds.of_target(then, advisor, fleet)["min_rows"] == value


def test_ages_count_from_the_moment_that_is_shown():
    end = datetime(2026, 3, 1, 12, tzinfo=UTC)
    then = Window(start=end - timedelta(hours=1), end=end, is_live=False, label="1h")
    text = "{% load moments %}{% age moment %}, {% age later %}"
    moments = {"moment": end - timedelta(minutes=2), "later": end + timedelta(hours=3)}

    def shown(window):
        return Template(text).render(Context({"window": window, **moments}))

    assert re.findall(r" data-then>([^<]+)<", shown(then)) == ["2 min ago", "in 3 h"]
    assert "data-then" not in shown(Window.last("1h", end))
    assert "2 min ago" not in shown(Window.last("1h", end))


def test_where_a_setting_came_from_is_told_as_it_was_then(shop, browse, embedded):
    table = shop_table(shop)
    address = reverse("table", args=[shop.name, table["datid"], table["relid"]])
    at = timezone.now()
    with embedded.connect() as superuser:
        superuser.execute("ALTER SYSTEM SET autovacuum_vacuum_scale_factor = 0.5")
        try:
            superuser.execute("SELECT pg_reload_conf()")
            take_now(shop, ["settings"])
        finally:
            superuser.execute("ALTER SYSTEM RESET autovacuum_vacuum_scale_factor")
            superuser.execute("SELECT pg_reload_conf()")

    def told(query):
        options = browse("viewer").get(f"{address}?{query}").context["autovacuum"]["options"]
        [row] = [row for row in options if row.name == "autovacuum_vacuum_scale_factor"]
        return row.value, row.origin

    assert told("") == ("0.5", "configuration file")
    assert told(f"at={at.timestamp():.6f}") == ("0.2", "default")
