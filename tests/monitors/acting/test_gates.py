"""Hours and gates of a job, asked again before each table of its run, on real servers."""

from __future__ import annotations

from datetime import time, timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from monitors.acting import batch, gates, perform, preview, sweep
from monitors.jobs import plan, run as job_runs
from monitors.models import Action, AuditEntry, Batch, Job, JobRun
from monitors.pg.load import Load

pytestmark = pytest.mark.django_db
State = JobRun.State
LIMIT = 5
"""More active backends than other tests have on the same server."""

newest = pytest.mark.parametrize("server", [18], indirect=True, ids=str)


@pytest.fixture
def target(server, watch):
    return watch(server, operator_user="operator")


@pytest.fixture
def dba(person):
    return person("dba")


@pytest.fixture
def begun(target, dba, server, table):
    """A function that begins a run over so many tables: begun(3, max_…=…) -> run."""

    def make(count, **fields):
        tables = [{"database": "shop", "table": table(server)} for _ in range(count)]
        usual = {"name": "nightly", "action": "vacuum", "weekdays": list(range(7)),
                 "opens_at": time(0), "open_minutes": 1440, "tables": tables}  # fmt: skip
        made = plan.save(dba, Job(target=target, **{**usual, **fields}), source="test")
        run = look(made)
        assert run.state == State.PREPARING, run.text
        preview.preview_batch(str(run.batch_id))
        run = look(made)
        assert run.state == State.RUNNING, run.text
        return run

    return make


def look(job):
    """Take a job a step further, as its worker does some time later."""
    Job.objects.filter(pk=job.pk).update(next_at=timezone.now() - timedelta(seconds=1))
    job_runs.look(job.pk, timezone.now())
    return JobRun.objects.filter(job=job).first()


def rows_of(run):
    return list(run.batch.actions.order_by("batch_position"))


def states_of(run):
    return [row.state for row in rows_of(run)]


def vacuums(server, since):
    return server.log_text(since=since).count("statement: VACUUM")


@pytest.fixture
def busy(server, sleeping):
    """A function that makes the server busier than LIMIT, and returns what ends that."""

    def make():
        pids = [sleeping().info.backend_pid for _ in range(LIMIT + 1)]

        def end():
            with server.connect() as session:
                for pid in pids:
                    session.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

        return end

    return make


def test_hours_that_close_between_two_tables_let_no_further_one_begin(server, begun):
    run = begun(3)
    since = server.log_size()
    first, second, _ = rows_of(run)
    perform.perform(str(first.pk))
    JobRun.objects.filter(pk=run.pk).update(closes_at=timezone.now())

    perform.perform(str(second.pk))

    assert states_of(run) == ["succeeded", "skipped", "skipped"]
    assert vacuums(server, since) == 1
    second.refresh_from_db()
    assert second.outcome.startswith("Not begun: outside the hours of job nightly, which ended at ")
    assert second.outcome.endswith(" (UTC).")
    told = AuditEntry.objects.get(kind="outcome", action_id=second.pk)
    assert (told.result, told.reason, told.source) == ("skipped", second.outcome, "job:nightly")
    run = look(run.job)
    assert (run.state, run.text) == (
        State.DONE,
        "3 tables: 1 succeeded, 2 skipped. Its hours ended first.",
    )


def test_a_gate_that_closes_between_two_tables_holds_the_rest_until_it_opens(server, begun, busy):
    run = begun(2, max_active_backends=LIMIT)
    since = server.log_size()
    first, second = rows_of(run)
    perform.perform(str(first.pk))
    calm = busy()

    perform.perform(str(second.pk))

    assert states_of(run) == ["succeeded", "queued"]
    run.refresh_from_db()
    assert run.state == State.HELD
    assert run.text.startswith("Held after 1 table, 1 to go: ")
    assert f"backends are active; the limit is {LIMIT}." in run.text
    assert look(run.job).state == State.HELD
    calm()
    perform.perform(str(second.pk))  # a message that came twice does not ask the gates again
    assert states_of(run) == ["succeeded", "queued"]
    assert look(run.job).state == State.RUNNING
    perform.perform(str(second.pk))
    assert states_of(run) == ["succeeded", "succeeded"]
    assert vacuums(server, since) == 2
    assert look(run.job).text == "2 tables: 2 succeeded."


@newest
def test_hours_that_end_while_a_run_is_held_say_by_what(server, begun, busy):
    run = begun(2, max_active_backends=LIMIT)
    since = server.log_size()
    calm = busy()
    perform.perform(str(rows_of(run)[0].pk))
    assert states_of(run) == ["queued", "queued"]
    calm()
    JobRun.objects.filter(pk=run.pk).update(closes_at=timezone.now())

    run = look(run.job)

    assert run.state == State.DONE
    assert states_of(run) == ["skipped", "skipped"]
    assert "Held after 0 tables, 2 to go: " in rows_of(run)[0].outcome
    assert vacuums(server, since) == 0


