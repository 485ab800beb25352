"""The Settings page: list, changes, advice, difference, and their exports."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.history.window import Window
from monitors.models import HISTORY, Grant, Mark, SettingChange
from monitors.rows import configuration
from monitors.rows.configuration import ChangeRow, DifferenceRow
from monitors.rows.settings import COLUMNS, SettingRow, settings_at
from tests.typed import assert_typed


@pytest.fixture
def read(shop, browse):
    """A function from a query to the page's text, as a person sees it."""

    def get(query: str = "", person: str = "viewer", *, status: int = 200, name: str = "") -> str:
        address = reverse("settings", args=[name or shop.name])
        response = browse(person).get(address + query)
        assert response.status_code == status
        content = response.streaming_content if response.streaming else [response.content]
        return b"".join(content).decode()

    return get


@pytest.fixture
def changed(shop):
    """A function that keeps a change as a snapshot would: changed(name, value, minutes ago)."""
    latest = HISTORY["settings"].latest._default_manager

    def change(name: str, value: str, minutes: int = 5, **fields: object) -> None:
        rows = latest.filter(target_id=shop.pk, name=name)
        before = rows.values(*configuration.KEPT)[0]
        rows.update(setting=value, **fields)
        after = rows.values(*configuration.KEPT)[0]
        at = timezone.now() - timedelta(minutes=minutes)
        latest.filter(target_id=shop.pk).update(since_at=at - timedelta(days=30))
        SettingChange.objects.create(
            target=shop,
            at=at,
            before_at=at - timedelta(minutes=10),
            name=name,
            before=before,
            after=after,
        )

    return change


def names(text: str) -> list[str]:
    return re.findall(r'<tr id="setting-([^"]+)"', text)


def panel(text: str, label: str) -> str:
    return text.partition(f'aria-label="{label}"')[2].partition("</section>")[0]


def test_by_default_it_lists_what_was_changed_in_words(read):
    text = read()

    assert "shared_buffers" in names(text)
    assert "64 MB" in text
    assert "work_mem" not in names(text)
    assert "work_mem" in names(read("?filter=memory"))


def test_filters_count_what_they_show(read):
    text = read()

    counts = re.findall(r'filter=(\w+)"[^>]*>[^<]*?([\d,]+)</a>', text)
    assert len(counts) == 8
    for key, count in counts:
        rows = json.loads(read(f"?filter={key}&format=json"))
        assert len(rows) == int(count.replace(",", ""))


def test_search_sort_and_pages(read):
    found = names(read("?filter=all&q=work_mem"))
    assert found == sorted(found)
    assert "work_mem" in found
    assert all("work_mem" in name or name == "hash_mem_multiplier" for name in found)
    assert names(read("?filter=all&q=work_mem&sort=-name")) == found[::-1]
    assert len(names(read("?filter=all"))) == 50
    assert names(read("?filter=all&page=2")) != names(read("?filter=all"))
    assert "No setting has that in its name" in read("?q=no-such-setting")
    read("?sort=nothing", status=400)
    read("?filter=nothing", status=400)


def test_the_export_has_postgresqls_names(read):
    [row] = json.loads(
        read("?filter=all&q=Sets the maximum memory to be used for query&format=json")
    )
    [line] = csv.DictReader(
        io.StringIO(read("?filter=all&q=Sets the maximum memory to be used for query&format=csv"))
    )

    assert tuple(row) == COLUMNS == tuple(line)
    assert (row["name"], row["setting"], row["unit"]) == ("work_mem", "4096", "kB")
    assert (row["source"], row["boot_val"], row["is_changed"]) == ("default", "4096", False)


def test_what_our_own_session_sets_is_not_shown_as_the_servers(read):
    text = read("?filter=all&q=lock_timeout")

    assert "not visible" in text[text.index('id="setting-lock_timeout"') :]


def test_a_change_is_listed_with_both_values(read, changed):
    assert "No setting changed in this window." in panel(read(), "Changes")
    changed("work_mem", "65536", source="configuration file")

    text = panel(read(), "Changes")

    assert "work_mem" in text
    assert "4 MB" in text
    assert "64 MB" in text
    [row] = json.loads(read("?table=changes&format=json"))
    assert (row["name"], row["setting_before"], row["setting"]) == ("work_mem", "4096", "65536")


