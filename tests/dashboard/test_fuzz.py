"""No word of a request is a 500: every address, every parameter, every field of every form."""
# ruff: noqa: F811 - the fixture `addresses` is another module's

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.conf import settings
from django.db import transaction
from django.http import QueryDict
from django.test import Client
from django.urls import get_resolver

from monitors.actions import ACTIONS
from monitors.models import Grant
from tests.dashboard.test_access import PATTERNS, addresses  # noqa: F401 - a fixture
from tests.people import HTMX

pytestmark = pytest.mark.usefixtures("addresses")

VALUES = (
    "%00",
    "a%00b",
    "%ED%A0%80",  # a lone surrogate
    "%FF%FE",
    "%E2%80%AE%F3%A0%80%81%F0%9F%90%98",
    "9" * 400,
    "-1",
    "0",
    "2147483648",
    "9223372036854775808",
    "1e400",
    "nan",
    "-inf",
    "%C2%B2",  # a digit that is no number
    "%D9%A3",
    "0001-01-01T00:00Z",
    "9999-12-31T23:59-23:59",
    "-9999999999",
    "x" * 5000,
    "[]",
    "%7B%22a%22%3A1%7D",
    "%25s%25(a)s%7B0%7D",
    "'%22%3C%3E%5C%3B--",
    "../..%2F",
    "http%3A%2F%2F%5B",
    ".",
    ":",
    "1.1.1",
    "person%3A99999999999999999999",
    "target%3A%C2%B2",
)
"""As an address spells them."""

EVERYTHING = os.environ.get("HOWDAH_FUZZ") == "all"
"""Minutes instead of seconds, when a person asks."""

MOST_PAGES = 4
"""Where a word is tried: the window's own are every page's, and read in one place."""

