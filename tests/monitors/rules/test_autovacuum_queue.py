"""The server's score and the order of its queue: by hand, and against real servers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.models import HISTORY
from monitors.rows import vacuuming
from monitors.rules import autovacuum_queue
from monitors.rules.autovacuum_queue import Visited

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def row(relid=20000, **fields):
    values = {
        "database_id": 1,
        "relid": relid,
        "relkind": "r",
        "reltuples": 1000.0,
        "relpages": 100,
        "relallfrozen": 0,
        "reloptions": None,
        "toastrelid": 0,
        "n_dead_tup": 0,
        "n_ins_since_vacuum": 0,
        "n_mod_since_analyze": 0,
        "relfrozenxid": 1000,
        "relminmxid": 1,
        "pg_class_ctid": "(0,1)",
    }
    return values | fields


def scores(one, *, main=None, settings=None, version=180004, next_xid=1000, next_mxid=1):
    limits = autovacuum_queue.limits_of(one, main, settings or {}, version)
    return autovacuum_queue.scores_of(
        one, limits, settings or {}, next_xid=next_xid, next_mxid=next_mxid
    )


def test_a_score_is_the_greatest_of_the_ratios_to_their_thresholds():
    # thresholds of 1000 rows: 250 dead, 1200 inserted, 150 changed; ages 200 M and 400 M
    found = scores(
        row(n_dead_tup=500, n_ins_since_vacuum=600, n_mod_since_analyze=450),
        next_xid=50_001_000,
        next_mxid=100_000_001,
    )

    assert found.vacuum == 2
    assert found.vacuum_insert == 0.5
    assert found.analyze == 3
    assert found.xid == 0.25
    assert found.mxid == 0.25
    assert (found.score, found.reason) == (3, "analyze")
    assert (found.do_vacuum, found.do_analyze, found.for_wraparound) == (True, True, False)


@pytest.mark.parametrize(
    ("field", "limit", "does"),
    [
        ("n_dead_tup", 250, "do_vacuum"),
        ("n_ins_since_vacuum", 1200, "do_vacuum"),
        ("n_mod_since_analyze", 150, "do_analyze"),
    ],
)
def test_a_threshold_must_be_exceeded_not_reached(field, limit, does):
    assert not scores(row(**{field: limit})).is_due
    assert getattr(scores(row(**{field: limit + 1})), does)


def test_weights_multiply_from_19_on():
    settings = {"autovacuum_vacuum_score_weight": "0.5", "autovacuum_freeze_score_weight": "10"}
    found = scores(row(n_dead_tup=500), settings=settings, version=190000, next_xid=20_001_000)

    assert (found.vacuum, found.xid) == (1, 1)


def test_an_age_forces_a_vacuum_of_a_table_without_autovacuum():
    off = row(reloptions=["autovacuum_enabled=false"], n_dead_tup=9999)

    assert not scores(off).is_due
    assert scores(off).score == 0  # dead rows don't count, and nothing is old
    forced = scores(off, next_xid=200_001_001)
    assert (forced.do_vacuum, forced.for_wraparound, forced.do_analyze) == (True, True, False)
    assert not scores(off, next_xid=200_001_000).is_due


def test_a_freeze_age_is_the_lesser_of_option_and_setting():
    lower = row(reloptions=["autovacuum_freeze_max_age=100000"])
    higher = row(reloptions=["autovacuum_freeze_max_age=900000000"])

    assert scores(lower, next_xid=101_001).for_wraparound
    assert not scores(lower, next_xid=101_000).for_wraparound
    assert scores(higher, next_xid=200_001_001).for_wraparound


def test_multixacts_force_too():
    assert scores(row(), next_mxid=400_000_002).for_wraparound
    assert not scores(row(), next_mxid=400_000_001).for_wraparound
    assert scores(row(), next_mxid=None).mxid is None


def test_past_the_failsafe_age_the_age_outweighs_all():
    # age 1.6 G is 8 times 200 M, to the power of 16
    assert scores(row(), next_xid=1_600_001_000).xid == 8**16
    assert scores(row(), next_xid=1_600_000_999).xid == pytest.approx(8)


def test_a_toast_table_without_options_follows_its_main_table():
    main = row(reloptions=["autovacuum_vacuum_threshold=7", "autovacuum_vacuum_scale_factor=0"])
    toast = row(30000, relkind="t", n_dead_tup=8, n_mod_since_analyze=99999)
    own = row(30000, relkind="t", n_dead_tup=8, reloptions=["autovacuum_vacuum_threshold=9"])

    assert scores(toast, main=main).do_vacuum
    assert not scores(toast, main=main).do_analyze  # never
    assert not scores(own, main=main).do_vacuum


def test_inserts_that_never_trigger_do_not_count():
    off = row(reloptions=["autovacuum_vacuum_insert_threshold=-1"], n_ins_since_vacuum=10**6)

    assert scores(off).vacuum_insert is None
    assert not scores(off).is_due


def due(*rows, settings=None, version=180004, next_xid=1000, next_mxid=1):
    return autovacuum_queue.due_of(
        rows, settings or {}, version, next_xid=next_xid, next_mxid=next_mxid
    )


def test_up_to_18_tables_come_as_they_stand_in_pg_class_and_toast_last():
    rows = [
        row(1, n_dead_tup=9000, pg_class_ctid="(10,2)"),
        row(2, n_dead_tup=300, pg_class_ctid="(9,40)"),
        row(3, n_dead_tup=300, pg_class_ctid="(9,5)"),
        row(4, n_dead_tup=300, relkind="t", pg_class_ctid="(0,1)"),
        row(5, n_dead_tup=300, pg_class_ctid=None),
    ]

    by_place = autovacuum_queue.in_order(due(*rows), by_score=False)
    by_score = autovacuum_queue.in_order(due(*rows), by_score=True)

    assert [one.row["relid"] for one in by_place] == [3, 2, 1, 5, 4]
    assert by_score[0].row["relid"] == 1


@pytest.mark.parametrize(
    ("version", "weight", "sorts"),
    [(180004, None, False), (190000, None, True), (190000, "0", False), (None, None, False)],
)
def test_19_sorts_by_score_unless_all_weights_are_0(version, weight, sorts):
    settings = dict.fromkeys(autovacuum_queue.WEIGHTS.values(), weight) if weight else {}

    assert autovacuum_queue.sorts_by_score(settings, version) is sorts


def test_databases_near_wraparound_come_first_then_the_longest_unvisited():
    places = [
        Visited(1, "seen", 10, 1, NOW),
        Visited(2, "long ago", 10, 1, NOW - timedelta(hours=1)),
        Visited(3, "never", 10, 1, None),
        Visited(4, "multixacts", 10, 400_000_001, NOW),
        Visited(5, "old", 200_000_001, 1, NOW),
        Visited(6, "older", 300_000_000, 1, NOW),
        Visited(7, "just not", 200_000_000, 400_000_000, NOW),
    ]

    found = [one.datname for one in autovacuum_queue.visits(places, {})]

    assert found[:3] == ["older", "old", "multixacts"]
    assert found[3:5] == ["never", "long ago"]


def test_a_database_has_its_turn_once_a_naptime():
    def by(last_at, free_at=NOW):
        return autovacuum_queue.visited_by(last_at, NOW, 60, free_at=free_at)

    assert by(None) == NOW + timedelta(seconds=60)
    assert by(NOW - timedelta(seconds=45)) == NOW + timedelta(seconds=15)
    assert by(NOW - timedelta(hours=1)) == NOW + timedelta(seconds=60)
    assert by(None, free_at=NOW + timedelta(hours=1)) == NOW + timedelta(hours=1)
    assert by(None, free_at=None) is None


def test_a_table_starts_when_those_before_it_are_done():
    starts = autovacuum_queue.starts(NOW, [60, None, 5, 5])

    assert starts == [NOW, NOW + timedelta(seconds=60), None, None]


def test_every_setting_says_where_it_comes_from():
    sources: dict[str, dict[str, str | None]] = {
        "autovacuum_vacuum_threshold": {"setting": "50", "source": "default", "unit": None},
        "autovacuum_naptime": {"setting": "60", "source": "default", "unit": "s"},
        "autovacuum_freeze_max_age": {
            "setting": "200000000", "source": "configuration file", "unit": None
        },
    }  # fmt: skip
    settings = {name: str(one["setting"]) for name, one in sources.items()}
    one = row(reloptions=["autovacuum_freeze_max_age=900000000", "autovacuum_enabled=off",
                          "fillfactor=70"])  # fmt: skip

    found = {
        each.name: each for each in autovacuum_queue.in_force(one, None, settings, sources, 180004)
    }

    assert (found["autovacuum_enabled"].value, found["autovacuum_enabled"].origin) == (
        "off",
        "table",
    )
    assert found["autovacuum_vacuum_threshold"].origin == "default"
    freeze = found["autovacuum_freeze_max_age"]
    assert (freeze.value, freeze.origin) == ("200000000", "configuration file")
    assert "only lower it" in freeze.note
    assert (found["fillfactor"].value, found["fillfactor"].origin) == ("70", "table")
    toast = row(30000, relkind="t")
    names = autovacuum_queue.in_force(toast, one, settings, sources, 180004)
    assert {each.origin for each in names if each.name == "autovacuum_enabled"} == {"main table"}


REFERENCE_SQL = """
WITH g AS (SELECT current_setting('autovacuum_vacuum_threshold')::float8 vt,
 current_setting('autovacuum_vacuum_scale_factor')::float8 vsf,
 current_setting('autovacuum_vacuum_insert_threshold')::float8 it,
 current_setting('autovacuum_vacuum_insert_scale_factor')::float8 isf,
 current_setting('autovacuum_analyze_threshold')::float8 at,
 current_setting('autovacuum_analyze_scale_factor')::float8 asf,
 current_setting('autovacuum_freeze_max_age')::bigint fma,
 current_setting('autovacuum_multixact_freeze_max_age')::bigint mfma,
 coalesce(nullif(current_setting('autovacuum_vacuum_max_threshold', true), ''), '-1')::float8 vmax),
