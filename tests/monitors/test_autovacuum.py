from __future__ import annotations

import pytest

from monitors.autovacuum import is_on, parse_options, threshold, xid_age


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
