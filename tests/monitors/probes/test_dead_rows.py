"""Dead rows after a rewrite: the server goes on counting those that are gone, Howdah doesn't."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, VacuumRun
from monitors.probes.tables import Dead, known_dead

A, B = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
NEVER = (None, None, None, None)
RELID, NEW_FILE = 20_000, 30_000


def reading(dead, file=RELID, gone=None, counted_at=NEVER, visible=0):
    return Dead(RELID, file, dead, gone, visible, counted_at)


ANALYZED = (None, None, A, None)


@pytest.mark.parametrize(
    ("before", "now", "kept"),
    [
        pytest.param(None, reading(7), (7, None), id="young"),
        pytest.param(None, reading(7, NEW_FILE), (None, 7), id="rewritten-before"),
        pytest.param(None, reading(7, NEW_FILE, None, ANALYZED), (None, 7), id="counted-when"),
        pytest.param(None, reading(7, NEW_FILE, None, ANALYZED, 1), (7, None), id="counted-after"),
        pytest.param(None, reading(0, NEW_FILE), (0, None), id="rewritten-and-none"),
        pytest.param(None, reading(None, 0), (None, None), id="partitioned"),
        pytest.param(reading(5), reading(7), (7, None), id="as-usual"),
        pytest.param(reading(5), reading(5, NEW_FILE), (0, 5), id="rewritten"),
        pytest.param(reading(5), reading(7, NEW_FILE), (None, 7), id="died-beside-it"),
        pytest.param(reading(5), reading(3, NEW_FILE), (None, 3), id="reset-beside-it"),
        pytest.param(reading(5), reading(None, NEW_FILE), (None, None), id="not-counted-here"),
        pytest.param(reading(5), reading(5, NEW_FILE, None, ANALYZED), (None, 5), id="both"),
        pytest.param(
            reading(5), reading(5, NEW_FILE, None, ANALYZED, 1), (5, None), id="then-counted"
        ),
        pytest.param(
            reading(5), reading(0, NEW_FILE, None, ANALYZED), (0, None), id="both-and-none"
        ),
        pytest.param(reading(0, NEW_FILE, 7), reading(9, NEW_FILE), (2, 7), id="since"),
        pytest.param(
            reading(None, NEW_FILE, 7), reading(9, NEW_FILE), (None, 9), id="not-known-since"
        ),
        pytest.param(
            reading(None, NEW_FILE, 7),
            reading(3, NEW_FILE, None, ANALYZED),
            (3, None),
            id="counted",
        ),
        pytest.param(reading(0, NEW_FILE, 7), reading(3, NEW_FILE), (3, None), id="fallen"),
        pytest.param(reading(2, NEW_FILE, 7), reading(9, 40_000), (0, 9), id="rewritten-again"),
    ],
)
def test_what_is_kept(before, now, kept):
    assert known_dead(before, now) == kept


@pytest.mark.parametrize(
    ("now", "kept"),
    [(reading(9, NEW_FILE), (9, None)), (reading(7, 40_000), (None, 7))],
    ids=["as-usual", "rewritten"],
)
def test_what_counts_anew_is_not_compared(now, kept):
    assert known_dead(reading(0, NEW_FILE, 7), now, is_reset=True) == kept


@pytest.fixture
def run(server):
    """Run statements on the table `anew` as its owner."""

    def statements(*texts):
        with server.connect(dbname="shop", user="owner") as session:
            for text in texts:
                session.execute(text)

    yield statements
    statements("DROP TABLE IF EXISTS anew")


@pytest.fixture
def said(server):
    """What the server says of the table's dead rows, once its statistics have told it."""

    def read():
        with server.connect(dbname="shop") as session:
            session.execute("SELECT pg_stat_clear_snapshot()")
            [(dead,)] = session.execute("SELECT pg_stat_get_dead_tuples('anew'::regclass)")
        return dead

    return read


FILLED = (
    "CREATE TABLE anew (id int) WITH (autovacuum_enabled = off)",
    "INSERT INTO anew SELECT generate_series(1, 5000)",
    "DELETE FROM anew WHERE id <= 3000",
)


@pytest.fixture
def target(server, watch, eventually, run, said):
    """A target whose table `anew` was read with its 3000 dead rows."""
    watched = watch(server)
    run(*FILLED)
    eventually(lambda: said() == 3000)
    take_now(watched)
    return watched


def kept():
    rows = HISTORY["tables"].latest._default_manager.filter(relname="anew", gone_at=None)
    return rows.values_list("n_dead_tup", "rewritten_dead_tup").get()


@pytest.mark.django_db
@pytest.mark.fleet
@pytest.mark.parametrize("was_read", [True, False])
def test_of_a_table_that_nobody_saw_before_its_rewrite_nothing_is_said(
    server, watch, eventually, run, said, was_read
):
    target = watch(server)
    if was_read:
        take_now(target)
    run(*FILLED)
    eventually(lambda: said() == 3000)
    run("VACUUM FULL anew")

    take_now(target)

    assert kept() == ((None, 3000) if said() else (0, None))
    run("DELETE FROM anew WHERE id <= 4000")
    take_now(target, ["tables"])
    if said():
        assert kept()[0] is None
    run("VACUUM anew")
    eventually(lambda: said() == 0)
    take_now(target, ["tables"])
    assert kept() == (0, None)