def test_an_old_change_is_named_where_the_window_has_none(read, changed):
    changed("work_mem", "65536", minutes=600)

    text = panel(read(), "Changes")

    assert "No setting changed in this window." in text
    assert "The last change: work_mem 4 MB to 64 MB" in text


def test_the_past_shows_the_settings_of_then(read, changed):
    changed("work_mem", "65536", source="configuration file")
    then = (timezone.now() - timedelta(minutes=8)).strftime("%Y-%m-%dT%H:%M:%SZ")

    [now] = json.loads(read("?filter=all&q=for query workspaces&format=json"))
    [past] = json.loads(read(f"?filter=all&q=for query workspaces&format=json&at={then}"))

    assert (now["setting"], past["setting"]) == ("65536", "4096")
    assert 'aria-label="Advice"' not in read(f"?at={then}")
    assert "Nothing is known of that moment" in read("?at=2020-01-01T00:00:00Z")


def test_a_mark_of_a_change_stands_on_the_charts(shop, browse):
    text = "Settings: work_mem 4 MB to 64 MB."
    Mark.objects.create(target=shop, at=timezone.now(), kind=Mark.Kind.SETTING, text=text)

    page = browse("viewer").get(reverse("vacuum", args=[shop.name])).content.decode()

    chart = json.loads(re.findall(r'id="dead-data"[^>]*>(.*?)</template>', page)[0])
    assert [(mark["kind"], mark["text"]) for mark in chart["marks"]] == [("setting", text)]
    assert 'data-kind="setting"' in page


def test_advice_has_its_numbers_and_a_statement_to_copy(read):
    text = read()

    assert "fsync is off" in text  # on the command line of the servers of tests
    assert "Times of reads and writes are not measured." in text
    assert "data-copy" in panel(text, "Advice")
    rows = {row["name"]: row for row in json.loads(read("?table=advice&format=json"))}
    assert rows["fsync"]["level"] == "critical"
    assert rows["fsync"]["statement"] == ""
    assert rows["track_io_timing"]["statement"].startswith("ALTER SYSTEM SET track_io_timing = on;")


def test_two_moments_differ_by_what_changed(read, changed):
    changed("work_mem", "65536")
    then = (timezone.now() - timedelta(minutes=8)).strftime("%Y-%m-%dT%H:%M:%SZ")

    text = read(f"?with_at={then}")

    assert names(text) == ["work_mem"]
    assert "64 MB" in text
    [row] = json.loads(read(f"?with_at={then}&format=json"))
    assert (row["setting"], row["with_setting"]) == ("65536", "4096")
    read("?with_at=soon", status=400)
    assert "Nothing is known of the other side" in read("?with_at=2020-01-01T00:00:00Z")


def test_two_targets_differ_by_nothing_where_they_are_one_server(read, watch, embedded):
    take_now(watch(embedded, name="shop-2"), ["settings"])

    assert "No difference" in read("?with=shop-2")


def test_who_may_not_see_both_gets_404(shop, read, watch, embedded, people):
    watch(embedded, name="secret", env="staging")
    Grant.objects.create(user=people["stranger"], role="viewer", target=shop)

    read("?with=secret", "stranger", status=404)
    read("?with=nobody", "stranger", status=404)
    read("?with=shop-1", "stranger")
    assert "secret" not in read("", "stranger")


def test_before_the_first_snapshot_it_says_so(read, watch, embedded):
    watch(embedded, name="fresh")

    assert "First snapshot" in read(name="fresh")


def test_rows_are_what_their_types_say(shop, changed):
    before = settings_at(shop, Window.last("1h", timezone.now()))
    changed("work_mem", "8192")
    window = Window.last("1h", timezone.now())

    after = settings_at(shop, window)

    for row in after:
        assert_typed(row, SettingRow)
    [change] = configuration.changes_of(shop, window)
    assert_typed(change, ChangeRow)
    [difference] = configuration.difference_of(before, after)
    assert_typed(difference, DifferenceRow)
    others = [row for row in after if row["name"] != "work_mem"]
    [gone] = configuration.difference_of(before, others)
    assert_typed(gone, DifferenceRow)