@newest
def test_a_held_run_keeps_nobody_elses_tables_waiting(server, begun, target, dba, table):
    run = begun(1)
    JobRun.objects.filter(pk=run.pk).update(state=State.HELD, text="Held: busy.")
    tables = [{"database": "shop", "table": table(server)}]
    other = batch.preview(dba, target, "vacuum", tables, {}, source="test")
    preview.preview_batch(str(other.pk))
    batch.request(dba, other, source="test")

    assert [row.batch_id for row in batch.waiting_rows(target.pk)] == [other.pk]


@newest
def test_the_sweep_leaves_the_end_of_the_hours_to_the_job(begun):
    run = begun(1)
    JobRun.objects.filter(pk=run.pk).update(closes_at=timezone.now())
    Action.objects.filter(batch=run.batch).update(expires_at=timezone.now())

    sweep.sweep()
    assert states_of(run) == ["queued"]
    look(run.job)

    assert states_of(run) == ["skipped"]


@newest
def test_nothing_begins_after_the_hours_of_a_job_that_was_removed(begun, dba):
    run = begun(1)
    [row] = rows_of(run)
    assert row.expires_at == run.closes_at
    plan.remove(dba, run.job, source="test")
    Action.objects.filter(pk=row.pk).update(expires_at=timezone.now())

    perform.perform(str(row.pk))
    sweep.sweep()

    row.refresh_from_db()
    assert (row.state, row.started_at) == ("expired", None)
    assert row.outcome == "Its time was over before its turn came: nothing was sent."


@newest
def test_a_run_is_followed_while_its_job_rests(begun, dba):
    run = begun(1)
    plan.switch(dba, run.job, enabled=False, source="test")

    run.job.refresh_from_db()
    assert run.job.next_at is not None
    JobRun.objects.filter(pk=run.pk).update(closes_at=timezone.now())
    assert look(run.job).state == State.DONE
    run.job.refresh_from_db()
    assert run.job.next_at is None


def test_vacuums_of_the_same_run_do_not_count(server, target, live, background, eventually):
    session = live(server, user="owner", dbname="shop")
    session.execute("CREATE TEMP TABLE slow AS SELECT generate_series(1, 20000) AS id")
    session.execute("SET vacuum_cost_delay = '100ms'")
    session.execute("SET vacuum_cost_limit = 1")
    pid = session.info.backend_pid

    background(session, "VACUUM slow")
    with server.connect() as look_on:
        seen = "SELECT 1 FROM pg_stat_progress_vacuum WHERE pid = %s"
        eventually(lambda: look_on.execute(seen, [pid]).fetchone())
    every, others = gates.load_of(target), gates.load_of(target, [pid])

    assert every.running_vacuums - others.running_vacuums == 1


@newest
def test_page_export_and_command_say_why_a_table_waits(begun, client, dba, said):
    run = begun(2)
    reason = "Held after 0 tables, 2 to go: 7 backends are active; the limit is 4."
    JobRun.objects.filter(pk=run.pk).update(state=State.HELD, text=reason)
    client.force_login(dba)

    page = client.get(reverse("batch", args=[run.batch_id])).content.decode()
    exported = client.get(reverse("batch", args=[run.batch_id]), {"format": "csv"})
    listed = client.get(reverse("jobs", args=[run.job.target.name])).content.decode()
    status, out, _ = said("job", "runs", "nightly", "--target", run.job.target.name, "--json")

    assert f"{reason} It is asked again every 30 s." in page
    assert page.count("Held: see above") == 2
    assert b"".join(exported.streaming_content).decode().count(reason) == 2
    assert reason in listed
    assert status == 0
    assert f'"text": "{reason}"' in out
    assert out.count('"state": "queued"') == 2
    assert f'"outcome": "{reason}"' in out


@newest
def test_the_command_prints_each_table_of_a_run(begun, said):
    run = begun(1)
    perform.perform(str(rows_of(run)[0].pk))

    status, out, _ = said("job", "runs", "nightly", "--target", run.job.target.name)

    assert status == 0
    assert f"{rows_of(run)[0].object_name}: succeeded. Dead rows 100 → 0" in out
    assert said("job", "runs", "never", "--target", run.job.target.name)[0] == 1
    assert Batch.objects.count() == 1


def test_gates_are_sentences():
    job = Job(max_active_backends=5, max_running_vacuums=0, max_replay_lag_bytes=10)

    assert gates.sentences(job, Load(5, 0, None)) == []
    assert gates.sentences(job, Load(6, 1, 11)) == [
        "6 backends are active; the limit is 5.",
        "1 vacuum runs; the limit is 0.",
        "A standby is 11 bytes behind; the limit is 10 bytes.",
    ]


def test_the_load_is_read_on_every_version(server, target):
    now = gates.load_of(target)

    assert now.active_backends >= 0
    assert now.running_vacuums >= 0
    assert now.replay_lag_bytes is None
