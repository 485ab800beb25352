"""Every advisor says a date on which it hurts, that it hurts already, or why it has no date."""

from __future__ import annotations

import dataclasses
import importlib
from datetime import timedelta
from typing import Any

import pytest

from monitors.advisor import Hurt, Rate
from monitors.advisors import ADVISORS
from monitors.rules import hurt
from monitors.rules.wraparound import Burn
from tests.monitors.advisors.rows import (
    NOW,
    SHOP,
    ago,
    burning,
    later,
    near,
    samples,
)

FOUND: dict[str, dict[str, Any]] = {
    one.name: importlib.import_module(f"tests.monitors.advisors.test_{one.name}").FOUND
    for one in ADVISORS
}
"""Facts in which each advisor finds something: its own test has them."""
PACES = (1e-9, 0.5, 1000.0)  # a second
COLUMNS = ("n_dead_tup", "n_mod_since_analyze", "bloat_bytes", "size_bytes")


def facts_at(per_second, seconds):
    """Return the history in which all that can grow does so."""
    rate = Rate(per_second, seconds)
    places = [(column, SHOP, relid) for column in COLUMNS for relid in (16400, 16403)]
    return {
        "rates": dict.fromkeys((*places, ("backends", None, 0)), rate),
        "burn": burning(per_second * 3600),
        "next_xid": 100_000_000,
        "xids_per_second": per_second,
    }


HISTORIES = [{}, *(facts_at(pace, seconds) for pace in (-1, 0, *PACES) for seconds in (9, 10**6))]


@pytest.mark.parametrize("advisor", ADVISORS, ids=lambda one: one.name)
@pytest.mark.parametrize("history", HISTORIES)
def test_every_finding_says_when_it_hurts_or_why_that_is_not_told(advisor, history):
    found = list(
        advisor.advise(samples(advisor, **{**history, **FOUND[advisor.name]}), advisor.defaults)
    )

    assert found
    for one in found:
        assert one.hurts
        assert one.hurts[0].islower() or one.hurts[0].isdigit() or "." in one.hurts
        assert not one.hurts.endswith(".")
        if one.hurts_already:
            assert one.hurts_at is None or one.hurts_at <= NOW
        elif one.hurts_at is None:
            assert "no date" in one.hurts
        else:
            assert NOW - timedelta(days=1) < one.hurts_at <= NOW + timedelta(days=3653)


@pytest.mark.parametrize("advisor", ADVISORS, ids=lambda one: one.name)
def test_thresholds_of_zero_are_passed_by_anything_and_break_nothing(advisor):
    found = advisor.advise(
        samples(advisor, **{**facts_at(0, 10**6), **FOUND[advisor.name]}),
        dict.fromkeys(advisor.defaults, 0),
    )

    assert all(one.score >= 0 for one in found)


@pytest.mark.parametrize("advisor", ADVISORS, ids=lambda one: one.name)
@pytest.mark.parametrize("per_second", [-1, 0])
def test_without_growth_no_date_lies_ahead(advisor, per_second):
    told = {**facts_at(per_second, 10**6), **FOUND[advisor.name]}
    by_the_clock = {
        "idle_in_transaction",
        "long_running",
        "password_expires",
    }  # they know it without a rate

    for one in advisor.advise(samples(advisor, **told), advisor.defaults):
        ahead = one.hurts_at is not None and one.hurts_at > NOW
        assert not ahead or advisor.name in by_the_clock


def test_a_limit_must_be_passed_not_reached():
    rate = Rate(1.0, 3600)

    at = hurt.reaches("full", 10, 10, rate, "row", NOW)
    past = hurt.reaches("full", 11, 10, rate, "row", NOW)

    assert (at.at, at.already) == (NOW, False)
    assert (past.at, past.already) == (None, True)


def test_what_is_slow_is_said_by_the_day():
    found = hurt.reaches("full", 0, 20, Rate(5 / 86400, 7200), "row", NOW)

    assert found.text == "full, at 5 rows a day over the last 2 h"
    assert found.at == near(later(96))


def test_nearly_an_hour_is_one():
    assert hurt.none_of(Rate(1.0, 3419), "row") == "no date so far: needs an hour of history"
    assert hurt.none_of(Rate(1.0, 3421), "row") == ""


def test_what_comes_first_is_what_hurts_already_then_the_earliest_date():
    none, soon, late = Hurt("none"), Hurt("soon", later(1)), Hurt("late", later(2))
    since, already = Hurt("since", ago(9), already=True), Hurt("already", already=True)

    assert hurt.first([none, late, soon]) == soon
    assert hurt.first([none, soon, already]) == already
    assert hurt.first([since, soon]) == since
    assert hurt.first([none, dataclasses.replace(none, text="other")]) == none


@pytest.mark.parametrize(
    ("age", "burn", "at", "why"),
    [
        (1000, Burn(1.0, seconds=86400.0), 2.5, "it is forced, at 3.6 k ids an hour"),
        (10_001, Burn(1.0, seconds=86400.0), None, "it is forced"),
        (1000, Burn(1.0, seconds=60.0), None, "it is forced; no date: needs an hour of history"),
        (1000, Burn(0.0, seconds=86400.0), None,
         "it is forced; no date: no id was used up in this history"),
        (1000, None, None, "it is forced; no date: no history yet: a rate needs two snapshots"),
        (None, Burn(1.0, seconds=86400.0), None, "it is forced; no date: its age is not known"),
    ],
)  # fmt: skip
def test_ids_reach_a_limit_by_the_burn(age, burn, at, why):
    found = hurt.ids_reach("it is forced", age, 10_000, burn, NOW)

    assert found.at == (near(later(at)) if at else None)
    assert (found.text, found.already) == (why, age == 10_001)


def test_it_is_one_line_of_text():
    assert hurt.tell(Hurt("full", later(24)), NOW) == "hurts 25 Nov 10:42 UTC: full"
    assert hurt.tell(Hurt("full", later(2400)), NOW) == "hurts 4 Mar 2027: full"
    assert hurt.tell(Hurt("full", ago(3600), already=True), NOW) == (
        "hurts already since 24 Nov 09:42 UTC: full"
    )
    assert hurt.tell(Hurt("full", already=True), NOW) == "hurts already: full"
    assert hurt.tell(Hurt("full; no date"), NOW) == "when it hurts: full; no date"
