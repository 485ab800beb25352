"""A history database that is away is said so, with when to come back."""

from __future__ import annotations

import copy
import html
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.backends.postgresql.base import DatabaseWrapper
from django.test import Client, RequestFactory

from dashboard.errors import server_error
from monitors.models import Target


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


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "form", "cookie", "what"),
    [
        ("/login/", {"username": "a\0b"}, "", "form"),
        ("/login/", {"a\0b": "a"}, "", "form"),
        ("/login/?next=%00", {"username": "a"}, "", "address"),
        ("/login/?next=%00", None, "", "address"),
        ("/a%00b/", None, "", "address"),
        ("/login/", None, '"\\000"', "cookie"),
        ("/login/", {"username": "a"}, '"\\000"', "cookie"),
    ],
)
def test_a_null_character_is_said_to_stand_where_it_stands(
    address: str, form: dict[str, str] | None, cookie: str, what: str
) -> None:
    headers = {"Cookie": f"theme={cookie}"} if cookie else None

    def ask(address: str) -> Any:
        if form is None:
            return Client().get(address, headers=headers)
        return Client().post(address, form, headers=headers)

    page, said = ask(address), ask(f"{address}{'&' if '?' in address else '?'}format=json")

    text = page.content.decode()
    assert page.status_code == said.status_code == 400
    assert f"This {what} can't be understood" in html.unescape(text)
    assert f"A null character has no place in {'an' if what == 'address' else 'a'} {what}." in text
    assert json.loads(said.content)["error"] in html.unescape(text)
    helps = what == "address" and form is None and "?" in address
    assert ("Open this page without it" in text) == helps


def test_a_form_whose_key_is_none_is_a_form_that_is_not_understood(
    browse: Callable[[str], Client], shop: Target
) -> None:
    address = f"/targets/{shop.name}/actions/cancel_backend/"

    answer = browse("dba").post(address, {"pid": "1", "idempotency_key": "x"})

    assert answer.status_code == 400
    assert "This form can't be understood" in answer.content.decode()


@pytest.mark.django_db
def test_what_is_suspicious_is_neither_an_address_nor_a_form(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 1

    answer = Client().post("/login/", {"a": "1", "b": "2"})

    assert answer.status_code == 400
    assert "This request can't be understood" in answer.content.decode()
