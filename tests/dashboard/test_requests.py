"""What every page does with a request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404
from django.test import RequestFactory
from django.utils import timezone

from dashboard.frame.requests import get_target, moment_of, table_response, window_of
from monitors.models import AuditEntry, Grant, Target


def asked(query: str = ""):
    return RequestFactory().get(f"/{query}")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1772366400", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("1772366400.5", datetime(2026, 3, 1, 12, 0, 0, 500000, tzinfo=UTC)),
        ("2026-03-01T12:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T13:00:00+01:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
    ],
)
def test_a_moment_is_read_as_seconds_or_iso_8601(text, moment):
    assert moment_of(text) == moment


@pytest.mark.parametrize(
    "text", ["soon", "2026-13-01", "9" * 30, "-1", "1.2.3", "\N{SUPERSCRIPT TWO}"]
)
def test_it_refuses_what_is_no_moment(text):
    with pytest.raises(BadRequest, match="is not a time"):
        moment_of(text)


@pytest.mark.parametrize(
    ("label", "length"),
    [("1h", 3600), ("6h", 21600), ("24h", 86400), ("7d", 604800), ("30d", 2592000)],
)
def test_a_window_by_its_label_ends_now(label, length):
    window = window_of(asked(f"?window={label}"))

    assert window.is_live
    assert window.label == label
    assert (window.end - window.start).total_seconds() == length
    assert timezone.now() - window.end < timedelta(seconds=5)


def test_without_a_word_the_window_is_the_last_hour():
    assert window_of(asked()).label == "1h"


def test_from_and_to_make_a_window_of_the_past():
    window = window_of(asked("?from=2026-03-01T12:00Z&to=2026-03-01T13:00Z"))

    assert (window.start.hour, window.end.hour) == (12, 13)
    assert not window.is_live
    assert window.label == ""


def test_at_ends_a_window_in_the_past():
    window = window_of(asked("?window=6h&at=2026-03-01T12:00Z"))

    assert window.end == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert window.start == datetime(2026, 3, 1, 6, tzinfo=UTC)
    assert not window.is_live


@pytest.mark.parametrize(
    "query",
    ["?window=2h", "?from=2026-03-01T13:00Z&to=2026-03-01T12:00Z", "?at=yesterday", "?from=x"],
)
def test_it_refuses_a_window_that_it_would_have_to_guess(query):
    with pytest.raises(BadRequest):
        window_of(asked(query))


def test_a_window_never_reaches_into_the_future():
    window = window_of(asked("?from=2026-03-01T12:00Z&to=2100-01-01T00:00Z"))

    assert window.end <= timezone.now()


def test_a_target_that_one_may_not_see_is_not_found(people, watch, embedded):
    watch(embedded, name="hidden")
    request = asked()
    request.user = people["stranger"]

    for name in ("hidden", "nowhere"):
        with pytest.raises(Http404):
            get_target(request, name)


def test_a_grant_on_another_target_opens_nothing(people, watch, embedded):
    mine, other = watch(embedded, name="mine"), watch(embedded, name="other", env="staging")
    Grant.objects.create(user=people["stranger"], role="viewer", target=mine)
    request = asked()
    request.user = people["stranger"]

    assert get_target(request, "mine") == mine
    with pytest.raises(Http404):
        get_target(request, other.name)


def test_a_missing_permission_on_a_visible_target_is_denied_and_audited(people, watch, embedded):
    watch(embedded, name="mine")
    request = asked()
    request.user = people["viewer"]

    with pytest.raises(PermissionDenied):
        get_target(request, "mine", permission="vacuum")
    assert AuditEntry.objects.filter(who="viewer", what="vacuum", result="denied").exists()


def test_a_target_that_is_being_removed_is_not_found(people, watch, embedded):
    watch(embedded, name="mine")
    Target.objects.update(deleting_at=timezone.now())
    request = asked()
    request.user = people["viewer"]

    with pytest.raises(Http404):
        get_target(request, "mine")


def test_a_page_is_no_export():
    assert table_response(asked(), "tables", ["a"], []) is None


def test_it_refuses_an_unknown_format():
    with pytest.raises(BadRequest):
        table_response(asked("?format=xlsx"), "tables", ["a"], [])