o AS (SELECT c.oid, c.relkind, greatest(c.reltuples, 0) AS reltuples, c.relpages, c.relfrozenxid,
  c.relminmxid, (to_jsonb(c) ->> 'relallfrozen')::float8 AS relallfrozen,
  (SELECT jsonb_object_agg(option_name, option_value)
     FROM pg_options_to_table(coalesce(c.reloptions, m.reloptions))) AS ro
  FROM pg_class c LEFT JOIN pg_class m ON c.relkind = 't' AND m.reltoastrelid = c.oid
 WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'),
e AS (SELECT o.*, coalesce((ro ->> 'autovacuum_enabled')::bool, true) AS enabled,
  coalesce((ro ->> 'autovacuum_vacuum_threshold')::float8, g.vt) vt,
  coalesce((ro ->> 'autovacuum_vacuum_scale_factor')::float8, g.vsf) vsf,
  coalesce((ro ->> 'autovacuum_vacuum_max_threshold')::float8, g.vmax) vmax,
  coalesce((ro ->> 'autovacuum_vacuum_insert_threshold')::float8, g.it) it,
  coalesce((ro ->> 'autovacuum_vacuum_insert_scale_factor')::float8, g.isf) isf,
  coalesce((ro ->> 'autovacuum_analyze_threshold')::float8, g.at) at,
  coalesce((ro ->> 'autovacuum_analyze_scale_factor')::float8, g.asf) asf,
  least(fma, coalesce((ro ->> 'autovacuum_freeze_max_age')::bigint, fma)) AS eff_fma,
  least(mfma, coalesce((ro ->> 'autovacuum_multixact_freeze_max_age')::bigint, mfma)) AS eff_mfma
  FROM o, g),
t AS (SELECT e.*,
  CASE WHEN vmax >= 0 AND vt + vsf * reltuples > vmax THEN vmax ELSE vt + vsf * reltuples END AS vac_thr,
  it + isf * reltuples * CASE WHEN relallfrozen > 0 AND relpages > 0
       THEN 1 - least(relallfrozen, relpages) / relpages ELSE 1 END AS ins_thr,
  at + asf * reltuples AS anl_thr, pg_stat_get_dead_tuples(oid) dead,
  pg_stat_get_ins_since_vacuum(oid) ins, pg_stat_get_mod_since_analyze(oid) mods FROM e)
SELECT oid::bigint AS relid, enabled AND dead > vac_thr AS due_dead,
 enabled AND it >= 0 AND ins > ins_thr AS due_insert,
 enabled AND relkind <> 't' AND oid <> 'pg_statistic'::regclass AND mods > anl_thr AS due_analyze,
 age(relfrozenxid) > eff_fma OR mxid_age(relminmxid) > eff_mfma AS forced,
 greatest(CASE WHEN enabled THEN dead / nullif(vac_thr, 0) END,
  CASE WHEN enabled AND it >= 0 THEN ins / nullif(ins_thr, 0) END,
  CASE WHEN enabled AND relkind <> 't' THEN mods / nullif(anl_thr, 0) END,
  age(relfrozenxid)::float8 / eff_fma, mxid_age(relminmxid)::float8 / eff_mfma) AS score,
 vac_thr, ins_thr, anl_thr, eff_fma, eff_mfma
FROM t ORDER BY score DESC NULLS LAST
"""
MADE = (
    "CREATE TABLE scored.plain (id int)",
    "INSERT INTO scored.plain SELECT generate_series(1, 3000)",
    "DELETE FROM scored.plain WHERE id <= 900",
    "CREATE TABLE scored.small (id int) WITH (autovacuum_vacuum_threshold = 5,"
    " autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.5)",
    "INSERT INTO scored.small SELECT generate_series(1, 500)",
    "DELETE FROM scored.small WHERE id <= 20",
    "CREATE TABLE scored.off (id int) WITH (autovacuum_enabled = off)",
    "INSERT INTO scored.off SELECT generate_series(1, 5000)",
    "CREATE TABLE scored.frozen (id int) WITH (autovacuum_vacuum_insert_threshold = 10,"
    " autovacuum_freeze_max_age = 150000, autovacuum_multixact_freeze_max_age = 50000)",
    "INSERT INTO scored.frozen SELECT generate_series(1, 40000)",
    "VACUUM (FREEZE, ANALYZE) scored.frozen",
    "INSERT INTO scored.frozen SELECT generate_series(1, 9000)",
    "CREATE TABLE scored.silent (id int) WITH (autovacuum_vacuum_insert_threshold = -1)",
    "INSERT INTO scored.silent SELECT generate_series(1, 5000)",
    "CREATE TABLE scored.wide (id int, body text) WITH (autovacuum_vacuum_threshold = 3)",
    "ALTER TABLE scored.wide ALTER body SET STORAGE EXTERNAL",
    "INSERT INTO scored.wide SELECT g, repeat('x', 9000) FROM generate_series(1, 40) AS g",
    "DELETE FROM scored.wide WHERE id <= 30",
)  # fmt: skip


@pytest.mark.fleet
@pytest.mark.django_db
def test_our_scores_are_those_of_the_reference_sql(server, watch, eventually):
    """The same tables, once by SQL over the server and once from the probe's rows."""
    with server.connect(dbname="shop") as session:
        session.execute("DROP SCHEMA IF EXISTS scored CASCADE")
        session.execute("CREATE SCHEMA scored")
        for statement in MADE:
            session.execute(statement)
        if server.major >= 15:
            session.execute("SELECT pg_stat_force_next_flush()")
        relids = session.execute(
            "SELECT c.oid::bigint FROM pg_class AS c WHERE c.relkind IN ('r', 't')"
            " AND (c.relnamespace = 'scored'::regnamespace OR c.oid IN (SELECT m.reltoastrelid"
            " FROM pg_class AS m WHERE m.relnamespace = 'scored'::regnamespace))"
        ).fetchall()
        wide = session.execute(
            "SELECT reltoastrelid::bigint FROM pg_class WHERE oid = 'scored.wide'::regclass"
        ).fetchone()[0]
        eventually(
            lambda: session.execute(
                "SELECT pg_stat_get_dead_tuples('scored.wide'::regclass) = 30"
                " AND pg_stat_get_dead_tuples(%s) > 0", [wide]
            ).fetchone()[0]
        )  # fmt: skip
        target = watch(server)
        take_now(target)
        cursor = session.execute(REFERENCE_SQL)
        names = [column.name for column in cursor.description]
        reference = {one[0]: dict(zip(names, one, strict=True)) for one in cursor.fetchall()}
        # As the next multixact id is not read, take the server's word.
        [next_mxid] = session.execute(
            "SELECT mod(datminmxid::text::bigint + mxid_age(datminmxid), 4294967296)"
            " FROM pg_database WHERE datname = current_database()"
        ).fetchone()
        session.execute("DROP SCHEMA scored CASCADE")
    target.refresh_from_db()
    rows = list(HISTORY["tables"].latest._default_manager.filter(target_id=target.pk).values())
    mains = {one["toastrelid"]: one for one in rows if one["toastrelid"]}
    next_xid = max(
        HISTORY["databases"]
        .latest._default_manager.filter(target_id=target.pk)
        .values_list("next_xid", flat=True)
    )
    seen = set()
    for one in rows:
        if (one["relid"],) not in relids:
            continue
        seen.add(one["relname"])
        theirs = reference[one["relid"]]
        main = mains.get(one["relid"]) if one["relkind"] == "t" else None
        limits = autovacuum_queue.limits_of(one, main, target.settings, target.server_version)
        ours = autovacuum_queue.scores_of(
            one, limits, target.settings, next_xid=next_xid, next_mxid=next_mxid
        )
        assert ours.score == pytest.approx(theirs["score"], rel=1e-5, abs=1e-3), one["relname"]
        assert ours.do_vacuum == (theirs["due_dead"] or theirs["due_insert"] or theirs["forced"])
        assert ours.do_analyze == theirs["due_analyze"]
        assert ours.for_wraparound == theirs["forced"]
        assert limits.vacuum == pytest.approx(theirs["vac_thr"], rel=1e-5)
        if limits.vacuum_insert is not None:
            assert limits.vacuum_insert == pytest.approx(theirs["ins_thr"], rel=1e-5)
        assert (limits.xid, limits.mxid) == (theirs["eff_fma"], theirs["eff_mfma"])
    assert {
        "plain",
        "small",
        "off",
        "frozen",
        "silent",
        "wide",
        f"pg_toast_{max_of(mains, wide)}",
    } <= seen


def max_of(mains, toast):
    """Return the oid of a TOAST table's main table, which is in its name."""
    return mains[toast]["relid"]


CHURN = """
DO $$ BEGIN FOR i IN 1..1500 LOOP
  CREATE FUNCTION due() RETURNS int LANGUAGE sql AS 'SELECT 1';
  DROP FUNCTION due();
END LOOP; END $$
"""
BURN = "DO $$ BEGIN FOR i IN 1..100100 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"


@pytest.mark.fleet
@pytest.mark.django_db
def test_catalogs_and_empty_toast_tables_are_in_the_queue(server, watch):
    """What the server takes beside the tables; 19 says itself what that is."""
    with server.connect(dbname="shop") as session:
        session.execute("DROP TABLE IF EXISTS aged")
        session.execute("CREATE TABLE aged (body text)")
        session.execute("ALTER TABLE aged SET (toast.autovacuum_freeze_max_age = 100000)")
        session.execute(CHURN)
        session.execute(BURN)
        session.execute("ANALYZE aged")
        if server.major >= 15:
            session.execute("SELECT pg_stat_force_next_flush()")
        [toast] = session.execute(
            "SELECT reltoastrelid::bigint FROM pg_class WHERE oid = 'aged'::regclass"
        ).fetchone()
        target = watch(server)
        take_now(target)
        target.refresh_from_db()
        due = {line["relid"]: line for line in vacuuming.state_of(target).queue}
        past = {line["relid"] for line in vacuuming.state_of(target, timezone.now()).queue}
        scores = {}
        if server.major >= 19:
            scores = dict(
                session.execute(
                    "SELECT relid::bigint, score FROM pg_stat_autovacuum_scores"
                    " WHERE do_vacuum OR do_analyze"
                ).fetchall()
            )
        session.execute("DROP TABLE aged")

    catalogs = [line for line in due.values() if line["schemaname"] == "pg_catalog"]
    assert "pg_proc" in {line["relname"] for line in catalogs}
    assert all(line["is_catalog"] for line in catalogs)
    assert (due[toast]["toast_of"], due[toast]["for_wraparound"]) == ("public.aged", True)
    assert not due[toast]["is_catalog"]
    assert set(due) == past
    for relid, score in scores.items():
        assert due[relid]["score"] == pytest.approx(score, rel=0.05, abs=0.05), due[relid]["table"]