HEADERS = ("HX-Current-URL", "HX-Target", "HX-Trigger", "HX-Prompt", "Referer", "Cookie", "Host")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The words that views and forms look for in the query or the form, noted as they do."""
    words: set[str] = set()

    def note(name: str) -> None:
        original = getattr(QueryDict, name)

        def noting(self: QueryDict, key: str, *args: Any, **kwargs: Any) -> Any:
            words.add(key)
            return original(self, key, *args, **kwargs)

        monkeypatch.setattr(QueryDict, name, noting)

    for name in ("__getitem__", "__contains__", "get", "getlist"):
        note(name)
    return words


class Forms(HTMLParser):
    """The forms of a page: {address: {field: values}}."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: dict[str, dict[str, list[str]]] = {}
        self.fields: dict[str, list[str]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a form, or a field of the last one."""
        given = {name: value or "" for name, value in attrs}
        address = given.get("action") or given.get("hx-post")
        if tag == "form" and address:
            self.fields = self.found.setdefault(address, {})
        elif tag == "button" and given.get("formaction"):
            self.found.setdefault(given["formaction"], self.fields)
        if tag in {"input", "select", "textarea", "button"} and given.get("name"):
            self.fields.setdefault(given["name"], []).append(given.get("value", ""))


@pytest.fixture
def admin(people: dict[str, Any], browse: Callable[[str], Client]) -> Client:
    """Somebody who may do everything."""
    Grant.objects.create(user=people["admin"], role="dba")
    client = browse("admin")
    client.raise_request_exception = False
    return client


@contextmanager
def undone() -> Iterator[None]:
    """Let what happens inside not have happened."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def failure_of(client: Client, method: str, address: str, body: str = "", **more: Any) -> str:
    """Ask, and return what failed; '' for every answer but 500."""
    kept = copy(client.cookies)  # logging out is undone too
    with undone():
        answer = client.generic(
            method, address, body, content_type="application/x-www-form-urlencoded", **more
        )
        client.cookies = kept
        if answer.status_code != 500:
            return ""
        error = answer.exc_info[1]  # type: ignore[attr-defined]
        return f"{type(error).__name__}: {str(error)[:100]}"


def words_for(word: str, turn: int) -> Iterator[str]:
    """Yield queries that give a word odd values: NUL and every fourth of the others, by turns."""
    values = VALUES if EVERYTHING else (VALUES[0], *VALUES[turn % 4 :: 4])
    for value in values:
        yield f"{quote(word)}={value}"
    yield f"{quote(word)}=1&{quote(word)}=x"


def turn_of(name: str, word: str) -> int:
    """Return whose turn it is: the same in every run, another one on another page."""
    return sum(f"{name} {word}".encode())


def test_no_parameter_of_a_query_is_a_500(
    addresses: dict[str, str], admin: Client, asked: set[str]
) -> None:
    failed, seen = set(), Counter[str]()
    for name, address in addresses.items():
        asked.clear()
        for query in ("", "format=json", "format=csv", "window=1h"):
            failure_of(admin, "GET", f"{address}?{query}")
        seen.update(asked)
        for word in sorted(word for word in asked if EVERYTHING or seen[word] <= MOST_PAGES):
            for query in words_for(word, turn_of(name, word)):
                if reason := failure_of(admin, "GET", f"{address}?{query}"):
                    failed.add(f"{name}?{query[:80]}: {reason}")

    assert failed == set()


def test_no_field_of_a_form_is_a_500(
    addresses: dict[str, str], admin: Client, asked: set[str]
) -> None:
    failed, seen = set(), Counter[str]()
    for address, fields in every_form(addresses, admin).items():
        asked.clear()
        failure_of(admin, "POST", address)
        failure_of(admin, "POST", address, urlencode(fields, doseq=True))
        seen.update(asked | set(fields))
        for word in sorted(asked | set(fields)):
            if seen[word] > MOST_PAGES and not EVERYTHING:
                continue
            rest = urlencode({key: fields[key] for key in fields if key != word}, doseq=True)
            for query in words_for(word, turn_of(address, word)):
                if reason := failure_of(admin, "POST", address, f"{rest}&{query}"):
                    failed.add(f"{address}?{query[:80]}: {reason}")

    assert failed == set()


def every_form(addresses: dict[str, str], admin: Client) -> dict[str, dict[str, list[str]]]:
    """Return {address: its form's fields as its page fills them}, of every action too."""
    found: dict[str, dict[str, list[str]]] = {}
    for page in addresses.values():
        answer = admin.get(page)
        if answer.status_code == 200 and not answer.streaming:
            found |= {
                at: fields for at, fields in Forms(answer.content.decode()).found.items() if fields
            }
    table = {"database": ["shop"], "table": ["public.t"], "tables": ["1.1"]}
    backend = {"pid": ["4711"], "backend_start": [MOMENT], "query_start": [MOMENT]}
    for name in ("action-new", "batch-new"):
        for action in ACTIONS:
            found[addresses[name].replace("/vacuum/", f"/{action}/")] = table | backend
    known = {address: found.get(address, {}) for address in addresses.values()}
    return found | known


MOMENT = "2026-03-01T12:00:00.000001+00:00"


@pytest.mark.parametrize("header", HEADERS)
def test_no_header_is_a_500(
    header: str,
    addresses: dict[str, str],
    admin: Client,
) -> None:
    cookies = f"theme=\x00; {settings.SESSION_COOKIE_NAME}=\x00; messages=x"
    values = ("http://[", "\x00", "ÿ" * 10, "x" * 5000, cookies)

    failed = {
        f"{name} {who.cookies.keys()} {value[:20]!r}: {reason}"
        for name in ("fleet", "vacuum", "action", "login")
        for who in (admin, anonymous())
        for value in values
        for more in (HTMX, {})
        if (reason := failure_of(who, "GET", addresses[name], headers={**more, header: value}))
    }

    assert failed == set()


def anonymous() -> Client:
    """Somebody who has not logged in."""
    return Client(raise_request_exception=False)


@pytest.mark.parametrize("field", ["username", "password", "next"])
def test_no_login_is_a_500(field: str, db: None) -> None:
    del db
    form = {"username": "nobody", "password": "x", "next": "/"}
    rest = urlencode({name: form[name] for name in form if name != field})

    failed = {
        f"{query[:80]}: {reason}"
        for turn in range(4)
        for query in words_for(field, turn)
        if (reason := failure_of(anonymous(), "POST", "/login/", f"{rest}&{query}"))
    }

    assert failed == set()


def test_no_number_in_an_address_is_a_500(
    addresses: dict[str, str],
    admin: Client,
) -> None:
    failed = {
        f"{method} {name} {word}={value[:20]}: {reason}"
        for name in PATTERNS
        for word, value, address in odd_addresses(name)
        for method in ("GET", "POST")
        if (reason := failure_of(admin, method, address))
    }

    assert failed == set()


def odd_addresses(name: str) -> Iterator[tuple[str, str, str]]:
    """Yield (word, value, address) with each word of a pattern replaced by each odd value."""
    ((template, words),) = get_resolver().reverse_dict.getlist(name)[0][0]
    usual = dict.fromkeys(words, "1") | {
        "name": "shop-1",
        "action": "vacuum",
        **{word: "00000000-0000-4000-8000-000000000000" for word in words if word in UUIDS},
    }
    for word in words:
        for value in VALUES:
            raw = {**usual, word: value}
            yield word, value, "/" + template % {key: raw[key] for key in words}


UUIDS = {"action_id", "batch_id", "check_id"}
