"""Connections as arithmetic: what is usable, when it ends, what is churn, and who makes it."""

from __future__ import annotations

import pytest

from monitors.advisor import Rate
from monitors.rules import connections
from monitors.rules.connections import Churn
from tests.monitors.advisors.rows import NOW, later, near

COUNTED = {
    "sessions": 600,
    "xact_commit": 1100,
    "xact_rollback": 100,
    "session_time": 1_800_000.0,
    "active_time": 30_000.0,
    "idle_in_transaction_time": 10_000.0,
}


def newcomer(sessions, *, application_name="app-10231", datname="shop", client_addr="10.0.0.7"):
    return {
        "datname": datname,
        "usename": "web",
        "application_name": application_name,
        "client_addr": client_addr,
        "sessions": sessions,
    }


@pytest.mark.parametrize(
    ("most", "reserved", "usable"),
    [(100, 3, 97), (100, None, 100), (3, 5, 0), (None, 3, None)],
)
def test_reserved_slots_are_not_usable(most, reserved, usable):
    assert connections.usable(most, reserved) == usable


@pytest.mark.parametrize(
    ("used", "rate", "at", "already", "text"),
    [
        (90, Rate(7 / 3600, 3600), 1, False, "clients are refused, at 168 connections a day"),
        (97, Rate(7 / 3600, 3600), None, True, "clients are refused"),
        (90, Rate(0, 3600), None, False, "clients are refused; no date: connections did not rise"),
        (90, Rate(7 / 3600, 600), None, False, "clients are refused; no date so far"),
        (90, None, None, False, "clients are refused; no date so far"),
    ],
)
def test_the_last_one_is_taken_at_the_rate_of_the_last_hour(used, rate, at, already, text):
    found = connections.exhausted(used, 97, rate, NOW)

    assert found.at == (near(later(at)) if at else None)
    assert found.already == already
    assert found.text.startswith(text)


def test_churn_is_what_the_counters_grew_by_for_each_new_session():
    assert connections.churn_of(COUNTED, 600.0) == Churn(1.0, 2.0, 3.0)
    assert connections.idle_share(COUNTED) == 25.0


@pytest.mark.parametrize(
    ("changed", "seconds", "churn"),
    [
        ({"sessions": 0}, 600.0, Churn(0.0, None, None)),
        ({"sessions": None}, 600.0, None),
        ({}, None, None),
        ({"session_time": None}, 600.0, Churn(1.0, 2.0, None)),
    ],
)
def test_what_is_not_known_is_no_figure(changed, seconds, churn):
    assert connections.churn_of(COUNTED | changed, seconds) == churn


def test_the_guilty_is_who_has_most_new_sessions_of_the_database_whatever_its_numbers():
    seen = [
        newcomer(3),
        newcomer(4, application_name="app-10232", client_addr="10.0.0.8"),
        newcomer(6, application_name="cron", client_addr=None),
        newcomer(90, application_name="elsewhere", datname="billing"),
    ]

    found = connections.guilty_of(seen, "shop")

    assert found is not None
    assert (found.name, found.place) == ("app-* (user web)", "2 addresses")
    assert (found.sessions, found.of) == (7, 13)
    assert connections.guilty_of(seen, "empty") is None


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("app-12345", "app-*"),
        ("app-123", "app-123"),
        ("job 550e8400-e29b-41d4-a716-446655440000", "job *"),
        ("web-7d9f8b6c4d", "web-7d9f8b6c4d"[:4] + "*"),
        ("PostgreSQL JDBC Driver", "PostgreSQL JDBC Driver"),
        (None, ""),
    ],
)
def test_what_is_new_for_each_process_is_written_as_a_star(name, folded):
    assert connections.folded(name) == folded
