"""A history database that is away is said so, with when to come back."""

from __future__ import annotations

import copy

import pytest
from django.db import OperationalError, connection
from django.db.backends.postgresql.base import DatabaseWrapper
from django.test import RequestFactory

from dashboard.errors import server_error


def away() -> DatabaseWrapper:
    """A connection to a port where nothing listens."""
    settings = copy.deepcopy(connection.settings_dict) | {"PORT": "1"}
    return DatabaseWrapper(settings, "away")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "kind"), [("", "text/html"), ("?format=json", "application/json")]
)
def test_a_history_database_that_is_away_is_503_and_says_when_to_come_back(
    query: str, kind: str
) -> None:
    request = RequestFactory().get(f"/{query}")
    try:
        away().ensure_connection()
    except OperationalError:
        response = server_error(request)
    else:
        pytest.fail("something listens on port 1")

    assert (response.status_code, response["Retry-After"]) == (503, "10")
    assert response["Content-Type"].startswith(kind)
    assert b"does not answer" in response.content


@pytest.mark.django_db
def test_any_other_failure_is_500() -> None:
    request = RequestFactory().get("/")
    try:
        raise RuntimeError
    except RuntimeError:
        response = server_error(request)

    assert response.status_code == 500
    assert "Retry-After" not in response
    assert b"failed to answer" in response.content
