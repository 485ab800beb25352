"""The page that replays autovacuum over a table's past."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest
from django.urls import reverse
from psycopg import sql

from dashboard.pages.what_if import FieldRow, OutcomeRow, ProposalRow
from monitors.acting import perform, preview
from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Action, Target
from tests.typed import assert_typed


@pytest.fixture
def read(place, browse):
    """A function from a query to the page's status and text, as a DBA sees it."""
    client, address = browse("dba"), reverse("table-what-if", kwargs=place)

    def get(query: str = "") -> tuple[int, str]:
        response = client.get(address + query)
        content = response.streaming_content if response.streaming else [response.content]
        return response.status_code, b"".join(content).decode()

    return get


@pytest.fixture
def written(shop, junk, embedded):
    """The table with a short history: some rows die between each two snapshots."""
    with embedded.connect(user="owner", dbname="shop") as session:
        for part in range(5):
            session.execute(
                sql.SQL("DELETE FROM {} WHERE id % 5 = {}").format(sql.Identifier(junk), part)
            )
            session.execute("SELECT pg_stat_force_next_flush()")
            take_now(shop, ["tables"])
    return shop


def test_it_replays_and_says_that_nothing_real_was_there_to_compare(read, written):
    status, text = read()

    assert status == 200
    assert "No autovacuum of this table ended in this window" in text
    assert 'id="dead-data"' in text


def test_what_is_tried_stands_beside_what_is(read, written):
    status, text = read("?autovacuum_vacuum_scale_factor=0.01")

    assert status == 200
    assert 'value="0.01"' in text
    assert "as it is" in text
    data = json.loads(text.split('id="dead-data"')[1].split(">", 1)[1].split("</template>")[0])
    assert [one["label"] for one in data["series"]] == ["Recorded", "Replayed as it is", "Tried"]


def test_bad_input_keeps_what_was_typed_and_says_what_to_give(read, written):
    status, text = read("?autovacuum_vacuum_scale_factor=lots&autovacuum_vacuum_threshold=7")

    assert status == 400
    assert "autovacuum_vacuum_scale_factor is a number from 0 to 100" in text
    assert 'value="lots"' in text
    assert 'value="7"' in text


def test_the_trade_off_is_searched_when_asked_for(read, written):
    assert "replays 28 choices" in read()[1]
    assert "autovacuum_enabled=true" in read("?best=1")[1]


def test_where_the_proof_fails_nothing_is_proposed_and_a_trial_keeps_the_warning(read, written):
    assert "Set these" in read("?best=1")[1]
    samples = HISTORY["tables"].samples._default_manager.filter(target_id=written.pk)
    samples.update(autovacuum_count=16)  # of which the replay has none

    for query in ("", "?best=1"):
        text = read(query)[1]
        assert "It does not predict this table well: nothing is proposed." in text
        assert "Nothing is proposed: the replay does not predict this table well." in text
        assert "Set these" not in text
        assert "Find the best" not in text
        assert 'data-kind="balanced"' not in text
    assert len(json.loads(read("?best=1&format=json")[1])) == 1
    tried = read("?autovacuum_vacuum_threshold=9")[1]
    assert "It does not predict this table well" in tried
    assert "Set these for the table" in tried


def test_the_export_has_what_is_what_is_tried_and_the_trade_off(read, written):
    rows = json.loads(read("?format=json&autovacuum_vacuum_threshold=9")[1])

    assert "autovacuum_enabled=off" in rows[0]["parameters"]
    assert rows[1]["parameters"] == "autovacuum_enabled=true, autovacuum_vacuum_threshold=9"
    assert rows[1]["workers_pct"] == pytest.approx(rows[1]["busy_pct"] / 3)
    assert sum(row["is_balanced"] for row in rows) == 1


def test_a_table_that_was_read_once_says_what_is_missing(read):
    status, text = read()

    assert status == 200
    assert "too little history" in text


def test_a_table_that_never_was_is_not_found(place, browse):
    address = reverse("table-what-if", kwargs={**place, "relid": 1})

    assert browse("dba").get(address).status_code == 404


@pytest.fixture
def owning(embedded):
    """The operator login may do what the owner may: only an owner alters a table."""
    with embedded.connect() as session:
        session.execute("GRANT owner TO operator")
        yield
        session.execute("REVOKE owner FROM operator")


def test_one_press_asks_for_what_is_proposed_and_can_be_undone(
    read, written, place, browse, owning
):
    status, text = read("?best=1")
    form = re.search(r"<form[^>]*set_autovacuum[^>]*>.*?btn-primary.*?</form>", text, re.DOTALL)
    assert status == 200
    assert form
    fields = dict(re.findall(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)"', form[0]))
    fields = {name: unescape(value) for name, value in fields.items()}
    assert fields["autovacuum_enabled"] == "true"  # the table has it off
    assert "what is tried and proposed has it on" in text

    client = browse("dba")
    answer = client.post(reverse("action-new", args=[place["name"], "set_autovacuum"]), fields)
    row = Action.objects.get(pk=answer["Location"].split("/")[2])
    preview.preview_now(str(row.pk))
    row.refresh_from_db()
    assert row.preview["refused"] == "", row.arguments
    client.post(reverse("action-request", args=[row.pk]))
    perform.perform(str(row.pk))

    row.refresh_from_db()
    assert row.state == "succeeded", row.outcome
    assert row.sql.startswith("ALTER TABLE ")
    assert "\"autovacuum_enabled\" = 'true'" in row.sql
    assert row.inverse["name"] == "set_autovacuum"


def test_the_cap_of_18_can_be_tried_there_alone(read, written):
    assert 'name="autovacuum_vacuum_max_threshold"' in read()[1]
    Target.objects.filter(pk=written.pk).update(server_version=170004)

    assert 'name="autovacuum_vacuum_max_threshold"' not in read()[1]


def test_vacuums_by_hand_are_said_to_be_left_out(read, written, embedded, junk):
    with embedded.connect(user="owner", dbname="shop") as session:
        session.execute(sql.SQL("VACUUM {}").format(sql.Identifier(junk)))
        session.execute("SELECT pg_stat_force_next_flush()")
    take_now(written, ["tables"])

    assert "1 vacuum by hand in this window is left out" in read()[1]


def test_rows_are_what_their_types_say(written, place, browse):
    shown = browse("dba").get(reverse("table-what-if", kwargs=place), {"best": "1"})

    assert_typed(shown.context["now"], OutcomeRow)
    assert shown.context["candidates"]
    for one in shown.context["candidates"]:
        assert_typed(one, ProposalRow)
    for one in shown.context["fields"]:
        assert_typed(one, FieldRow)
