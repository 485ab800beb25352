"""Scope, age in words and remedy of each kind of holder."""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitors.rules import horizon
from monitors.rules.horizon import Held
from tests.monitors.advisors.rows import NOW, ago, backend, idle_in_transaction


def holder(kind="session", name="4321", **columns):
    row = {
        "kind": kind,
        "holder": name,
        "xmin_age": 1000,
        "horizon_xid": 5000,
        "backend_start": ago(9000) if kind == "session" else None,
        "datname": "shop",
        "who": "billing_rw",
        "application_name": "billing-api" if kind == "session" else None,
        "state": "idle in transaction" if kind == "session" else None,
        "since": ago(7200),
        "active": None,
    }
    return row | columns


SLOT = holder("slot xmin", "spare", datname=None, active=False, state="reserved")
CATALOG = holder("slot catalog_xmin", "debezium", active=True, state="reserved")
PREPARED = holder("prepared xact", "it's")
FEEDBACK = holder("standby feedback", "99", datname=None, application_name="replica")


@pytest.mark.parametrize(
    ("row", "own", "other", "scope"),
    [
        (holder(), True, False, "database shop and the shared catalogs"),
        (PREPARED, True, False, "database shop and the shared catalogs"),
        (SLOT, True, True, "every database"),
        (FEEDBACK, True, True, "every database"),
        (CATALOG, False, False, "the catalogs of every database"),
        (holder(datname=None), False, False, "the shared catalogs"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
def test_who_blocks_what(row, own, other, scope):
    assert horizon.blocks(row, "shop") is own
    assert horizon.blocks(row, "other") is other
    assert horizon.scope_of(row) == scope


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (holder(), "backend 4321 (billing-api, idle in transaction since 08:42 UTC)"),
        (
            holder(since=ago(86400), application_name=""),
            "backend 4321 (billing_rw, idle in transaction since 23 Nov 10:42 UTC)",
        ),
        (
            holder(application_name="howdah:operator", state="active", ours=True),
            "backend 4321 (one of Howdah's own, active since 08:42 UTC)",
        ),
        (PREPARED, "prepared transaction 'it''s' of 08:42 UTC"),
        (SLOT, "replication slot spare that nobody reads"),
        (CATALOG, "replication slot debezium"),
        (FEEDBACK, "the feedback of standby replica"),
    ],
    ids=str,
)
def test_what_a_holder_is_called(row, name):
    assert horizon.name_of(row, NOW) == name


def hours_ago(hours):
    return NOW - timedelta(hours=hours)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (Held(hours_ago(31) - timedelta(minutes=1), hours_ago(31)), "31 h"),
        (Held(hours_ago(33), hours_ago(31)), "31 h to 33 h"),
        (Held(None, hours_ago(6)), "at least 6 h"),
        (Held(None, hours_ago(1.2)), "at least 1 h 12 min"),
        (Held(hours_ago(0.1), hours_ago(0.1)), "6 min"),
    ],
)
def test_for_how_long_with_what_precision_is_known(held, words):
    assert held.words(NOW) == words


def test_a_session_that_idles_is_terminated_and_a_statement_cancelled():
    idle = horizon.remedy(holder(), idle_in_transaction(seconds=9), 180004)
    busy = horizon.remedy(holder(state="active"), backend(), 180004)

    assert idle.action == "terminate_backend"
    assert set(idle.arguments) == {"pid", "backend_start", "xact_start", "state_change"}
    assert busy.action == "cancel_backend"
    assert set(busy.arguments) == {"pid", "backend_start", "query_start"}


def test_a_session_that_is_unknown_to_activity_has_no_button():
    assert horizon.remedy(holder(), None, 180004).action == ""


def test_howdahs_own_session_is_left_alone():
    ours = holder(application_name="howdah:collector:slow", ours=True)

    found = horizon.remedy(ours, backend(ours=True), 180004)

    assert found.action == ""
    assert horizon.is_ours(ours)


def test_a_prepared_transaction_says_where_to_run_what():
    found = horizon.remedy(PREPARED, None, 180004)

    assert "in database shop" in found.text
    assert found.code.startswith("ROLLBACK PREPARED 'it''s';")


def test_a_gid_with_a_backslash_is_quoted_whatever_the_servers_settings():
    assert horizon.literal("a\\'b") == "E'a\\\\''b'"


@pytest.mark.parametrize(("version", "said"), [(180004, True), (170004, False)])
def test_a_slot_that_nobody_reads_can_be_dropped(version, said):
    found = horizon.remedy(SLOT, None, version)

    assert found.code.endswith("\nSELECT pg_drop_replication_slot('spare');")
    assert ("idle_replication_slot_timeout" in found.text) is said
    assert "max_slot_wal_keep_size" in found.text


def test_a_slot_in_use_is_not_dropped():
    assert horizon.remedy(CATALOG, None, 180004).code == ""


def test_feedback_is_ended_on_the_standby():
    assert "hot_standby_feedback = off" in horizon.remedy(FEEDBACK, None, 180004).text


def test_the_oldest_comes_first_and_what_holds_nothing_is_left_out():
    rows = [holder(name="1", xmin_age=5), holder(name="2", xmin_age=9), holder(xmin_age=0)]

    assert [row["holder"] for row in horizon.oldest_first(rows)] == ["2", "1"]
