"""The Findings pages: lists, one finding, and putting it aside."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from dashboard.pages.findings import LineRow
from monitors.findings import aside, judge, keep
from monitors.models import AuditEntry, FindingRecord, Grant
from monitors.rows import findings
from monitors.rows.findings import FindingRow
from tests.dashboard.test_access import PERSONS
from tests.people import HTMX
from tests.typed import assert_typed

AT_ONCE = frozenset({"tables", "activity", "sessions", "progress"})


@pytest.fixture
def row(shop, junk):
    """The kept finding of the table `junk`."""
    keep.keep(shop.pk, AT_ONCE)
    return FindingRecord.objects.get(advisor="autovacuum_disabled", title__contains="junk")


@pytest.fixture
def make(shop):
    """Make a row: make(title="…", resolved_at=…)."""
    made = []

    def create(**columns):
        made.append(1)
        now = timezone.now()
        known = {
            "target": shop, "advisor": "dead_tuples", "object_key": f"relation 1 {len(made)}",
            "object_name": f"public.t{len(made)}", "title": f"public.t{len(made)} is due.",
            "severity": 2, "worst": 2, "first_seen_at": now, "opened_at": now, "seen_at": now,
        }  # fmt: skip
        return FindingRecord.objects.create(**{**known, **columns})

    return create


def text_of(response, status=200):
    assert response.status_code == status
    content = response.streaming_content if response.streaming else [response.content]
    return b"".join(content).decode()


def listed(text):
    return [int(number) for number in re.findall(r'<tr id="finding-(\d+)"', text)]


def counted(text):
    """Tell of the rail's two lines of findings, the target's and the fleet's, which have a count."""
    rail = text[text.index('<nav class="rail"') :].partition("</nav>")[0]
    lines = re.findall(r'href="(?:/targets/shop-1)?/findings/"[^>]*>(.*?)</a>', rail)
    return ['class="count"' in line for line in lines]


def test_it_lists_what_is_open_the_worst_first(make, browse):
    notice, critical, warning = make(severity=1), make(severity=3), make()
    make(resolved_at=timezone.now())
    make(opened_at=None)

    text = text_of(browse("viewer").get("/findings/"))

    assert listed(text) == [critical.pk, warning.pk, notice.pk]
    assert listed(text_of(browse("viewer").get("/targets/shop-1/findings/"))) == listed(text)


def test_each_state_has_its_list_and_its_count(make, browse):
    now = timezone.now()
    rows = {
        "open": make(),
        "acknowledged": make(acknowledged_at=now, acknowledged_by="alice", quiet_severity=2),
        "snoozed": make(snoozed_at=now, snoozed_until=now + timedelta(hours=1), quiet_severity=2),
        "resolved": make(resolved_at=now),
    }
    client = browse("viewer")

    for state, row in rows.items():
        text = text_of(client.get("/findings/", {"state": state}))
        assert listed(text) == [row.pk], state
        assert text.count('<span class="muted">1</span>') == 4
    assert "alice" in text_of(client.get("/findings/", {"state": "acknowledged"}))


def test_resolved_ones_are_those_of_the_window_with_how_long_they_lasted(make, browse):
    now = timezone.now()
    make(resolved_at=now - timedelta(days=3), opened_at=now - timedelta(days=3, hours=2, minutes=4))
    client = browse("viewer")

    assert "2 h 04 min" in text_of(client.get("/findings/?state=resolved"))
    assert "Nothing was resolved" in text_of(client.get("/findings/?state=resolved&window=24h"))


def test_a_past_moment_shows_what_was_open_then(make, browse):
    now = timezone.now()
    row = make(opened_at=now - timedelta(hours=3), resolved_at=now - timedelta(hours=1))
    at = {"at": (now - timedelta(hours=2)).isoformat()}

    assert listed(text_of(browse("viewer").get("/findings/", at))) == [row.pk]
    early = {"at": (now - timedelta(hours=4)).isoformat()}
    assert listed(text_of(browse("viewer").get("/findings/", early))) == []


def test_a_past_moment_keeps_its_order_when_findings_end(make, browse):
    now = timezone.now()
    rows = [make(opened_at=now - timedelta(hours=3)) for _ in range(3)]
    client, at = browse("viewer"), {"at": (now - timedelta(hours=2)).isoformat()}
    before = listed(text_of(client.get("/findings/", at)))

    for row, minutes in zip(rows, (50, 10, 30), strict=True):
        row.resolved_at = now - timedelta(minutes=minutes)
        row.save()

    assert listed(text_of(client.get("/findings/", at))) == before == [row.pk for row in rows[::-1]]


def test_it_can_be_searched_and_filtered(make, browse):
    one, other = (
        make(title="Orders are due."),
        make(advisor="blocked", title="A waits.", why="Orders wait."),
    )
    client = browse("viewer")

    assert listed(text_of(client.get("/findings/?q=orders+due"))) == [one.pk]
    assert listed(text_of(client.get("/findings/?advisor=blocked"))) == [other.pk]
    assert listed(text_of(client.get("/findings/?target=shop-1"))) == [other.pk, one.pk]
    assert "Nothing matches" in text_of(client.get("/findings/?environment=production"))
    assert client.get("/findings/?state=lost").status_code == 400


