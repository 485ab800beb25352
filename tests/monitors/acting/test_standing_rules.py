"""Standing rules on a real server: in shadow, live, and all that holds them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.core.exceptions import PermissionDenied, ValidationError

from monitors.acting import perform, standing_rules, stuck
from monitors.collect.rounds import take_now
from monitors.findings import stuck as definitions
from monitors.models import (
    Action,
    AuditEntry,
    Grant,
    Mark,
    ProbeState,
    StandingRule,
    StandingRuleFiring,
    StuckDefinition,
)
from monitors.rows.stuck import stuck_of
from tests.monitors.conftest import wait_until_old
from tests.servers import Server

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from monitors.models import Target

pytestmark = pytest.mark.django_db
Session = psycopg.Connection[Any]
REPORTS = "reports-of-rules"


@pytest.fixture
def server(embedded: Server) -> Server:
    """One version: what a rule does rests on nothing that versions differ in."""
    return embedded


@pytest.fixture
def target(server: Server, watch: Callable[..., Target]) -> Target:
    return watch(server, operator_user="operator", cores=2)


@pytest.fixture
def dba(person: Callable[..., User]) -> User:
    return person("dba")


@pytest.fixture
def rule(target: Target, dba: User) -> StandingRule:
    """A rule in shadow that cancels reports; over half a second, where people have to say five."""
    return StandingRule.objects.create(
        name="no-reports",
        target=target,
        application_name="reports-*",
        seconds=0.5,
        owner=dba,
        owner_name=dba.username,
    )


@pytest.fixture
def report(server: Server, sleeping: Callable[..., Session]) -> Callable[[], int]:
    """Start a report that has run for long enough: report() -> its pid."""

    def start(application_name: str = REPORTS) -> int:
        pid = sleeping(application_name=application_name).info.backend_pid
        wait_until_old(server, pid)
        return pid

    return start


@pytest.fixture
def look(target: Target, eventually: Callable[..., None]) -> Callable[[], None]:
    """Read the activity once what runs is over half a second old, and look at it as a worker does."""

    def read() -> None:
        target.refresh_from_db()

        def is_old() -> bool:
            take_now(target, ["activity"])
            seen = stuck_of([target]).seen
            ages = [
                one.query_seconds or 0
                for found in seen
                for one in found.backends
                if str(one.application_name).startswith(("reports-", "pg_dump"))
            ]
            return bool(ages) and min(ages) > 0.6

        eventually(is_old)
        stuck.look(target.pk, {"activity"})

    return read


def results(rule: StandingRule) -> list[str]:
    return sorted(StandingRuleFiring.objects.filter(rule=rule).values_list("result", flat=True))


def test_it_watches_in_shadow_then_acts_once_for_a_statement(
    server: Server,
    dba: User,
    rule: StandingRule,
    report: Callable[[], int],
    look: Callable[[], None],
) -> None:
    pid = report()
    for _ in range(2):
        look()
    [firing] = StandingRuleFiring.objects.all()
    assert (firing.result, firing.pid, firing.action) == ("would", pid, None)
    assert firing.query == "SELECT pg_sleep(?)"
    assert "over the limit of" in firing.why
    assert not Action.objects.exists()

    standing_rules.enable(dba, StandingRule.objects.get(), source="test")
    for _ in range(3):
        look()

    assert results(rule) == ["asked", "would"]
    [action] = Action.objects.all()
    assert (action.name, action.asked_by, action.reason) == (
        "cancel_backend",
        dba,
        "Rule no-reports",
    )
    assert action.asked_from == "rule no-reports"
    perform.perform(str(action.pk))
    action.refresh_from_db()
    assert action.state == "succeeded", action.outcome
    intent = AuditEntry.objects.get(what="cancel_backend", kind="intent")
    assert (intent.who, intent.reason) == (dba.username, "Rule no-reports")


def test_a_lost_right_stops_it(
    dba: User, rule: StandingRule, report: Callable[[], int], look: Callable[[], None]
) -> None:
    standing_rules.enable(dba, rule, source="test")
    Grant.objects.filter(user=dba).delete()
    report()
    for _ in range(2):
        look()

    [firing] = StandingRuleFiring.objects.all()
    assert firing.result == "refused"
    assert "You need the permission cancel_backend" in firing.why
    assert not Action.objects.exists()


def test_the_switch_stops_all_and_only_an_admin_lets_them_go_on(
    dba: User,
    person: Callable[..., User],
    rule: StandingRule,
    report: Callable[[], int],
    look: Callable[[], None],
) -> None:
    standing_rules.enable(dba, rule, source="test")
    with pytest.raises(PermissionDenied):
        standing_rules.stop_all(person("operator"), stopped=True, source="test")
    standing_rules.stop_all(dba, stopped=True, source="test")
    report()
    look()
    assert results(rule) == []

    with pytest.raises(PermissionDenied):
        standing_rules.stop_all(dba, stopped=False, source="test")
    standing_rules.stop_all(person("admin"), stopped=False, source="test")
    look()
    assert results(rule) == ["asked"]


def test_it_fires_so_often_an_hour_and_no_more(
    dba: User, rule: StandingRule, report: Callable[[], int], look: Callable[[], None]
) -> None:
    rule.at_most = 1
    standing_rules.enable(dba, rule, source="test")
    report()
    report()
    look()

    rule.refresh_from_db()
    assert (results(rule), Action.objects.count()) == (["asked"], 1)
    assert rule.note == "Held back: it fired 1 time within the hour."


def test_it_fires_only_while_the_load_is_over_its_limit_and_known(
    target: Target, rule: StandingRule, report: Callable[[], int], look: Callable[[], None]
) -> None:
    report()
    StandingRule.objects.update(load_per_core=0.2)
    type(target).objects.update(cores=None)
    look()
    rule.refresh_from_db()
    assert results(rule) == []
    assert rule.note == (
        f"Held back on {target.name}: how many cores its machine has was not said."
    )

    type(target).objects.update(cores=4000)
    look()
    assert results(rule) == []

    type(target).objects.update(cores=1)
    look()
    [firing] = StandingRuleFiring.objects.all()
    assert firing.result == "would"
    assert " on 1 core." in firing.why


def test_who_is_never_stuck_is_left_alone(
    person: Callable[..., User],
    rule: StandingRule,
    report: Callable[..., int],
    look: Callable[[], None],
) -> None:
    StandingRule.objects.update(application_name="")
    report("pg_dump")
    exempt = StuckDefinition(application_name="reports-*", blocked=60)
    definitions.define(person("admin"), exempt, source="test")
    report()
    look()

    assert not StandingRuleFiring.objects.filter(application_name__in=["pg_dump", REPORTS])


def test_where_a_reason_is_asked_for_it_is_the_rule(
    target: Target,
    dba: User,
    rule: StandingRule,
    report: Callable[[], int],
    look: Callable[[], None],
) -> None:
    target.environment.reason_required = target.environment.protected = True
    target.environment.save()
    StandingRule.objects.update(action="release_backend")
    standing_rules.enable(dba, StandingRule.objects.get(), source="test")
    report()
    look()

    [action] = Action.objects.all()
    assert (action.name, action.reason) == ("release_backend", "Rule no-reports")


def test_what_is_saved_begins_in_shadow_and_is_what_one_may(
    target: Target, dba: User, person: Callable[..., User], rule: StandingRule
) -> None:
    rule.seconds = 60
    standing_rules.save(dba, rule, source="test")
    standing_rules.enable(dba, rule, source="test")
    rule.at_most = 3
    assert standing_rules.save(dba, rule, source="test").shadow is False
    rule.seconds = 61
    assert standing_rules.save(dba, rule, source="test").shadow is True

    rule.state = "idle_in_transaction"
    with pytest.raises(ValidationError, match="Cancel does nothing"):
        standing_rules.save(dba, rule, source="test")
    rule.action = "release_backend"
    operator = person("operator", target=target)
    with pytest.raises(PermissionDenied):
        standing_rules.save(operator, rule, source="test")
    wide = StandingRule(name="wide", seconds=60, environment=target.environment)
    with pytest.raises(PermissionDenied):
        standing_rules.save(person("viewer"), wide, source="test")
    told = AuditEntry.objects.filter(object_name="no-reports", result="")
    assert set(told.values_list("what", flat=True)) == {"rule.edit", "rule.enable"}


def test_a_backend_is_marked_once_in_a_state(
    target: Target, report: Callable[[], int], look: Callable[[], None]
) -> None:
    type(target).objects.update(thresholds={"long_running": {"warning_seconds": 0.1}})
    pid = report()
    for _ in range(2):
        look()

    marks = Mark.objects.filter(kind="stuck", text__contains=str(pid))
    assert [mark.text for mark in marks] == [
        f"Backend {pid} ({REPORTS}) has run one statement for over 100 ms"
    ]
    assert (ProbeState.objects.get(probe="activity").stuck or 0) >= 1
