"""The life of findings on real servers: opened, worse, put aside, resolved, found again."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone

from monitors import maintenance, tasks
from monitors.advisor import Severity
from monitors.collect import leases
from monitors.collect.rounds import take_now
from monitors.findings import aside, judge as review, keep, thresholds
from monitors.findings.verdict import tell_verdict
from monitors.models import (
    HISTORY,
    AuditEntry,
    FindingRecord,
    Fleet,
    Lease,
    ProbeState,
    Target,
    WorkerBeat,
)
from monitors.rows import findings

pytestmark = pytest.mark.django_db
ALL = set(HISTORY)


@pytest.fixture
def target(embedded, watch):
    return watch(embedded, name="shop-1")


class Neglected:
    """A table of 3,000 rows that autovacuum leaves alone."""

    def __init__(self, session, name, eventually):
        self.session, self.name, self.eventually = session, name, eventually
        session.execute(f"DROP TABLE IF EXISTS {name}")
        session.execute(f"CREATE TABLE {name} (id integer) WITH (autovacuum_enabled = off)")
        session.execute(f"INSERT INTO {name} SELECT generate_series(1, 3000)")
        session.execute(f"ANALYZE {name}")

    def kill(self, until):
        """Have so many dead rows."""
        self.session.execute(f"DELETE FROM {self.name} WHERE id <= {until}")
        dead = f"SELECT pg_stat_get_dead_tuples('{self.name}'::regclass)"
        self.eventually(lambda: self.session.execute(dead).fetchone() == (until,))

    def tend(self):
        """Let autovacuum look after it again."""
        self.session.execute(f"VACUUM {self.name}")
        self.session.execute(f"ALTER TABLE {self.name} RESET (autovacuum_enabled)")

    def neglect(self):
        """Turn autovacuum off again."""
        self.session.execute(f"ALTER TABLE {self.name} SET (autovacuum_enabled = off)")


@pytest.fixture
def neglected(embedded, worker_id, eventually):
    session = embedded.connect(dbname="shop")
    table = Neglected(session, f"kept_{worker_id}", eventually)
    yield table
    session.execute(f"DROP TABLE {table.name}")
    session.close()


def judge(target, probes=frozenset(ALL)):
    """Read everything and keep what is found."""
    take_now(target)
    keep.keep(target.pk, probes)


def rows_of(table):
    found = FindingRecord.objects.filter(advisor="autovacuum_disabled", title__contains=table.name)
    return list(found.order_by("pk"))


def test_a_finding_opens_gets_worse_is_acknowledged_resolves_and_is_found_again(target, neglected):
    neglected.kill(500)
    judge(target)
    [row] = rows_of(neglected)
    assert (row.severity, row.worst, row.resolved_at) == (Severity.NOTICE, Severity.NOTICE, None)
    assert row.opened_at == row.first_seen_at == row.seen_at
    assert row.opened_at == ProbeState.objects.get(target=target, probe="tables").taken_at

    neglected.kill(2000)
    judge(target)
    [row] = rows_of(neglected)
    assert row.severity == Severity.WARNING
    assert "2,000 dead rows" in row.title
    assert row.seen_at > row.opened_at
    assert (row.action, row.arguments["table"]) == ("set_autovacuum", f"public.{neglected.name}")

    aside.acknowledge("alice", "test", row, "Known: the import is being rebuilt.")
    judge(target)
    [row] = rows_of(neglected)
    assert findings.state_of(row, timezone.now()) == "acknowledged"

    neglected.tend()
    judge(target)
    [row] = rows_of(neglected)
    assert row.resolved_at is not None
    assert row.worst == Severity.WARNING
    assert row.acknowledged_by == "alice"

    neglected.neglect()
    judge(target)
    old, new = rows_of(neglected)
    assert new.previous_id == old.pk == row.pk
    assert (new.resolved_at, new.acknowledged_at) == (None, None)
    assert findings.state_of(new, timezone.now()) == "open"
    assert list(findings.find_earlier(new)) == [old]


@pytest.mark.fleet
def test_a_blocked_session_makes_a_row_and_it_resolves_after_the_lock_goes(server, watch, blocked):
    target, queue = watch(server), blocked(server)
    mine = FindingRecord.objects.filter(advisor="blocked", pid=queue.root_pid)
    judge(target)

    row = mine.get()
    assert row.opened_at is None  # a wait in passing is no finding
    assert not findings.find_opened().filter(pk=row.pk).exists()
    assert row.backend_start is not None
    FindingRecord.objects.update(first_seen_at=row.first_seen_at - timedelta(seconds=5))
    judge(target)
    row = mine.get()
    assert row.opened_at == row.seen_at
    assert row.action == "terminate_backend"
    [live] = [one for one in review.find(target) if one.record_id == row.pk]
    assert live.object_key == row.object_key

    queue.root.rollback()
    queue.waiter.close()
    judge(target)
    row = mine.get()
    assert row.resolved_at is not None
    assert row.resolved_at >= row.seen_at


def test_what_passes_before_it_lasted_long_enough_leaves_no_trace(target, embedded, blocked):
    queue = blocked(embedded)
    judge(target)
    assert FindingRecord.objects.filter(advisor="blocked", pid=queue.root_pid).exists()

    queue.root.rollback()
    queue.waiter.close()
    judge(target)

    assert not FindingRecord.objects.filter(advisor="blocked", pid=queue.root_pid).exists()


@pytest.mark.parametrize("state", ["unreachable", "timeout", "failed", "denied"])
def test_what_can_not_be_read_resolves_nothing(target, neglected, state):
    neglected.kill(500)
    judge(target)
    [before] = rows_of(neglected)

    HISTORY["tables"].latest._default_manager.all().delete()
    ProbeState.objects.filter(probe="tables").update(state=state)
    keep.keep(target.pk, ALL)
    [row] = rows_of(neglected)
    assert (row.resolved_at, row.seen_at) == (None, before.seen_at)

    ProbeState.objects.filter(probe="tables").update(state="ok")
    keep.keep(target.pk, ALL)
    [row] = rows_of(neglected)
    assert row.resolved_at is not None


def test_an_old_reading_is_not_seen_anew(target, neglected):
    neglected.kill(500)
    judge(target)
    [before] = rows_of(neglected)

    keep.keep(target.pk, ALL)

    assert rows_of(neglected)[0].seen_at == before.seen_at


def test_of_a_database_that_is_no_longer_watched_nothing_stays_open(target, neglected):
    neglected.kill(500)
    judge(target)
    target.database_set.update(included=False)
    ProbeState.objects.filter(probe="tables").update(state="denied")

    keep.keep(target.pk, ALL)

    assert rows_of(neglected)[0].resolved_at is not None


def test_only_advisors_of_what_was_read_judge(target, neglected):
    neglected.kill(500)
    take_now(target)

    keep.keep(target.pk, {"activity", "sessions", "databases"})
    assert rows_of(neglected) == []
    keep.keep(target.pk, {"tables"})
    assert len(rows_of(neglected)) == 1


def test_a_fast_read_costs_a_few_queries(target, neglected, django_assert_max_num_queries):
    judge(target)

    with django_assert_max_num_queries(16):
        keep.keep(target.pk, {"activity", "sessions", "progress"})


def test_advisors_that_fail_undo_no_snapshot(target, monkeypatch):
    def fail(*_):
        message = "an advisor stumbled"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(keep, "samples_for", fail)
    WorkerBeat.objects.create(name="s", role="snapshots", slot=0, beat_at=timezone.now())
    leases.make_leases()
    Lease.objects.update(due_at=timezone.now())
    [lease] = [one for one in leases.claim_due(timezone.now()) if one.kind == "fast"]

    with pytest.raises(ZeroDivisionError, match="an advisor stumbled"):
        tasks.snapshot(target.pk, lease.kind, str(lease.claim))

    assert ProbeState.objects.get(target=target, probe="activity").state == "ok"
    lease.refresh_from_db()
    assert lease.due_at > timezone.now()


def test_a_worker_keeps_findings_after_a_leases_snapshots(target, neglected):
    neglected.kill(500)
    WorkerBeat.objects.create(name="s", role="snapshots", slot=0, beat_at=timezone.now())
    leases.make_leases()

    for _ in range(2):  # the first finds the databases
        Lease.objects.update(due_at=timezone.now())
        ProbeState.objects.update(due_at=timezone.now())
        for lease in leases.claim_due(timezone.now()):
            tasks.snapshot(target.pk, lease.kind, str(lease.claim))

    assert len(rows_of(neglected)) == 1
    assert ProbeState.objects.get(target=target, probe="activity").state == "ok"


@pytest.mark.django_db(transaction=True)
def test_two_workers_that_judge_at_once_make_one_row(target, neglected):
    neglected.kill(500)
    take_now(target)
    ready, failed = threading.Barrier(4), []

    def work():
        try:
            ready.wait(10)
            keep.keep_of(target.pk, [keep.BY_NAME["autovacuum_disabled"]])
        except Exception as error:  # noqa: BLE001 - told below
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert failed == []
    assert len(rows_of(neglected)) == 1


# Put aside


@pytest.fixture
def row(target, neglected):
    neglected.kill(2000)
    judge(target)
    return rows_of(neglected)[0]


def live(target, row):
    return next(one for one in review.find(target) if one.record_id == row.pk)


def test_what_is_acknowledged_counts_in_no_verdict_and_comes_last(target, row):
    assert row.title in tell_verdict(target, [live(target, row)], page="vacuum").text

    aside.acknowledge("alice", "test", row, "  We\n know. ")

    found = review.find(target)
    assert found[-1].record_id == row.pk
    quiet = live(target, row).quiet
    assert (quiet.state, quiet.by, quiet.reason) == ("acknowledged", "alice", "We know.")
    verdict = tell_verdict(target, [live(target, row)], page="vacuum")
    assert verdict.level == "good"
    assert verdict.text == "Nothing new to report: 1 finding is acknowledged or snoozed."
    assert verdict.finding is None


def test_what_gets_worse_after_it_was_acknowledged_counts_again(target, neglected):
    neglected.kill(500)
    judge(target)
    [row] = rows_of(neglected)
    aside.acknowledge("alice", "test", row, "Small.")

    neglected.kill(2000)
    judge(target)

    [row] = rows_of(neglected)
    assert findings.state_of(row, timezone.now()) == "open"
    assert live(target, row).quiet is None


def test_a_snooze_ends_by_itself(target, row):
    now = timezone.now()
    aside.snooze("alice", "test", row, now + timedelta(hours=2), "After the import.")

    assert live(target, row).quiet.until == now + timedelta(hours=2)
    for moment, state in ((119, "snoozed"), (120, "open"), (121, "open")):
        then = now + timedelta(minutes=moment)
        assert findings.state_of(row, then) == state
        assert [
            one
            for one in findings.STATES
            if findings.find_opened().filter(findings.in_state(one, then), pk=row.pk)
        ] == [state]
    FindingRecord.objects.update(snoozed_until=timezone.now())
    assert live(target, row).quiet is None


def test_a_snooze_outlasts_a_finding_that_comes_and_goes(target, neglected, row):
    aside.snooze("alice", "test", row, timezone.now() + timedelta(days=1), "It flaps.")
    neglected.tend()
    judge(target)
    neglected.neglect()
    judge(target)

    [_, new] = rows_of(neglected)
    assert findings.state_of(new, timezone.now()) == "snoozed"
    assert (new.snoozed_by, new.snoozed_reason) == ("alice", "It flaps.")


def test_a_snooze_takes_the_place_of_an_acknowledgement_and_reopening_that_of_both(row):
    aside.acknowledge("alice", "test", row, "We know.")
    aside.snooze("bob", "test", row, timezone.now() + timedelta(hours=1), "Later.")
    assert (row.acknowledged_by, row.acknowledged_at) == ("", None)

    aside.reopen("carol", "test", row)

    row.refresh_from_db()
    assert {name: getattr(row, name) for name in aside.ASIDE} == aside.ASIDE
    with pytest.raises(ValidationError, match="is open already"):
        aside.reopen("carol", "test", row)


def test_each_is_an_event_in_the_audit(row):
    until = timezone.now() + timedelta(hours=1)
    aside.acknowledge("alice", "127.0.0.1", row, "We know.")
    aside.snooze("bob", "command", row, until, "Later.")
    aside.reopen("carol", "command", row)

    entries = AuditEntry.objects.filter(what__startswith="finding.").order_by("id")
    assert [(one.what, one.who, one.source, one.reason) for one in entries] == [
        ("finding.acknowledge", "alice", "127.0.0.1", "We know."),
        ("finding.snooze", "bob", "command", "Later."),
        ("finding.reopen", "carol", "command", ""),
    ]
    assert {one.target_name for one in entries} == {"shop-1"}
    assert entries[1].detail["until"] == until.isoformat()
    assert entries[0].detail["finding"] == row.pk


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_a_reason_is_asked_for(row, reason):
    with pytest.raises(ValidationError, match="Give a reason"):
        aside.acknowledge("alice", "test", row, reason)
    assert not AuditEntry.objects.filter(what="finding.acknowledge").exists()


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=-1), timedelta(days=367)])
def test_a_snooze_ends_within_the_next_year(row, ahead):
    with pytest.raises(ValidationError, match="within the next year"):
        aside.snooze("alice", "test", row, timezone.now() + ahead, "Later.")


def test_what_is_resolved_can_not_be_put_aside(row):
    FindingRecord.objects.update(resolved_at=timezone.now())

    with pytest.raises(ValidationError, match="is resolved"):
        aside.acknowledge("alice", "test", row, "We know.")


NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("30m", NOW + timedelta(minutes=30)),
        (" 2h ", NOW + timedelta(hours=2)),
        ("3 d", NOW + timedelta(days=3)),
        ("1w", NOW + timedelta(weeks=1)),
        ("2026-12-01T08:00", datetime(2026, 12, 1, 8, tzinfo=UTC)),
        ("2026-12-01T08:00+02:00", datetime(2026, 12, 1, 6, tzinfo=UTC)),
    ],
)
def test_it_reads_until_when(text, until):
    assert aside.until_of(text, NOW) == until


@pytest.mark.parametrize("text", ["", "soon", "2", "h", "-2h", "99999h", "2h3m", "2026-13-01"])
def test_it_says_what_is_no_time(text):
    with pytest.raises(ValidationError, match="is neither"):
        aside.until_of(text, NOW)


# What is kept


def test_resolved_findings_are_forgotten_after_a_year(row):
    now = timezone.now()
    FindingRecord.objects.update(resolved_at=now - timedelta(days=364))
    maintenance.maintain(now)
    assert FindingRecord.objects.filter(pk=row.pk).exists()

    FindingRecord.objects.update(resolved_at=now - timedelta(days=366))
    cache.clear()
    maintenance.maintain(now)
    assert not FindingRecord.objects.filter(pk=row.pk).exists()


def test_pages_take_from_the_rows_what_only_workers_judge(target, row):
    FindingRecord.objects.filter(pk=row.pk).update(
        advisor="hot_ratio_low",
        hurts_at=NOW,
        evidence=[["Since", "2026-11-24T10:00:00+00:00", "at"]],
    )

    kept = live(target, row)
    assert (kept.advisor, kept.hurts_at) == ("hot_ratio_low", NOW)
    assert kept.evidence == (("Since", NOW, "at"),)
    then = review.find(target, timezone.now())
    assert [one.record_id for one in then if one.advisor == "hot_ratio_low"] == [row.pk]
    before = review.find(target, row.opened_at - timedelta(seconds=1))
    assert [one for one in before if one.advisor == "hot_ratio_low"] == []


# Thresholds


def test_the_narrower_threshold_wins(target, neglected):
    advisor, name = keep.BY_NAME["dead_tuples"], ("dead_tuples", "min_rows")
    scopes = (Fleet(pk=1), target.environment, target)

    for value, scope in zip((5, 6, 7), scopes, strict=True):
        thresholds.change("alice", "test", scope, {name: value})
        fresh = Target.objects.get(pk=target.pk)
        assert thresholds.of_target(fresh, advisor)["min_rows"] == value
    for value, scope in zip((6, 5, 1000), reversed(scopes), strict=True):
        thresholds.change("alice", "test", scope, {name: None})
        fresh = Target.objects.get(pk=target.pk)
        assert thresholds.of_target(fresh, advisor)["min_rows"] == value
    assert scopes[1].thresholds == {}


def test_a_changed_threshold_resolves_and_opens_at_the_next_judgement(target, neglected, row):
    name = ("autovacuum_disabled", "min_writes")
    thresholds.change("alice", "test", target, {name: 1_000_000})
    judge(target)

    assert rows_of(neglected)[0].resolved_at is not None


def test_each_change_of_a_threshold_is_an_event_and_no_change_is_none(target):
    name = ("blocked", "warning_seconds")
    assert thresholds.change("alice", "test", target, {name: 9}) == 1
    assert thresholds.change("alice", "test", target, {name: 9}) == 0
    assert thresholds.change("alice", "test", target, {name: None}) == 1

    found = AuditEntry.objects.filter(what__startswith="threshold.").order_by("id")
    assert [(one.what, one.target_name, one.object_name) for one in found] == [
        ("threshold.set", "shop-1", "blocked.warning_seconds"),
        ("threshold.reset", "shop-1", "blocked.warning_seconds"),
    ]
    assert (found[0].detail["before"], found[0].detail["value"]) == (None, 9)


@pytest.mark.parametrize(
    ("advisor", "name", "words"),
    [
        ("bloked", "warning_seconds", "There is no advisor bloked. Known: blocked, "),
        ("blocked", "warn", "blocked has no threshold warn. Known: warning_seconds, "),
    ],
)
def test_unknown_thresholds_are_refused(target, advisor, name, words):
    with pytest.raises(ValidationError, match=words):
        thresholds.change("alice", "test", target, {(advisor, name): 1})


@pytest.mark.parametrize("text", ["", "many", "-1", "nan", "inf", "1e400", "1_000", "0x10", "1,5"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValidationError, match="is no number from 0 to 1,000,000,000,000,000"):
        thresholds.number_of(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("1.5", 1.5), (" 1e6 ", 1_000_000)])
def test_numbers_are_read_as_people_write_them(text, value):
    assert thresholds.number_of(text) == value


def test_in_force_says_where_each_comes_from(target):
    thresholds.change("alice", "test", target.environment, {("blocked", "critical_seconds"): 60})
    thresholds.change("alice", "test", Fleet(pk=1), {("blocked", "critical_backends"): 9})

    rows = {row.field: row for row in thresholds.in_force(target)}

    assert (rows["blocked.warning_seconds"].source, rows["blocked.warning_seconds"].own) == (
        "default",
        None,
    )
    assert rows["blocked.critical_seconds"].source == "environment development"
    assert (rows["blocked.critical_backends"].value, rows["blocked.critical_backends"].source) == (
        9,
        "fleet",
    )