def test_it_exports_everything_that_matches(make, browse):
    for _ in range(51):
        make()
    client = browse("viewer")

    rows = json.loads(text_of(client.get("/findings/?format=json")))
    assert len(rows) == 51
    assert tuple(rows[0]) == findings.COLUMNS
    assert (rows[0]["severity"], rows[0]["state"], rows[0]["target"]) == (
        "warning",
        "open",
        "shop-1",
    )
    text = text_of(client.get("/targets/shop-1/findings/?format=csv&q=t7"))
    [line] = csv.DictReader(io.StringIO(text))
    assert line["object"] == "public.t7"
    assert len(listed(text_of(client.get("/findings/")))) == 50
    assert len(listed(text_of(client.get("/findings/?page=2")))) == 1


def test_many_findings_need_no_more_queries(make, browse, django_assert_max_num_queries):
    for _ in range(40):
        make()
    client = browse("viewer")

    with django_assert_max_num_queries(25):
        client.get("/findings/")


def test_nothing_to_report_is_good_and_says_so(shop, browse):
    assert "Nothing to report. Good." in text_of(browse("viewer").get("/findings/"))
    for state, words in (("acknowledged", "Nothing is put aside"), ("resolved", "Nothing was")):
        assert words in text_of(browse("viewer").get("/findings/", {"state": state}))


def test_one_sees_just_what_one_may(make, browse, watch, embedded, people):
    mine, hidden = make(), make(target=watch(embedded, name="secret", env="staging"))
    Grant.objects.create(user=people["stranger"], role="viewer", target=mine.target)
    client = browse("stranger")

    assert listed(text_of(client.get("/findings/"))) == [mine.pk]
    assert client.get(reverse("finding", args=[hidden.pk])).status_code == 404
    assert client.get(reverse("finding", args=[mine.pk])).status_code == 200
    assert "secret" not in text_of(client.get("/findings/"))


def test_the_rail_counts_what_is_open(row, make, browse):
    text = text_of(browse("viewer").get("/targets/shop-1/findings/"))
    assert counted(text) == [True, True]

    aside.acknowledge("alice", "test", row, "We know.")
    FindingRecord.objects.exclude(pk=row.pk).delete()

    text = text_of(browse("viewer").get("/targets/shop-1/findings/"))
    assert counted(text) == [False, False]


def test_what_is_put_aside_is_shown_grey_with_who_and_why_and_counts_nowhere(row, shop, browse):
    client = browse("viewer")
    before = json.loads(text_of(client.get("/?format=json")))[0]

    until = timezone.now() + timedelta(hours=2)
    aside.snooze("alice", "test", row, until, "After the import.")

    text = text_of(client.get("/targets/shop-1/vacuum/"))
    assert '<article class="finding" data-quiet>' in text
    assert "Snoozed by alice until" in text
    assert "After the import." in text
    assert "1 acknowledged or snoozed" in text
    after = json.loads(text_of(client.get("/?format=json")))[0]
    assert after["warning"] == before["warning"] - 1


def test_a_finding_shows_its_evidence_its_life_and_its_thresholds(row, browse):
    text = text_of(browse("dba").get(reverse("finding", args=[row.pk])))

    assert "2,000" in text
    assert "from tables" in text
    assert "autovacuum_disabled" in text
    assert "critical_ratio" in text
    assert "Never before" in text
    assert 'action="/targets/shop-1/actions/set_autovacuum/"' in text
    assert re.search(r"Turn autovacuum on for [\w.\"&;]*", text)
    assert 'name="autovacuum_enabled" value="reset"' in text
    assert f'action="/findings/{row.pk}/acknowledge/"' in text


def test_a_viewer_is_told_why_there_is_no_form(row, browse):
    text = text_of(browse("viewer").get(reverse("finding", args=[row.pk])))

    assert "does not include acknowledge" in text
    assert f'action="/findings/{row.pk}/acknowledge/"' not in text


def test_a_resolved_finding_offers_nothing_and_names_the_next_one(row, make, browse):
    FindingRecord.objects.filter(pk=row.pk).update(resolved_at=timezone.now())
    later = make(advisor=row.advisor, object_key=row.object_key, previous=row)

    text = text_of(browse("dba").get(reverse("finding", args=[row.pk])))
    assert "Resolved:" in text
    assert 'action="/targets/shop-1/actions/' not in text
    assert f'href="/findings/{later.pk}/"' in text
    assert f'href="/findings/{row.pk}/"' in text_of(
        browse("dba").get(reverse("finding", args=[later.pk]))
    )


def test_a_finding_names_an_action_that_this_howdah_lacks(row, browse):
    FindingRecord.objects.update(action="undreamt_of")

    assert "undreamt_of" not in text_of(browse("dba").get(reverse("finding", args=[row.pk])))


