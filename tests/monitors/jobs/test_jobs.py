"""Recurring jobs on real servers: hours, gates, rights, the batch, and what is told of it."""

from __future__ import annotations

from datetime import time, timedelta

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.urls import reverse
from django.utils import timezone

from monitors.acting import batch, perform, preview
from monitors.action import InvalidArguments, Refused
from monitors.collect.rounds import take_now
from monitors.jobs import plan, run as job_runs
from monitors.models import Action, AuditEntry, Batch, Grant, Job, JobRun

pytestmark = pytest.mark.django_db
State = JobRun.State
DAILY = list(range(7))


@pytest.fixture
def target(server, watch):
    return watch(server, operator_user="operator")


@pytest.fixture
def dba(person):
    return person("dba")


@pytest.fixture
def job(target, dba):
    """A function that makes a job whose hours are open: job(tables=[…], max_…=…)."""

    def make(**fields):
        usual = {"name": "nightly", "action": "vacuum", "weekdays": DAILY, "opens_at": time(0),
                 "open_minutes": 1440}  # fmt: skip
        return plan.save(dba, Job(target=target, **{**usual, **fields}), source="test")

    return make


def look(made, *, later=timedelta(seconds=40)):
    """Take a job a step further, as its worker does some time later."""
    Job.objects.filter(pk=made.pk).update(next_at=timezone.now() - timedelta(seconds=1))
    job_runs.look(made.pk, timezone.now())
    return JobRun.objects.filter(job=made).first()


def carry_out(run):
    """Do what the workers of the batch do, until nothing of it waits."""
    while True:
        row = Action.objects.filter(batch=run.batch, state=Action.State.QUEUED).first()
        if row is None:
            return
        perform.perform(str(row.pk))
        batch.advance(run.job.target_id)


def previewed(run):
    for row in Action.objects.filter(batch=run.batch, state=Action.State.DRAFT):
        preview.preview_now(str(row.pk))


def named(table):
    return {"database": "shop", "table": table}


def test_a_run_vacuums_the_tables_that_are_named_and_says_how_each_went(server, job, table):
    kept, gone = table(server), table(server)
    made = job(tables=[named(kept), named(gone)])
    with server.connect(dbname="shop") as session:
        session.execute(f"DROP TABLE {gone}")

    run = look(made)
    assert run.state == State.PREPARING
    previewed(run)
    run = look(made)
    assert run.state == State.RUNNING
    carry_out(run)
    run = look(made)

    assert run.state == State.DONE
    assert run.text == "2 tables: 1 succeeded, 1 refused."
    done = Action.objects.get(batch=run.batch, state="succeeded")
    assert (done.asked_from, done.reason) == ("job:nightly", "Job nightly")
    assert done.after["n_dead_tup"] == 0
    assert AuditEntry.objects.filter(what="vacuum", kind="outcome", action_id=done.pk).exists()


def test_without_tables_those_that_are_due_are_taken(server, job, table, target, eventually):
    due = table(server, dead=1000)
    with server.connect(dbname="shop") as session:
        session.execute(f"INSERT INTO {due} SELECT generate_series(1, 3000)")
        session.execute(f"DELETE FROM {due}")
        session.execute(f"ALTER TABLE {due} RESET (autovacuum_enabled)")
        counted = "SELECT pg_stat_get_dead_tuples(%s::regclass) > 1000"
        eventually(lambda: session.execute(counted, [due]).fetchone()[0])  # 14 tells it late
    take_now(target, ["databases", "tables"])
    target.refresh_from_db()

    run = look(job())

    assert run.state == State.PREPARING, run.text
    names = {row.arguments["relid"] for row in Action.objects.filter(batch=run.batch)}
    with server.connect(dbname="shop") as session:
        (relid,) = session.execute("SELECT %s::regclass::oid::text", [due]).fetchone()
    assert relid in names


def test_where_nothing_is_due_there_is_nothing_to_do(job):
    run = look(job())

    assert (run.state, run.text) == (State.IDLE, "No table is due.")
    assert run.finished_at is not None


newest = pytest.mark.parametrize("server", [18], indirect=True, ids=str)


@newest
def test_a_closed_gate_holds_the_run_until_it_opens(server, job, table, live):
    busy = live(server, dbname="shop", autocommit=False)
    made = job(tables=[named(table(server))], max_active_backends=0)
    with busy.cursor() as cursor:
        busy.pgconn.send_query(b"SELECT pg_sleep(20)")
        run = look(made)
        assert run.state == State.HELD
        assert "active" in run.text
        assert "; the limit is 0." in run.text
        busy.cancel()
        del cursor

    with server.connect() as session:  # others' statements may run too
        session.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity"
            " WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    assert look(made).state == State.PREPARING


@newest
def test_hours_that_end_before_the_gates_open_are_missed(server, job, table, live):
    made = job(tables=[named(table(server))], max_running_vacuums=0)
    JobRun.objects.create(
        job=made,
        started_at=timezone.now() - timedelta(hours=1),
        closes_at=timezone.now() - timedelta(seconds=1),
        text="Held: 2 vacuums run; the limit is 0.",
    )

    run = look(made)

    assert run.state == State.MISSED
    assert run.text == "Its hours ended. Held: 2 vacuums run; the limit is 0."


@newest
def test_when_the_hours_end_no_further_table_is_begun(server, job, table):
    made = job(tables=[named(table(server)), named(table(server))])
    run = look(made)
    previewed(run)
    run = look(made)
    JobRun.objects.filter(pk=run.pk).update(closes_at=timezone.now())

    look(made)
    carry_out(run)
    run = look(made)

    assert run.state == State.DONE
    assert run.text == "2 tables: 2 skipped. Its hours ended first."


