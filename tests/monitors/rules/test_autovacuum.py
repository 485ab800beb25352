"""Autovacuum's arithmetic, by its rules and against real servers."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from monitors.rules import autovacuum_queue
from monitors.rules.autovacuum import is_on, parse_options, threshold, xid_age
from tests import servers


def of(reloptions=None, *, settings=None, version=180004, **columns):
    facts = {"reltuples": 1000.0, "relpages": 100, "relallfrozen": 0} | columns
    return threshold(settings or {}, reloptions, server_version=version, **facts)


def test_a_thousand_rows_are_vacuumed_beyond_250_dead_ones():
    limits = of()

    assert (limits.vacuum, limits.insert, limits.analyze) == (250, 1200, 150)
    assert limits.enabled


def test_settings_of_the_server_count():
    settings = {
        "autovacuum_vacuum_threshold": "10",
        "autovacuum_vacuum_scale_factor": "0.5",
        "autovacuum_vacuum_insert_threshold": "20",
        "autovacuum_vacuum_insert_scale_factor": "0.25",
        "autovacuum_analyze_threshold": "30",
        "autovacuum_analyze_scale_factor": "0.125",
    }

    limits = of(settings=settings)

    assert (limits.vacuum, limits.insert, limits.analyze) == (510, 270, 155)


def test_storage_options_win_over_settings_one_by_one():
    options = [
        "autovacuum_vacuum_scale_factor=0",
        "fillfactor=70",
        "autovacuum_analyze_threshold=7",
    ]

    limits = of(options, settings={"autovacuum_vacuum_threshold": "10"})

    assert (limits.vacuum, limits.analyze) == (10, 107)


@pytest.mark.parametrize("reltuples", [-1.0, 0.0, None])
def test_a_table_that_was_never_looked_at_counts_no_rows(reltuples):
    assert of(reltuples=reltuples).vacuum == 50


@pytest.mark.parametrize(
    ("version", "limit"), [(140023, 200_000_050), (170010, 200_000_050), (180004, 100_000_000)]
)
def test_18_caps_the_threshold_of_huge_tables(version, limit):
    # In four bytes the neighbours of 200,000,050 are 16 apart: 200,000,048 it is.
    assert of(version=version, reltuples=1e9).vacuum == pytest.approx(limit, abs=2)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["autovacuum_vacuum_max_threshold=-1"], {}),
        (None, {"autovacuum_vacuum_max_threshold": "-1"}),
    ],
)
def test_minus_one_lifts_the_cap(options, settings):
    assert of(options, settings=settings, reltuples=1e9).vacuum > 199_000_000


def test_a_tables_own_cap_counts():
    assert of(["autovacuum_vacuum_max_threshold=100"]).vacuum == 100


@pytest.mark.parametrize(
    ("version", "relallfrozen", "limit"),
    [
        (170010, 75, 1200),  # before 18 the column does not exist and counts for nothing
        (180004, 75, 1050),  # a quarter of 100 pages is not frozen
        (180004, 0, 1200),
        (180004, None, 1200),
        (180004, 100, 1000),
        (180004, 250, 1000),  # more frozen pages than pages: as many as there are
    ],
)
def test_18_counts_inserts_against_the_unfrozen_share(version, relallfrozen, limit):
    assert of(version=version, relallfrozen=relallfrozen).insert == limit


@pytest.mark.parametrize("relpages", [0, None])
def test_a_table_without_pages_is_unfrozen(relpages):
    assert of(relpages=relpages, relallfrozen=5).insert == 1200


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["autovacuum_vacuum_insert_threshold=-1"], {}),
        (None, {"autovacuum_vacuum_insert_threshold": "-1"}),
    ],
)
def test_minus_one_turns_vacuums_for_inserts_off(options, settings):
    assert of(options, settings=settings).insert is None


def test_toast_tables_are_never_analyzed():
    assert of(relkind="t").analyze is None
    assert of(relkind="t").vacuum == 250


@pytest.mark.parametrize(
    ("options", "settings", "enabled"),
    [
        (["autovacuum_enabled=false"], {}, False),
        (["autovacuum_enabled=OFF"], {}, False),
        (["autovacuum_enabled=0"], {}, False),
        (["autovacuum_enabled=true"], {}, True),
        (["autovacuum_enabled=true"], {"autovacuum": "off"}, False),
        (None, {"autovacuum": "off"}, False),
        (None, {"track_counts": "off"}, False),
    ],
)
def test_it_is_off_for_the_table_or_for_the_server(options, settings, enabled):
    assert of(options, settings=settings).enabled is enabled


def test_thresholds_of_a_table_without_autovacuum_are_still_told():
    assert of(["autovacuum_enabled=off"]).vacuum == 250


def test_options_are_read_as_the_catalog_writes_them():
    assert parse_options(["a=1", "b=x=y", "autovacuum_enabled"]) == {
        "a": "1",
        "b": "x=y",
        "autovacuum_enabled": "on",
    }
    assert parse_options(None) == {}


@pytest.mark.parametrize("text", ["on", "ON", "true", "t", "tru", "yes", "y", "1"])
def test_these_words_are_true(text):
    assert is_on(text)


@pytest.mark.parametrize("text", ["off", "of", "false", "f", "no", "n", "0", "", "2"])
def test_these_words_are_false(text):
    assert not is_on(text)


@pytest.mark.parametrize(
    ("next_xid", "relfrozenxid", "age"),
    [
        (1000, 700, 300),
        (2**32 + 100, 2**32 - 50, 150),  # the 32-bit id wrapped in between
        (7 * 2**32 + 500, 400, 100),
        (2**32 + 10, 2**31 + 20, 2**31 - 10),
        (500, 510, 0),  # read a moment after next_xid
        (1000, 2, 2**31 - 1),  # frozen for ever
        (1000, 0, None),  # a table without rows of its own
        (None, 700, None),
        (1000, None, None),
    ],
)
def test_an_age_is_told_across_the_wrap(next_xid, relfrozenxid, age):
    assert xid_age(next_xid, relfrozenxid) == age


SETTINGS_SQL = """
SELECT s.name, s.setting
  FROM pg_catalog.pg_settings AS s
 WHERE s.name LIKE 'autovacuum%' OR s.name = 'track_counts'