SAID: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "a date": (
        {"hurts": "20 % are dead, at 9 a day", "hurts_at": timedelta(days=12, minutes=5)},
        "Hurts in 12 d, {day}: 20 % are dead, at 9 a day",
        "{day}, in 12 d: 20 % are dead, at 9 a day",
        "hurts {day}: 20 % are dead, at 9 a day",
    ),
    "already": (
        {"hurts": "nobody can write", "hurts_at": timedelta(hours=-3), "hurts_already": True},
        "Hurts already, for 3 h: nobody can write",
        "Already, since ",
        "hurts already since ",
    ),
    "no date": (
        {"hurts": "full; no date: it does not grow"},
        "When it hurts: full; no date: it does not grow",
        "full; no date: it does not grow",
        "when it hurts: full; no date: it does not grow",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_when_it_hurts_is_said_everywhere(make, browse, capsys, case):
    columns, in_list, on_page, printed = SAID[case]
    at = timezone.now() + columns["hurts_at"] if "hurts_at" in columns else None
    row = make(**columns | {"hurts_at": at})
    day = f"{at.day} {at:%b %Y}" if at else ""

    page = words_of(browse("viewer").get(reverse("finding", args=[row.pk])))
    listing = words_of(browse("viewer").get("/findings/"))
    [exported] = json.loads(text_of(browse("viewer").get("/findings/?format=json")))

    assert in_list.format(day=day) in listing
    assert f"When it hurts {on_page.format(day=day)}" in page
    call_command("finding", "list")
    assert printed.format(day=day) in capsys.readouterr().out
    assert exported["hurts"] == columns["hurts"]
    assert exported["hurts_already"] is columns.get("hurts_already", False)
    assert (exported["hurts_at"] is None) == (at is None)


def words_of(response):
    """Return a page's text without its marks."""
    return (
        " ".join(re.sub(r"<[^>]*>", " ", text_of(response)).split())
        .replace(" ,", ",")
        .replace(" :", ":")
    )


ACKNOWLEDGE = {"reason": "We know."}
SNOOZE = {"reason": "Later.", "until": "2h"}


@pytest.mark.parametrize(
    ("person", "status"),
    list(zip(PERSONS, (302, 404, 403, 302, 302, 404, 403), strict=True)),
)
@pytest.mark.parametrize(
    ("verb", "typed"), [("acknowledge", ACKNOWLEDGE), ("snooze", SNOOZE), ("reopen", {})]
)
def test_operators_and_dbas_put_aside(row, browse, person, status, verb, typed):
    if verb == "reopen":
        aside.acknowledge("alice", "test", row, "We know.")
    before = findings.state_of(row, timezone.now())

    response = browse(person).post(reverse(f"finding-{verb}", args=[row.pk]), typed)

    assert response.status_code == status
    row.refresh_from_db()
    done = person in {"operator", "dba"}
    assert (findings.state_of(row, timezone.now()) != before) is done
    entries = AuditEntry.objects.filter(what=f"finding.{verb}", who=person)
    assert entries.count() == (1 if done else 0)
    if status == 403:
        assert AuditEntry.objects.filter(what="acknowledge", result="denied", who=person).exists()


def test_what_was_typed_wrong_is_said_beside_it(row, browse):
    client = browse("operator")

    text = text_of(client.post(reverse("finding-acknowledge", args=[row.pk]), {"reason": ""}), 400)
    assert 'id="acknowledge_reason_error"' in text
    wrong = {"reason": "Later.", "until": "soon"}
    text = text_of(client.post(reverse("finding-snooze", args=[row.pk]), wrong), 400)
    assert "is neither 30m, 2h, 3d or 1w" in text
    text = text_of(
        client.post(reverse("finding-snooze", args=[row.pk]), {**wrong, "until": "2020-01-01"}), 400
    )
    assert "within the next year" in text
    row.refresh_from_db()
    assert findings.state_of(row, timezone.now()) == "open"


def test_what_resolved_meanwhile_is_a_conflict(row, browse):
    FindingRecord.objects.update(resolved_at=timezone.now())

    response = browse("operator").post(reverse("finding-acknowledge", args=[row.pk]), ACKNOWLEDGE)

    assert "is resolved" in text_of(response, 409)


def test_the_list_stands_alone_for_htmx(row, browse):
    text = text_of(browse("viewer").get("/findings/", headers=HTMX))

    assert "<html" not in text
    assert 'id="body"' in text


def test_what_a_page_finds_leads_to_its_record(row, shop, browse):
    [live] = [one for one in judge.find(shop) if one.record_id == row.pk]
    assert live.title == row.title

    text = text_of(browse("viewer").get("/targets/shop-1/vacuum/?window=6h"))

    assert f'href="/findings/{row.pk}/?window=6h"' in text


def test_rows_are_what_their_types_say(row, make, browse):
    make(resolved_at=timezone.now(), acknowledged_at=timezone.now())

    for one in findings.find_opened():
        assert_typed(findings.describe(one, timezone.now()), FindingRow)
    for line in browse("viewer").get("/findings/").context["listing"].rows:
        assert_typed(line, LineRow)


def test_the_command_says_the_keys_in_their_order(make, capsys):
    make()

    call_command("finding", "list", "--json")

    assert tuple(json.loads(capsys.readouterr().out)[0]) == findings.COLUMNS
