"""Logging in and out, and what the audit keeps of it."""

from __future__ import annotations

import pytest
from django.test import Client

from monitors.models import AuditEntry
from tests.people import PASSWORD, browser_of, person

pytestmark = pytest.mark.django_db


def attempt(client, name, password, **more):
    return client.post("/login/", {"username": name, "password": password, **more})


def test_it_shows_the_form_without_a_frame():
    response = Client().get("/login/")

    assert response.status_code == 200
    assert b'name="password"' in response.content
    assert b'class="rail"' not in response.content


def test_it_logs_in_and_leaves_an_entry():
    person("maren", "viewer")

    response = attempt(Client(), "maren", PASSWORD)

    assert (response.status_code, response["Location"]) == (302, "/")
    assert AuditEntry.objects.filter(what="login", who="maren", source="127.0.0.1").count() == 1


def test_it_says_nothing_about_which_part_was_wrong():
    person("maren", "viewer")

    wrong_password = attempt(Client(), "maren", "wrong")
    wrong_name = attempt(Client(), "nobody", "wrong")

    assert wrong_password.status_code == wrong_name.status_code == 400
    sentence = b"The name or the password is wrong."
    assert sentence in wrong_password.content
    assert sentence in wrong_name.content
    assert AuditEntry.objects.filter(what="login.failed").count() == 2


def test_no_password_stands_in_the_answer_or_the_audit():
    response = attempt(Client(), "maren", "s3cret-typed")

    assert b"s3cret-typed" not in response.content
    assert "s3cret-typed" not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        ("/targets/", "/targets/"),
        ("https://elsewhere.example/", "/"),
        ("//elsewhere.example/", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_it_leads_only_to_this_site(wanted, reached):
    person("maren", "viewer")

    response = attempt(Client(), "maren", PASSWORD, next=wanted)

    assert response["Location"] == reached


def test_it_locks_after_ten_wrong_passwords_even_for_the_right_one(settings):
    person("maren", "viewer")
    client = Client()
    for _ in range(settings.AXES_FAILURE_LIMIT):
        response = attempt(client, "maren", "wrong")

    assert response.status_code == 429
    assert b"Too many wrong passwords" in response.content
    assert attempt(client, "maren", PASSWORD).status_code == 429


def test_many_names_from_one_address_are_locked_together(settings):
    """Nobody tries one password on every name; other addresses go on."""
    settings.ADDRESS_FAILURE_LIMIT = 12
    person("maren", "viewer")
    client = Client()
    for number in range(settings.ADDRESS_FAILURE_LIMIT):
        assert attempt(client, f"name-{number}", "wrong").status_code == 400

    locked = attempt(client, "maren", PASSWORD)
    elsewhere = attempt(Client(REMOTE_ADDR="192.0.2.7"), "maren", PASSWORD)

    assert locked.status_code == 429
    assert b"Every name is locked from this address for 5 min" in locked.content
    assert elsewhere.status_code == 302


def test_it_needs_the_csrf_token():
    person("maren", "viewer")

    response = attempt(Client(enforce_csrf_checks=True), "maren", PASSWORD)

    assert response.status_code == 403


def test_logging_out_is_a_post_and_ends_the_session():
    client = browser_of(person("maren", "viewer"))

    assert client.get("/logout/").status_code == 405
    assert client.post("/logout/")["Location"] == "/login/"
    assert client.get("/account/")["Location"].startswith("/login/")
    assert AuditEntry.objects.filter(what="logout", who="maren").exists()
