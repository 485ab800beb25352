"""Transactions that were left open."""

from __future__ import annotations

import pytest

from monitors.advisor import Severity
from monitors.advisors.idle_in_transaction import ADVISOR
from tests.monitors.advisors.rows import advise, ago, backend, idle_in_transaction, waiting

FOUND = {"activity": [idle_in_transaction(seconds=61)]}
"""Facts in which it finds something."""


@pytest.mark.parametrize(
    ("seconds", "severity"),
    [
        (60, None),
        (61, Severity.NOTICE),
        (300, Severity.NOTICE),
        (301, Severity.WARNING),
        (1800, Severity.WARNING),
        (1801, Severity.CRITICAL),
    ],
)
def test_it_is_worse_the_longer_it_is_idle(seconds, severity):
    found = advise(ADVISOR, activity=[idle_in_transaction(seconds=seconds)])

    assert [finding.severity for finding in found] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("seconds", "severity"),
    [(61, Severity.WARNING), (301, Severity.CRITICAL), (1801, Severity.CRITICAL)],
)
def test_it_is_a_level_worse_where_somebody_waits_for_it(seconds, severity):
    activity = [idle_in_transaction(seconds=seconds), waiting(5107, [4321])]

    [finding] = advise(ADVISOR, activity=activity)

    assert finding.severity == severity
    assert finding.why.startswith("1 backend waits for its locks.")


def test_it_offers_to_terminate_and_never_to_cancel():
    row = idle_in_transaction(seconds=400, xact_start=ago(500))

    [finding] = advise(ADVISOR, activity=[row])

    assert (
        finding.title == "Backend 4321 (billing-api) has been idle in transaction for 6 min 40 s."
    )
    assert finding.action == "terminate_backend"
    assert finding.arguments == {
        "pid": "4321",
        "backend_start": "2026-11-24T08:12:16.123456+00:00",
        "xact_start": "2026-11-24T10:33:56.123456+00:00",
        "state_change": "2026-11-24T10:35:36.123456+00:00",
    }


def test_an_aborted_transaction_counts_too():
    row = idle_in_transaction(seconds=400) | {"state": "idle in transaction (aborted)"}

    assert len(advise(ADVISOR, activity=[row])) == 1


def test_it_claims_to_hold_dead_rows_only_of_a_transaction_that_does():
    [reader] = advise(ADVISOR, activity=[idle_in_transaction(seconds=400)])
    [writer] = advise(ADVISOR, activity=[idle_in_transaction(seconds=400, backend_xid=811)])

    assert "VACUUM" not in reader.why
    assert "VACUUM can't remove rows" in writer.why


def test_active_and_idle_backends_are_left_alone():
    rows = [backend(state="active", state_change=ago(9000)), backend(2, state="idle")]

    assert advise(ADVISOR, activity=rows) == []


def test_it_hurts_once_dead_rows_have_stayed_for_half_an_hour():
    [young] = advise(ADVISOR, activity=[idle_in_transaction(seconds=61, backend_xmin=9)])
    [old] = advise(ADVISOR, activity=[idle_in_transaction(seconds=1801, backend_xid=9)])

    assert (young.hurts_at, young.hurts_already) == (ago(61 - 1800), False)
    assert (old.hurts_at, old.hurts_already) == (ago(1), True)


def test_it_hurts_already_where_others_wait_and_at_no_date_where_it_holds_locks_alone():
    [waited] = advise(ADVISOR, activity=[idle_in_transaction(seconds=61), waiting(2, [4321])])
    [alone] = advise(ADVISOR, activity=[idle_in_transaction(seconds=61)])

    assert (waited.hurts_already, waited.hurts) == (True, "others wait for its locks")
    assert (alone.hurts_already, alone.hurts_at) == (False, None)
    assert "no date" in alone.hurts
