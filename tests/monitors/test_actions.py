"""What holds of every action."""

from __future__ import annotations

import pytest

from monitors.acting.ask import PREVIEW_LIFE
from monitors.action import Action, InvalidArguments, Kind, Parameter
from monitors.actions import ACTIONS

every = pytest.mark.parametrize("action", ACTIONS.values(), ids=list(ACTIONS))


@every
def test_it_is_registered_by_its_name(action: Action) -> None:
    assert ACTIONS[action.name] is action


@every
def test_it_has_time_limits(action: Action) -> None:
    assert 0 < action.statement_timeout_ms <= 24 * 3600 * 1000
    assert 0 < action.lock_timeout_ms <= action.statement_timeout_ms
    assert 0 < action.expires_seconds < PREVIEW_LIFE.total_seconds()


@every
def test_it_waits_long_for_a_lock_only_where_nobody_queues_behind_it(action: Action) -> None:
    """Reads and writes don't conflict with this mode, nor with a wait for it."""
    if action.lock_timeout_ms > 10_000 and not action.swap_lock:  # a late one costs all the work
        assert action.lock == "ShareUpdateExclusiveLock"
        assert action.name in {"reindex", "drop_leftover_index"}


@every
def test_it_is_in_a_queue_that_workers_read(action: Action) -> None:
    assert action.queue in {"signals", "long"}
    assert (action.queue == "signals") == (action.settled is not None)


@every
def test_what_destroys_is_never_direct(action: Action) -> None:
    """But release, which begins with a cancel (docs/decisions/0019-release-in-one-press.md)."""
    assert not (action.direct and action.destructive) or action.name == "release_backend"


@every
def test_what_waits_for_a_second_person_is_confirmed(action: Action) -> None:
    assert action.destructive or not action.second_person


@every
def test_its_parameters_explain_themselves(action: Action) -> None:
    for parameter in action.parameters:
        assert parameter.help
        assert not parameter.help.endswith(".")
        assert parameter.kind in Kind


@every
@pytest.mark.parametrize("value", ["'; DROP TABLE x", "1e309", "\x00", "\ud800", "x" * 4000])
def test_hostile_arguments_are_refused_or_stay_texts(action: Action, value: str) -> None:
    """Whatever is accepted enters a statement only through quoting."""
    for parameter in action.parameters:
        if parameter.kind in {Kind.TABLE, Kind.DATABASE, Kind.TEXT} and value.isprintable():
            continue
        with pytest.raises(InvalidArguments):
            action.clean({parameter.name: value})


NUMBERS = [
    pytest.param(action, parameter, id=f"{action.name}-{parameter.name}")
    for action in ACTIONS.values()
    for parameter in action.parameters
    if parameter.kind in {Kind.INT, Kind.NUMBER}
]


@pytest.mark.parametrize(("action", "parameter"), NUMBERS)
def test_a_number_out_of_bounds_is_told_what_it_may_be(
    action: Action, parameter: Parameter
) -> None:
    least, most = parameter.minimum, parameter.maximum
    assert least is not None
    assert most is not None
    kind = "a whole number" if parameter.kind == Kind.INT else "a number"
    takes = f"{parameter.name} is {kind} from {least:,.0f} to {most:,.0f}, not "
    takes = takes.replace("-", "\N{MINUS SIGN}")

    for text in (f"{least - 1:.0f}", f"{most + 1:.0f}", "9" * 20, "9" * 5000, "-99999999999", "x"):
        with pytest.raises(InvalidArguments) as refused:
            parameter.clean(text)
        assert str(refused.value) == f"{takes}{text[:40]!r}."
    for inside in (least, most):
        assert parameter.clean(f"{inside:.0f}") == f"{inside:.0f}"