@newest
def test_it_runs_once_an_opening_or_again_after_its_minutes(job):
    once = job()
    look(once)
    once.refresh_from_db()
    assert once.next_at > timezone.now() + timedelta(minutes=1)
    look(once)
    assert once.runs.count() == 1

    again = job(name="hourly", every_minutes=5)
    look(again)
    again.refresh_from_db()
    assert timedelta(minutes=4) < again.next_at - timezone.now() <= timedelta(minutes=5)
    again.runs.update(started_at=timezone.now() - timedelta(minutes=6))
    look(again)
    assert again.runs.count() == 2


@newest
def test_an_owner_who_lost_the_right_runs_nothing(server, job, table, dba):
    made = job(tables=[named(table(server))])
    Grant.objects.filter(user=dba).delete()

    run = look(made)

    assert run.state == State.REFUSED
    assert "permission vacuum" in run.text
    assert not Action.objects.filter(batch=run.batch).exclude(batch=None).exists()


@newest
def test_who_may_not_vacuum_may_not_have_a_job_do_it(target, person):
    for role in ("viewer", "admin", ""):
        with pytest.raises(PermissionDenied):
            plan.save(person(role), Job(target=target, name="j", action="vacuum"), source="test")


@newest
def test_two_workers_at_once_begin_one_run(job):
    made = job()
    Job.objects.filter(pk=made.pk).update(next_at=timezone.now())
    moment = timezone.now()

    job_runs.look(made.pk, moment)
    job_runs.look(made.pk, moment)

    assert made.runs.count() == 1


@newest
def test_run_now_counts_gates_and_runs_once_at_a_time(job, dba):
    made = job(opens_at=time(3), open_minutes=5, weekdays=[(timezone.now().weekday() + 3) % 7])
    plan.run_now(dba, made, source="test")

    with pytest.raises(Refused, match="running already"):
        plan.run_now(dba, made, source="test")
    assert look(made).state == State.IDLE


@newest
@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        (
            {"action": "analyze", "options": {"freeze": "true"}},
            InvalidArguments,
            "no argument freeze",
        ),
        ({"action": "vacuum_full"}, PermissionDenied, "permission vacuum_full"),
        ({"options": {"analyze": "maybe"}}, InvalidArguments, "true or false"),
        ({"options": {"lots": "true"}}, InvalidArguments, "has no argument lots"),
        ({"open_minutes": 1}, ValidationError, "greater than or equal to 5"),
        ({"name": "Not Good"}, ValidationError, "lower-case"),
    ],
)
def test_a_job_that_makes_no_sense_is_not_saved(target, person, fields, error, said):
    usual = {"name": "j", "action": "vacuum", "weekdays": DAILY, "opens_at": time(0),
             "open_minutes": 60}  # fmt: skip
    user = person("operator")

    with pytest.raises(error, match=said):
        plan.save(user, Job(target=target, **{**usual, **fields}), source="test")
    assert not Job.objects.filter(target=target).exists()


@newest
def test_the_command_does_what_the_page_does(target, dba, said):
    names = ["nightly", "--target", target.name, "--as", dba.username]
    fields = ["--action", "vacuum", "--opens-at", "22:00", "--open-minutes", "60"]

    assert said("job", "add", *names, *fields, "--days", "sat,sun", "--arg", "analyze=true")[0] == 0
    assert said("job", "add", *names, *fields)[0] == 1
    status, _, error = said("job", "add", *names, *fields, "--days", "someday")
    assert (status, "is not a weekday" in error, error.count("\n")) == (2, True, 0)
    assert said("job", "pause", *names)[0] == 0
    status, out, _ = said("job", "list", "--json")
    assert '"weekdays": ["sat", "sun"]' in out
    assert '"enabled": false' in out
    assert said("job", "remove", *names)[0] == 0
    assert said("job", "run", *names)[0] == 1
    assert {"job.add", "job.edit", "job.remove"} <= set(
        AuditEntry.objects.values_list("what", flat=True)
    )


@newest
def test_the_pages_make_change_and_remove_a_job(client, target, dba):
    client.force_login(dba)
    address = reverse("job-new", args=[target.name])
    entered = {"name": "weekly", "action": "vacuum", "options": ["analyze"], "tables": "",
               "weekdays": ["6"], "opens_at": "22:00", "time_zone": "Europe/Paris",
               "open_minutes": "240", "at_once": "1"}  # fmt: skip

    wrong = client.post(address, {**entered, "tables": "orders", "time_zone": "Mars/Base"})
    assert wrong.status_code == 400
    text = wrong.content.decode()
    assert "as shop: public.orders" in text
    assert "Mars/Base is not a time zone" in text
    assert 'value="weekly"' in text

    assert client.post(address, entered).status_code == 302
    made = Job.objects.get()
    assert (made.owner, made.options, made.weekdays) == (dba, {"analyze": "true"}, [6])
    page = client.get(reverse("jobs", args=[target.name])).content.decode()
    assert "Sun 22:00 for 4 h (Europe/Paris)" in page
    client.post(reverse("job-switch", args=[target.name, "weekly"]), {"enabled": "false"})
    made.refresh_from_db()
    assert (made.enabled, made.next_at) == (False, None)
    client.post(reverse("job-remove", args=[target.name, "weekly"]))
    assert not Job.objects.exists()


@newest
def test_a_viewer_sees_jobs_and_can_not_touch_them(client, job, target, person):
    job()
    client.force_login(person("viewer"))

    page = client.get(reverse("jobs", args=[target.name])).content.decode()

    assert "nightly" in page
    assert "Run now" not in page
    assert client.post(reverse("job-run", args=[target.name, "nightly"])).status_code == 403
    assert client.post(reverse("job-remove", args=[target.name, "nightly"])).status_code == 403
    assert Batch.objects.count() == 0