"""
TABLE_SQL = """
SELECT c.reltuples,
       c.relpages,
       (to_jsonb(c) ->> 'relallfrozen')::integer AS relallfrozen,
       c.reloptions,
       pg_catalog.pg_stat_get_dead_tuples(c.oid) AS n_dead_tup,
       pg_catalog.pg_stat_get_autovacuum_count(c.oid) AS autovacuum_count
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = %(table)s::text::regclass
"""
# Without ANALYZE in between, which would lower reltuples and with it the threshold.
NO_ANALYZE = "autovacuum_analyze_threshold = 1000000, autovacuum_vacuum_cost_delay = 0"


@pytest.fixture(params=[servers.MAJORS[0], servers.MAJORS[-1]], ids=str)
def restless(request, monkeypatch):
    """A session on a server of its own whose autovacuum, off at first, would come each second."""
    try:
        programs = servers.fleet_programs(request.param)
    except servers.Missing as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    monkeypatch.setitem(servers.SETTINGS, "autovacuum_naptime", "1s")
    with ExitStack() as stack:
        folder = stack.enter_context(servers.home())
        server = stack.enter_context(servers.running(request.param, programs, folder))
        session = stack.enter_context(server.connect())
        turn(session, "off")
        yield session


def turn(session, word):
    session.execute(f"ALTER SYSTEM SET autovacuum = '{word}'")
    session.execute("SELECT pg_catalog.pg_reload_conf()")


@pytest.mark.fleet
def test_the_server_comes_at_251_dead_rows_and_not_at_250(restless, eventually):
    def facts(table):
        cursor = restless.execute(TABLE_SQL, {"table": table})
        names = [column.name for column in cursor.description]
        return dict(zip(names, cursor.fetchone(), strict=True))

    def kill(table, dead):
        restless.execute(f"DELETE FROM {table} WHERE id <= %(dead)s", {"dead": dead})
        eventually(lambda: facts(table)["n_dead_tup"] == dead or comes(table))
        return facts(table)

    def comes(table):
        return facts(table)["autovacuum_count"] > 0

    def is_due(row, settings):
        dead = row.pop("n_dead_tup")
        del row["autovacuum_count"]
        version = restless.info.server_version
        limits = threshold(settings, server_version=version, **row)
        return limits.enabled and dead > limits.vacuum

    for table in ("kept", "due", "later"):
        restless.execute(f"CREATE TABLE {table} (id integer) WITH ({NO_ANALYZE})")
        restless.execute(f"INSERT INTO {table} SELECT generate_series(1, 1000)")
        restless.execute(f"VACUUM ANALYZE {table}")
    kept, due = kill("kept", 250), kill("due", 251)

    turn(restless, "on")
    eventually(lambda: comes("due"), seconds=30)
    kill("later", 251)  # the round that takes this one has seen `kept` again
    eventually(lambda: comes("later"), seconds=30)
    settings = dict(restless.execute(SETTINGS_SQL).fetchall())

    assert not comes("kept")
    assert (is_due(kept, settings), is_due(due, settings)) == (False, True)


CHANGED_SQL = """
SELECT pg_catalog.pg_stat_get_dead_tuples(c.oid) AS n_dead_tup,
       pg_catalog.pg_stat_get_ins_since_vacuum(c.oid) AS n_ins_since_vacuum,
       pg_catalog.pg_stat_get_autovacuum_count(c.oid) AS autovacuum_count,
       c.reltuples,
       c.relpages,
       c.relkind::text AS relkind,
       (to_jsonb(c) ->> 'relallfrozen')::integer AS relallfrozen,
       c.reloptions,
       c.oid::bigint AS relid,
       c.relfrozenxid::text::bigint AS relfrozenxid,
       c.relminmxid::text::bigint AS relminmxid,
       pg_catalog.pg_stat_get_mod_since_analyze(c.oid) AS n_mod_since_analyze,
       pg_catalog.age(c.relfrozenxid)::bigint AS xid_age
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = %(relid)s
"""
NEXT_XID_SQL = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


class Table:
    """A table of a restless server: what the server counts, and what we make of it."""

    def __init__(self, session, name, options="", *, toast=False):
        self.session, self.name = session, name
        session.execute(f"CREATE TABLE {name} (id integer, body text) WITH ({options})")
        session.execute(f"ALTER TABLE {name} ALTER body SET STORAGE EXTERNAL")
        column = "reltoastrelid" if toast else "oid"
        statement = f"SELECT {column}::bigint FROM pg_class WHERE oid = '{name}'::regclass"
        [self.relid] = session.execute(statement).fetchone()
        self.main = Table.__new__(Table) if toast else None
        if self.main is not None:
            self.main.session = session
            [self.main.relid] = session.execute(statement.replace(column, "oid")).fetchone()

    def facts(self):
        cursor = self.session.execute(CHANGED_SQL, {"relid": self.relid})
        names = [column.name for column in cursor.description]
        return dict(zip(names, cursor.fetchone(), strict=True))

    def was_vacuumed(self):
        return self.facts()["autovacuum_count"] > 0

    def is_due(self):
        settings = {**dict(self.session.execute(SETTINGS_SQL).fetchall()), "autovacuum": "on"}
        main = self.main.facts() if self.main is not None else None
        limits = autovacuum_queue.limits_of(
            self.facts(), main, settings, self.session.info.server_version
        )
        [next_xid] = self.session.execute(NEXT_XID_SQL).fetchone()
        return autovacuum_queue.scores_of(
            self.facts(), limits, settings, next_xid=next_xid
        ).do_vacuum


def at_and_beyond(session, eventually, kind, options, *, toast=False):
    """Return two tables of 1000 rows, or of 20 rows with a TOAST table, vacuumed just now."""
    found = [Table(session, f"{kind}_{end}", options, toast=toast) for end in ("at", "beyond")]
    # 9,000 bytes are five rows of a TOAST table of 1,996 bytes at most.
    rows = (
        "g, repeat('x', 9000) FROM generate_series(1, 20)"
        if toast
        else "g, '' FROM generate_series(1, 1000)"
    )
    for table in found:
        session.execute(f"INSERT INTO {table.name} SELECT {rows} AS g")
        # Rows that are counted after a vacuum would count for the next one.
        eventually(lambda table=table: table.facts()["n_ins_since_vacuum"] > 0)
        session.execute(f"VACUUM ANALYZE {table.name}")
        eventually(lambda table=table: table.facts()["n_ins_since_vacuum"] == 0)
    return found


@pytest.mark.fleet
def test_options_inserts_and_toast_bring_the_server_where_we_say(restless, eventually):
    """Pairs of tables, one at its threshold and one a row beyond: the server takes the second."""
    quiet = "autovacuum_vacuum_insert_threshold = -1, " + NO_ANALYZE
    own = f"autovacuum_vacuum_threshold = 7, autovacuum_vacuum_scale_factor = 0.01, {quiet}"
    inserts = f"autovacuum_vacuum_insert_threshold = 30, {NO_ANALYZE}"
    inserts += (
        ", autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_threshold = 100000"
    )
    toast = (
        f"toast.autovacuum_vacuum_threshold = 20, toast.autovacuum_vacuum_scale_factor = 0, {quiet}"
    )
    toast += (
        ", toast.autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_cost_delay = 0"
    )
    follows = f"autovacuum_vacuum_threshold = 20, autovacuum_vacuum_scale_factor = 0, {quiet}"
    pairs = {
        "own": at_and_beyond(restless, eventually, "own", own),
        "ins": at_and_beyond(restless, eventually, "ins", inserts),
        "toast": at_and_beyond(restless, eventually, "toast", toast, toast=True),
        "follows": at_and_beyond(restless, eventually, "follows", follows, toast=True),
    }
    for table, rows in zip(pairs["own"], (17, 18), strict=True):
        restless.execute(f"DELETE FROM {table.name} WHERE id <= {rows}")
    for table, rows in zip(pairs["ins"], (1, 2), strict=True):
        # Frozen pages lower the threshold on 18: as many rows as it says, and one more.
        facts = table.facts()
        settings = dict(restless.execute(SETTINGS_SQL).fetchall())
        limit = autovacuum_queue.limits_of(facts, None, settings, restless.info.server_version)
        count = int(limit.vacuum_insert or 0) + rows - 1
        restless.execute(f"INSERT INTO {table.name} SELECT generate_series(1, {count})")
    for kind in ("toast", "follows"):
        for table, rows in zip(pairs[kind], (4, 5), strict=True):
            restless.execute(f"DELETE FROM {table.name} WHERE id <= {rows}")
    eventually(lambda: all(table.is_due() for _, table in pairs.values()), seconds=20)

    assert {kind: table.is_due() for kind, (table, _) in pairs.items()} == dict.fromkeys(
        pairs, False
    )
    turn(restless, "on")
    eventually(lambda: all(table.was_vacuumed() for _, table in pairs.values()), seconds=40)
    last = Table(restless, "last_one", f"autovacuum_vacuum_threshold = 0, {quiet}")
    restless.execute(f"INSERT INTO {last.name} SELECT generate_series(1, 10)")
    restless.execute(f"DELETE FROM {last.name}")
    eventually(last.was_vacuumed, seconds=40)  # the round that takes it has seen the others again

    assert [kind for kind, (table, _) in pairs.items() if table.was_vacuumed()] == []


@pytest.mark.fleet
def test_the_server_comes_for_an_old_table_even_where_autovacuum_is_off(restless, eventually):
    """100,000 is the least that autovacuum_freeze_max_age may be."""
    # Up to 14 a vacuum that freezes nothing does not renew relfrozenxid either, and comes again.
    options = "autovacuum_enabled = off, autovacuum_freeze_max_age = 100000"
    options += ", autovacuum_freeze_min_age = 0"
    old = Table(restless, "grown_old", options)
    young = Table(restless, "still_young", "autovacuum_enabled = off")
    restless.execute(
        "CREATE PROCEDURE burn(count integer) LANGUAGE plpgsql AS $$ BEGIN"
        " FOR i IN 1..count LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    )
    restless.execute("SET synchronous_commit = off")
    restless.execute("CALL burn(%(count)s)", {"count": 99_900 - old.facts()["xid_age"]})
    before = old.is_due()
    restless.execute("CALL burn(200)")

    assert (before, old.is_due(), young.is_due()) == (False, True, False)
    turn(restless, "on")
    eventually(lambda: old.facts()["xid_age"] < 100_000, seconds=40)
    eventually(old.was_vacuumed, seconds=10)  # 14 tells its statistics late
    assert not young.was_vacuumed()


@pytest.mark.parametrize("reltuples", [1e3, 123_456_789.0, 333_333_333.0, 999_999_999.0])
def test_it_computes_in_four_bytes_as_the_server_does(embedded, reltuples):
    statement = "SELECT (50::real + 0.2::real * %(rows)s::real)::float8"
    with embedded.connect() as connection:
        (server_says,) = connection.execute(statement, {"rows": reltuples}).fetchone()

    assert of(version=170010, reltuples=reltuples).vacuum == server_says
