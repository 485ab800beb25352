"""Findings and thresholds in a browser: accessible, as wide as the window, put aside by hand."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from monitors.findings import keep
from monitors.models import FindingRecord
from monitors.rows import findings
from tests.browser.test_face import RULES

pytestmark = pytest.mark.browser


@pytest.fixture
def row(shop, junk):
    keep.keep(shop.pk, {"tables"})
    now = timezone.now()
    FindingRecord.objects.create(
        target=shop, advisor="blocked", object_key="x", title="A blocks B, " * 9, severity=3, worst=3,
        object_name="1", first_seen_at=now, opened_at=now, seen_at=now, snoozed_at=now,
        snoozed_by="alice", snoozed_until=now + timedelta(days=1), quiet_severity=3,
        snoozed_reason="It is known, and it will be mended by the next release of the program.",
    )  # fmt: skip
    return FindingRecord.objects.get(advisor="autovacuum_disabled", title__contains="junk")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_accessible_and_fit(scheme, row, enter, page, axe):
    page.emulate_media(color_scheme=scheme)
    script = f"async () => {{ {axe}; return (await axe.run({{runOnly: {RULES}}})).violations }}"
    too_wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    addresses = {
        "operator": ["/findings/", "/findings/?state=snoozed", f"/findings/{row.pk}/"],
        "admin": ["/thresholds/", "/thresholds/?target=shop-1"],
    }

    for person, mine in addresses.items():
        show = enter(person)
        for address in mine:
            show(address)
            found = [(one["id"], one["nodes"][0]["html"]) for one in page.evaluate(script)]
            assert found == [], address
            for width in (390, 1280, 1920):
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate(too_wide) == 0, (address, width)


def test_an_operator_snoozes_a_finding_and_reopens_it(row, enter, page):
    enter("operator")(f"/findings/{row.pk}/")
    snooze = page.locator(f'form[action="/findings/{row.pk}/snooze/"]')
    snooze.get_by_label("Until").fill("2h")
    snooze.get_by_label("Reason").fill("After the import.")
    snooze.get_by_role("button").click()

    expect(page.get_by_label("Life")).to_contain_text("Snoozed by operator until")
    expect(page.get_by_label("Life")).to_contain_text("After the import.")
    page.get_by_role("button", name="Reopen").click()
    expect(page.get_by_label("Life")).to_contain_text("open")
    row.refresh_from_db()
    assert findings.state_of(row, timezone.now()) == "open"
