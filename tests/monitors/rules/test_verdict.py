"""Whether an action helped: on real servers where it shows at once, from the history where not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from monitors.acting import effect
from monitors.actions import ACTIONS
from monitors.history import store
from monitors.history.reading import Place, Reading
from monitors.models import HISTORY, Action, Database
from monitors.rules.verdict import Course, Word, of_parameters
from monitors.words import MINUS

pytestmark = pytest.mark.django_db
DONE = datetime(2026, 11, 20, 12, tzinfo=UTC)
EPOCH = "2026-11-01T00:00:00+00:00|2026-11-01T00:00:00+00:00"


@pytest.fixture
def dba(person):
    return person("dba")


@pytest.fixture
def target(server, watch):
    return watch(server, operator_user="operator")


def test_a_vacuum_that_cleans_helped(server, target, dba, table, done):
    row = done(dba, target, "vacuum", table=table(server))

    assert (row.verdict, row.verdict_text) == ("helped", "dead rows 100 → 0")
    assert row.judged_at == row.finished_at


def test_a_vacuum_that_could_not_clean_changed_nothing(server, target, dba, table, done):
    with server.connect(dbname="shop", autocommit=False) as old:
        old.execute("SELECT pg_current_xact_id()")
        name = table(server)
        row = done(dba, target, "vacuum", table=name)

    assert row.state == Action.State.SUCCEEDED
    assert row.verdict == "no change"
    assert "holds the horizon" in row.verdict_text


def test_a_rewrite_of_a_bloated_table_helped_and_of_a_dense_one_changed_nothing(
    server, target, dba, table, done
):
    name = table(server, dead=900)

    first = done(dba, target, "vacuum_full", table=name)
    second = done(dba, target, "vacuum_full", table=name)

    assert (first.verdict, second.verdict) == ("helped", "no change")
    assert first.verdict_text.startswith(f"size {MINUS}")


def test_a_rebuilt_index_is_measured_by_its_name(server, target, dba, table, done):
    name = table(server, dead=900)
    index = f"{name}_id"
    with server.connect(user="owner", dbname="shop") as session:
        session.execute(f"CREATE INDEX {index.removeprefix('public.')} ON {name} (id)")
        session.execute(f"INSERT INTO {name} SELECT generate_series(1, 20000)")
        session.execute(f"DELETE FROM {name} WHERE id > 10")

    row = done(dba, target, "reindex", index=index)

    assert row.state == Action.State.SUCCEEDED, row.outcome
    assert 0 < row.after["index_bytes"] < row.before["index_bytes"]
    assert row.verdict == "helped"


def test_an_analyze_is_judged_by_the_changes_since_the_last(server, target, dba, table, done):
    row = done(dba, target, "analyze", table=table(server))

    assert row.verdict == "helped"


@pytest.mark.parametrize(
    ("name", "before", "after", "word"),
    [
        ("vacuum", {"n_dead_tup": 100}, {"n_dead_tup": 50}, Word.HELPED),
        ("vacuum", {"n_dead_tup": 100}, {"n_dead_tup": 51}, Word.NO_CHANGE),
        ("vacuum", {"n_dead_tup": 0}, {"n_dead_tup": 0}, Word.NO_CHANGE),
        ("vacuum", {"n_dead_tup": 0, "relallvisible": 1}, {"n_dead_tup": 0, "relallvisible": 9},
         Word.HELPED),
        ("reindex", {"index_bytes": 1000}, {"index_bytes": 950}, Word.HELPED),
        ("reindex", {"index_bytes": 1000}, {"index_bytes": 951}, Word.NO_CHANGE),
        ("vacuum_full", {"size_bytes": 1000}, {"size_bytes": 1050}, Word.WORSE),
        ("analyze", {"n_mod_since_analyze": 0}, {"n_mod_since_analyze": 0}, Word.NO_CHANGE),
    ],
)  # fmt: skip
def test_the_words_have_their_bounds(name, before, after, word):
    found = ACTIONS[name].judge(before, after)

    assert found is not None
    assert found.word == word


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("cancel_backend", {}, {}),
        ("vacuum", {"n_dead_tup": 5}, {}),
        ("vacuum_full", {"size_bytes": None}, {"size_bytes": 5}),
    ],
)
def test_without_numbers_there_is_no_verdict(name, before, after):
    assert ACTIONS[name].judge(before, after) is None


def course(**fields):
    usual = {"seconds": 3600, "usual_dead": 1000, "autovacuums": 10, "writes": 1_000_000,
             "size_bytes": 1000, "grown_bytes": 0}  # fmt: skip
    return Course(**{**usual, **fields})


@pytest.mark.parametrize(
    ("after", "thresholds", "word"),
    [
        ({"usual_dead": 800}, (1000, 500), Word.HELPED),
        ({"usual_dead": 801}, (1000, 500), Word.NO_CHANGE),
        ({"usual_dead": 1200}, (1000, 500), Word.WORSE),
        ({"usual_dead": 5000, "autovacuums": 8}, (1000, 5000), Word.HELPED),
        (
            {"usual_dead": 5000, "autovacuums": 20, "writes": 2_000_000},
            (1000, 5000),
            Word.NO_CHANGE,
        ),
        ({"usual_dead": 5000, "autovacuums": 2, "grown_bytes": 60}, (1000, 5000), Word.WORSE),
    ],
)
def test_parameters_are_judged_by_what_they_are_for(after, thresholds, word):
    found = of_parameters(course(), course(**after), *thresholds)

    assert found is not None
    assert found.word == word


@pytest.fixture
def asked(embedded, watch):
    """A target with the history of one table around a change of its parameters."""
    target = watch(embedded, name="judged")
    database = Database.objects.create(target=target, datid=5, datname="judged")
    place = Place(HISTORY["tables"], target.pk, database.pk)
    names = HISTORY["tables"].sample.columns()

    def keep(minute, runs, dead, updates):
        values = {"relid": 7, "n_dead_tup": dead, "autovacuum_count": runs, "n_tup_upd": updates,
                  "schemaname": "public", "relname": "judged", "relkind": "r"}  # fmt: skip
        moment = DONE + timedelta(minutes=minute)
        store.store(
            place,
            Reading([tuple(values.get(name) for name in names)], target_at=moment),
            taken_at=moment,
            interval_seconds=300,
            next_due=moment,
            epoch=EPOCH,
        )

    def action(**fields):
        return Action.objects.create(
            name="set_autovacuum", target=target, target_name=target.name, asked_by_name="dba",
            identity={"relid": 7, "datid": 5}, state="succeeded", finished_at=DONE,
            before={"vacuum_threshold": 2000}, after={"vacuum_threshold": 200}, **fields,
        )  # fmt: skip

    return keep, action


def test_new_parameters_are_judged_once_autovacuum_came_three_times(asked):
    keep, action = asked
    runs, updates = 0, 0
    for minute in range(-120, 121, 5):
        updates += 100
        runs += minute > 0 and minute % 30 == 0
        keep(minute, runs, 190 - minute % 30 if minute > 0 else 1900 + minute, updates)
    row = action()

    effect.judge_due(DONE + timedelta(minutes=59))
    row.refresh_from_db()
    assert not row.verdict
    effect.judge_due(DONE + timedelta(minutes=125))
    row.refresh_from_db()

    assert row.verdict == "helped"
    assert "autovacuums 0 → 4" in row.verdict_text
    assert row.judged_at == DONE + timedelta(minutes=125)


def test_with_too_little_history_there_is_no_verdict_yet(asked):
    keep, action = asked
    keep(-10, 0, 10, 10)
    keep(10, 0, 20, 20)
    row = action()

    effect.judge_due(DONE + timedelta(hours=2))

    row.refresh_from_db()
    assert not row.verdict
    assert row.judged_at is None
