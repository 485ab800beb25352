"""Findings and verdicts over what a real server showed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from monitors.actions import ACTIONS
from monitors.advisor import Finding, Hurt, Severity
from monitors.advisors import ADVISORS
from monitors.collect.rounds import take_now
from monitors.findings import judge
from monitors.findings.verdict import all_well, tell_verdict
from monitors.models import HISTORY, Environment, Lease, ProbeState

pytestmark = pytest.mark.django_db


@pytest.fixture
def target(embedded, watch):
    return watch(embedded, name="shop-1")


@pytest.fixture
def neglect(worker_id, eventually):
    """Make a table with 1,500 dead rows that autovacuum leaves alone: neglect(server) -> name."""
    made = []

    def make(server):
        name = f"neglected_{worker_id}"
        session = server.connect(dbname="shop")
        made.append((session, name))
        session.execute(f"DROP TABLE IF EXISTS {name}")
        session.execute(f"CREATE TABLE {name} (id integer) WITH (autovacuum_enabled = off)")
        session.execute(f"INSERT INTO {name} SELECT generate_series(1, 3000)")
        session.execute(f"ANALYZE {name}")
        session.execute(f"DELETE FROM {name} WHERE id <= 1500")
        dead = f"SELECT pg_stat_get_dead_tuples('{name}'::regclass)"
        eventually(lambda: session.execute(dead).fetchone() == (1500,))
        return name

    yield make
    for session, name in made:
        session.execute(f"DROP TABLE {name}")
        session.close()


@pytest.fixture
def neglected(embedded, neglect):
    """The name of such a table on the embedded server."""
    return neglect(embedded)


def of(found, advisor):
    return [finding for finding in found if finding.advisor == advisor]


def about(found, text):
    return [finding for finding in found if text in finding.title]


@pytest.mark.fleet
def test_it_finds_a_neglected_table_and_names_the_action_with_its_arguments(server, watch, neglect):
    target, name = watch(server), neglect(server)
    take_now(target)

    [finding] = about(judge.find(target), name)

    assert finding.advisor == "autovacuum_disabled"
    assert finding.severity == Severity.WARNING
    assert ("Dead rows", 1500, "rows") in finding.evidence
    assert ("Autovacuum would start beyond", 650.0, "rows") in finding.evidence
    assert finding.action == "set_autovacuum"
    assert finding.arguments == {
        "database": "shop",
        "table": f"public.{name}",
        "autovacuum_enabled": "reset",
    }
    assert name in tell_verdict(target, [finding], page="vacuum").text


def test_it_finds_a_toast_table_and_names_its_main_table(target, embedded, worker_id, eventually):
    name = f"documents_{worker_id}"
    with embedded.connect(dbname="shop") as session:
        session.execute(f"DROP TABLE IF EXISTS {name}")
        session.execute(f"CREATE TABLE {name} (body text)")
        session.execute(f"ALTER TABLE {name} ALTER body SET STORAGE EXTERNAL")
        session.execute(
            f"INSERT INTO {name} SELECT repeat('x', 20000) FROM generate_series(1, 300)"
        )
        session.execute(f"DELETE FROM {name}")
        dead = f"""SELECT pg_stat_get_dead_tuples(c.oid), pg_stat_get_dead_tuples(c.reltoastrelid)
                     FROM pg_class AS c WHERE c.oid = '{name}'::regclass"""
        eventually(lambda: session.execute(dead).fetchone() == (300, 3300))

        take_now(target)
        session.execute(f"DROP TABLE {name}")

    [finding] = about(judge.find(target), name)
    assert finding.title.startswith(f"The TOAST table of public.{name} in shop has 3,300 dead rows")
    assert finding.arguments["table"] == f"public.{name}"


def test_it_finds_the_root_of_a_lock_queue(target, embedded, blocked):
    queue = blocked(embedded)
    take_now(target)

    [finding] = about(of(judge.find(target), "blocked"), str(queue.root_pid))

    assert finding.action == "terminate_backend"
    assert finding.arguments["pid"] == str(queue.root_pid)
    assert tell_verdict(target, [finding], page="activity").text == finding.title


def test_it_knows_an_idle_root_that_holds_an_advisory_lock(target, embedded, live, eventually):
    root = live(embedded, dbname="shop", application_name="keeper")
    root.execute("SELECT pg_advisory_lock(811)")
    waiter = live(embedded, dbname="shop", autocommit=True)
    waiter.execute("SET lock_timeout = '20s'")
    waiter.pgconn.send_query(b"SELECT pg_advisory_lock(811)")
    waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
    with embedded.connect() as watcher:
        eventually(lambda: watcher.execute(waits, [waiter.info.backend_pid]).fetchone() == (True,))

    take_now(target)

    [finding] = about(of(judge.find(target), "blocked"), "keeper")
    assert finding.title.startswith(f"Backend {root.info.backend_pid} (keeper) blocks 1 backend")
    assert finding.action == ""  # neither cancel nor terminate would find what it names
    assert f"pg_terminate_backend({root.info.backend_pid})" in finding.why


def test_thresholds_of_the_environment_win_and_nonsense_is_passed_over(target, neglected):
    take_now(target)
    Environment.objects.filter(pk=target.environment_id).update(
        thresholds={
            "autovacuum_disabled": {"min_rows": 1500, "unknown": 1, "critical_rows": "many"},
            "no_such_advisor": {"x": 1},
            "blocked": "nonsense",
        }
    )
    target.refresh_from_db()

    [finding] = about(judge.find(target), neglected)

    assert finding.severity == Severity.NOTICE


def test_the_same_is_found_for_many_targets_with_as_many_queries(
    target, embedded, watch, neglected, django_assert_max_num_queries
):
    other = watch(embedded, name="shop-2")
    take_now(target)
    take_now(other)

    with CaptureQueriesContext(connection) as of_one:
        judge.find_all([target])
    with django_assert_max_num_queries(len(of_one)):
        found = judge.find_all([target, other])

    assert len(about(found[target.pk], neglected)) == 1
    assert len(about(found[other.pk], neglected)) == 1


def test_a_past_moment_is_judged_by_what_was_read_then(target, neglected, embedded):
    take_now(target)
    then = timezone.now()
    with embedded.connect(dbname="shop") as session:
        session.execute(f"VACUUM {neglected}")
    take_now(target)

    [past] = about(judge.find(target, then), neglected)
    [present] = about(judge.find(target), neglected)

    assert "1,500 dead rows" in past.title
    assert "dead rows" not in present.title
    assert "1,500 dead rows" in tell_verdict(target, [past], page="vacuum", at=then).text


def test_it_names_who_keeps_dead_rows_from_being_removed(target, embedded, live, neglect):
    """Dated by the history of the next transaction id, now and in the past."""
    target.environment.thresholds = {"horizon_held": {"notice_seconds": 0}}
    target.environment.save()
    take_now(target, ["databases"])
    holder = live(embedded, dbname="shop", autocommit=False, application_name="nightly-report")
    holder.execute("SELECT pg_current_xact_id()")
    name = neglect(embedded)
    take_now(target)
    take_now(target)

    [finding] = of(judge.find(target), "horizon_held")

    pid = holder.info.backend_pid
    assert f"public.{name}" in finding.title or "more table" in finding.title
    assert f"can't be cleaned: backend {pid} (nightly-report, idle in transaction" in finding.title
    assert finding.action == "terminate_backend"
    assert finding.arguments["pid"] == str(pid)
    then = timezone.now()
    holder.rollback()
    take_now(target)
    assert of(judge.find(target), "horizon_held") == []
    [past] = of(judge.find(target, then), "horizon_held")
    assert f"backend {pid} (nightly-report" in past.title


def test_a_database_that_is_not_watched_says_nothing(target, neglected):
    take_now(target)
    target.database_set.update(included=False)

    assert about(judge.find(target), neglected) == []


def test_findings_come_worst_first_and_equals_in_the_advisors_order():
    found = [
        finding("dead_tuples", Severity.WARNING, score=9),
        finding("blocked", Severity.NOTICE),
        finding("dead_tuples", Severity.WARNING, score=10),
        finding("idle_in_transaction", Severity.WARNING),
    ]

    assert [(one.advisor, one.score) for one in judge.ranked(found)] == [
        ("idle_in_transaction", 0),
        ("dead_tuples", 10),
        ("dead_tuples", 9),
        ("blocked", 0),
    ]


def test_equal_findings_stand_in_one_order_however_the_samples_came():
    found = [finding("dead_tuples", Severity.WARNING, relid=relid) for relid in (7, 5, 6)]

    ranked = [one.relid for one in judge.ranked(found)]

    assert ranked == [one.relid for one in judge.ranked(found[::-1])]


def finding(advisor, severity, title="It is so.", **facts):
    return Finding(
        advisor=advisor,
        severity=severity,
        title=title,
        why="",
        object_name="x",
        hurt=Hurt("later"),
        **facts,
    )


def test_every_action_that_a_finding_names_exists_with_those_parameters(
    target, embedded, blocked, neglected
):
    blocked(embedded)
    take_now(target)

    named = [one for one in judge.find(target) if one.action]

    assert {one.action for one in named} >= {"set_autovacuum", "terminate_backend"}
    for one in named:
        parameters = {parameter.name for parameter in ACTIONS[one.action].parameters}
        assert set(one.arguments) <= parameters


# Verdicts


def read(target, *, state="ok", seconds=2, reason="", failing=0, probes=None):
    """Note that every probe was last read so many seconds ago."""
    now = timezone.now()
    take = now - timedelta(seconds=seconds) if seconds is not None else None
    for name in probes or HISTORY:
        ProbeState.objects.update_or_create(
            target=target,
            database=None,
            probe=name,
            defaults={
                "taken_at": take,
                "target_at": take,
                "state": state,
                "reason": reason,
                "failing_since": now - timedelta(seconds=failing) if failing else None,
                "due_at": now + timedelta(seconds=40.5),
            },
        )


@pytest.mark.parametrize("name", ["overview", "activity", "vacuum"])
def test_it_says_that_all_is_well_in_the_pages_own_words(target, name):
    read(target)

    verdict = tell_verdict(target, [], page=name)

    assert (verdict.level, verdict.text) == ("good", all_well(name, {}))
    assert verdict.foot == "Read 2 s ago."
    assert verdict.finding is None


def test_a_page_speaks_of_its_own_subject_and_the_overview_of_all(target):
    read(target)
    lock = finding("blocked", Severity.CRITICAL, "Backend 1 blocks 2 backends.")
    dead = finding("dead_tuples", Severity.WARNING, "public.a has 2,000 dead rows.")

    texts = {
        page: tell_verdict(target, [lock, dead], page=page)
        for page in ("overview", "activity", "vacuum")
    }

    assert texts["activity"].text == lock.title
    assert texts["vacuum"].text == dead.title
    assert texts["vacuum"].level == "warning"
    assert texts["overview"].text == f"{lock.title} {dead.title}"
    assert texts["overview"].level == "critical"
    assert texts["overview"].finding == lock
    assert texts["overview"].foot == "From 1 critical finding and 1 warning. Read 2 s ago."


def test_several_of_a_kind_are_counted_before_the_worst_is_named(target):
    read(target)
    dead = [
        finding("dead_tuples", Severity.NOTICE, f"public.{name} has dead rows.") for name in "abc"
    ]

    verdict = tell_verdict(target, dead, page="vacuum")

    assert verdict.text == "3 tables are due for vacuum. public.a has dead rows."
    assert verdict.foot == "From 3 notices. Read 2 s ago."


def test_a_root_that_is_idle_in_transaction_is_named_once(target):
    read(target)
    lock = finding("blocked", Severity.CRITICAL, "Backend 1 blocks 2 backends.", pid=1)
    idle = finding("idle_in_transaction", Severity.WARNING, "Backend 1 has been idle.", pid=1)

    assert tell_verdict(target, [lock, idle], page="activity").text == lock.title


def test_every_advisor_that_can_say_several_things_has_words_for_it():
    whole_server = {
        "connections_near_limit",
        "fsync_off",
        "pending_restart",
        "too_many_idle",
        "workers_saturated",
        "pooler_clients_near_limit",
        "pooler_outdated",
    }

    for advisor in ADVISORS:
        assert ("{count}" in advisor.plural) != (advisor.name in whole_server)


def test_every_advisor_reads_probes_that_exist():
    for advisor in ADVISORS:
        assert advisor.reads
        assert set(advisor.reads) <= set(HISTORY)


def test_before_the_first_snapshot_it_says_when_that_is(target):
    assert tell_verdict(target, []).text == "The first snapshot is due now."

    read(target, state="", seconds=None)
    verdict = tell_verdict(target, [])

    assert (verdict.level, verdict.text) == ("unknown", "First snapshot in 40 s.")
    assert verdict.foot == ""


def test_an_unreachable_target_is_never_well(target):
    reason = "Connection refused: no server listens there."
    read(target, state="unreachable", seconds=850, failing=840, reason=reason)
    Lease.objects.create(target=target, kind="fast", due_at=timezone.now() + timedelta(seconds=95))

    verdict = tell_verdict(target, [], page="vacuum")

    assert verdict.level == "critical"
    assert verdict.text == (
        "shop-1 can't be reached for 14 min: connection refused: no server listens there. "
        "It is tried again in 1 min 34 s."
    )
    assert verdict.foot == "Read 14 min ago."


def test_the_vacuum_page_knows_from_the_fast_reads_that_the_target_is_down(target):
    read(target)
    read(
        target, state="unreachable", failing=30, reason="No route to the host.", probes=["sessions"]
    )

    assert tell_verdict(target, [], page="vacuum").text.startswith(
        "shop-1 can't be reached for 30 s: no route to the host."
    )


def test_a_target_that_was_never_reached_says_so(target):
    reason = "Password authentication failed: check user and password."
    read(target, state="unreachable", seconds=None, failing=5, reason=reason)

    assert tell_verdict(target, []).text == (
        "shop-1 has never been reached: password authentication failed: check user and password."
    )


def test_findings_of_a_target_that_is_down_are_told_as_of_the_past(target):
    read(target, state="unreachable", seconds=70, failing=60, reason="No route to the host.")
    dead = finding("dead_tuples", Severity.NOTICE, "public.a has dead rows.")

    verdict = tell_verdict(target, [dead])

    assert verdict.level == "critical"
    assert verdict.text.endswith("When it was last read: public.a has dead rows.")


def test_old_figures_that_nobody_tried_to_renew_point_at_howdah_itself(target):
    read(target, seconds=1000)

    verdict = tell_verdict(target, [])

    assert verdict.level == "warning"
    assert verdict.text == (
        "Last read 16 min ago, and nothing was tried since: "
        "check that Howdah's beat and workers run."
    )


def test_a_missing_right_is_told_with_the_probe_that_lacks_it(target):
    read(target)
    reason = "Permission denied for function pg_control_system."
    read(target, state="denied", failing=65, reason=reason, probes=["tables"])

    assert tell_verdict(target, [], page="activity").level == "good"
    verdict = tell_verdict(target, [], page="vacuum")
    assert verdict.level == "warning"
    assert verdict.text == (
        "Tables may not be read for 1 min: permission denied for function pg_control_system."
    )


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        (
            {"enabled": False},
            "unknown",
            "shop-1 is disabled: nothing reads it. What you see is 2 s old.",
        ),
        ({"frozen_reason": "Another server answers."}, "critical", "Another server answers."),
        ({"deleting_at": timezone.now()}, "unknown", "shop-1 is being removed with its history."),
    ],
    ids=["disabled", "frozen", "deleting"],
)
def test_a_target_that_nothing_reads_says_why(target, change, level, text):
    read(target)
    for name, value in change.items():
        setattr(target, name, value)

    verdict = tell_verdict(target, [])

    assert (verdict.level, verdict.text) == (level, text)


def test_a_past_moment_is_well_only_where_something_was_read(target):
    before = timezone.now()
    take_now(target)

    assert tell_verdict(target, [], at=before).text == "Nothing was read at that moment."
    assert tell_verdict(target, [], at=timezone.now()).level == "good"


def test_a_past_moment_says_nothing_of_the_present(target):
    read(target, state="unreachable", failing=30, reason="No route to the host.")
    lock = finding("blocked", Severity.CRITICAL, "Backend 1 blocks 2 backends.")

    assert tell_verdict(target, [lock], at=timezone.now()).text == lock.title