@pytest.mark.django_db
@pytest.mark.fleet
@pytest.mark.parametrize(
    ("statements", "known"),
    [
        (("ANALYZE anew", "VACUUM FULL anew"), None),
        (("VACUUM (FULL, ANALYZE) anew",), 0),
    ],
    ids=["counted-before", "counted-after"],
)
def test_what_was_counted_between_two_readings_is_not_taken_for_later(  # noqa: PLR0917 - fixtures
    server, target, eventually, run, said, statements, known
):
    assert kept() == (3000, None)
    run(*statements)
    with server.connect(dbname="shop") as session:
        told = "SELECT pg_stat_get_last_analyze_time('anew'::regclass) IS NOT NULL"
        eventually(lambda: list(session.execute(told)) == [(True,)])  # 14 tells it late

    take_now(target, ["tables"])

    dead = said()
    assert kept() == ((known, dead) if dead else (0, None))


@pytest.mark.django_db
@pytest.mark.fleet
def test_who_dies_beside_a_rewrite_is_not_counted_as_gone(target, eventually, run, said):
    run("VACUUM FULL anew", "DELETE FROM anew WHERE id <= 4000")
    counted = said()
    eventually(lambda: said() == (4000 if counted else 1000))

    take_now(target, ["tables"])

    assert kept() == ((None, 4000) if counted else (1000, None))


@pytest.mark.django_db
@pytest.mark.fleet
def test_after_a_reset_the_server_counts_anew(server, target, eventually, run, said):
    run("VACUUM FULL anew", "INSERT INTO anew SELECT generate_series(1, 9000)")
    take_now(target, ["tables"])
    with server.connect(dbname="shop") as session:
        session.execute("SELECT pg_stat_reset_single_table_counters('anew'::regclass)")
    eventually(lambda: said() == 0)
    run("UPDATE anew SET id = id")
    eventually(lambda: said() == 11000)

    take_now(target, ["tables"])

    assert kept() == (11000, None)


@pytest.mark.django_db
@pytest.mark.fleet
@pytest.mark.parametrize("is_vacuumed", [False, True])
def test_what_was_rewritten_before_it_was_watched_is_doubted_until_it_is_counted(
    server, watch, eventually, run, said, is_vacuumed
):
    run(*FILLED)
    eventually(lambda: said() == 3000)
    run("ANALYZE anew", "VACUUM FULL anew")
    if is_vacuumed:
        run("VACUUM anew", "DELETE FROM anew WHERE id <= 4000")
        eventually(lambda: said() == 1000)

    take_now(watch(server))

    known = said()
    assert kept() == ((known, None) if is_vacuumed or not known else (None, known))


@pytest.mark.django_db
@pytest.mark.fleet
def test_a_vacuum_is_not_credited_with_what_a_rewrite_removed(target, eventually, run, said):
    run("VACUUM FULL anew", "VACUUM anew")
    eventually(lambda: said() == 0)

    take_now(target, ["tables"])

    runs = {run.kind: run for run in VacuumRun.objects.filter(relname="anew", target_id=target.pk)}
    assert (runs["vacuum"].n_dead_before, runs["vacuum"].size_before) == (None, None)
    assert (runs["rewrite"].n_dead_before, runs["rewrite"].n_dead_after) == (3000, 0)
    assert (runs["rewrite"].size_before or 0) > (runs["rewrite"].size_after or 0)


@pytest.mark.django_db
@pytest.mark.fleet
@pytest.mark.parametrize("is_partitioned", [False, True])
def test_an_action_takes_no_credit_for_what_a_rewrite_took_away(  # noqa: PLR0917 - fixtures
    server, watch, person, eventually, run, said, previewed, done, is_partitioned
):
    target = watch(server, operator_user="operator")
    run(*FILLED)
    if is_partitioned:
        run(
            "ALTER TABLE anew RENAME TO anew_part",
            "CREATE TABLE anew (id int) PARTITION BY RANGE (id)",
            "ALTER TABLE anew ATTACH PARTITION anew_part DEFAULT",
        )
    table = "anew_part" if is_partitioned else "anew"
    with server.connect(dbname="shop") as session:
        dead = f"SELECT pg_stat_get_dead_tuples('{table}'::regclass)"
        eventually(lambda: list(session.execute(dead)) == [(3000,)])
    take_now(target)
    user = person("dba")
    assert (
        dict(previewed(user, target, "vacuum", table="public.anew").preview["facts"])["Dead rows"]
        == "3,000"
    )
    full = done(user, target, "vacuum_full", table=f"public.{table}")
    assert (full.before["n_dead_tup"], full.after["n_dead_tup"]) == (3000, 0)

    preview = previewed(user, target, "vacuum", table="public.anew").preview
    row = done(user, target, "vacuum", table="public.anew")

    assert dict(preview["facts"])["Dead rows"] == "0"
    assert (row.before["n_dead_tup"], row.after["n_dead_tup"]) == (0, 0)
    assert row.effect.startswith("dead rows 0 → 0")
    assert row.verdict != "helped"


@pytest.mark.django_db
@pytest.mark.fleet
def test_a_preview_says_what_is_not_known(  # noqa: PLR0917 - fixtures
    server, watch, person, eventually, run, said, previewed
):
    target = watch(server, operator_user="operator")
    take_now(target)
    run(*FILLED)
    eventually(lambda: said() == 3000)
    run("VACUUM FULL anew")

    preview = previewed(person("dba"), target, "vacuum", table="public.anew").preview

    dead = dict(preview["facts"])["Dead rows"]
    assert dead.startswith("not known: it was rewritten") if said() else dead == "0"
    assert preview["n_dead_tup"] == (None if said() else 0)
