"""A browser in which somebody is logged in, before a target that was read a moment ago."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings

from tests.dashboard.conftest import browse, junk, people, place, shop

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["browse", "junk", "people", "place", "shop"]


@pytest.fixture
def enter(
    page: Page, live_server: Any, browse: Callable[..., Any]
) -> Callable[[str], Callable[[str], Page]]:
    """Log a person in and return a function that opens an address: enter("dba")("/")."""

    def log_in(person: str) -> Callable[[str], Page]:
        name = settings.SESSION_COOKIE_NAME
        cookie = browse(person).cookies[name]
        page.context.add_cookies([{"name": name, "value": cookie.value, "url": live_server.url}])

        def open_page(address: str) -> Page:
            page.goto(live_server.url + address)
            return page

        return open_page

    return log_in
