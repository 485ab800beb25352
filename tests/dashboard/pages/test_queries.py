"""The Queries page: the top statements of a window, and why there are none."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from monitors.collect.rounds import take_now
from monitors.history.window import Window
from monitors.models import HISTORY, Mark, ProbeState, SettingChange
from monitors.models.history import Change
from monitors.rows import statements as statement_rows
from monitors.rows.statements import COLUMNS, DrawnStatementRow, StatementRow
from tests.dashboard.pages.statements import Statements, grown
from tests.people import browser_of, make_target, person
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db


@pytest.fixture
def target():
    return make_target()


@pytest.fixture
def statements(target):
    return Statements(target)


@pytest.fixture
def read(target):
    """A function from a query to the page's text, as a viewer sees it."""
    client = browser_of(person("viewer", "viewer"))

    def get(query: str = "") -> str:
        response = client.get(f"/targets/{target.name}/queries/{query}")
        assert response.status_code == 200
        return response.getvalue().decode()

    return get


def ids(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'<tr id="query-(\d+)"', text)]


def test_the_export_has_just_the_keys_that_are_promised(read, statements):
    statements.add(
        -(2**62),
        grown(
            4, 20.0, rows=8, shared_blks_hit=9, shared_blks_read=1, temp_blks_written=3, wal_bytes=7
        ),
        grown(6, 10.0, rows=2, minute=6),
    )
    statements.add(2, grown(1, 70.0))

    first, second = json.loads(read("?format=json"))

    assert tuple(first) == COLUMNS
    assert first["share_pct"] == 70
    assert second == {
        "database": "shop",
        "usename": "app",
        "queryid": str(-(2**62)),
        "toplevel": True,
        "query": f"SELECT $1 FROM t{-(2**62)}",
        "calls": 10,
        "total_exec_time_ms": 30.0,
        "mean_exec_time_ms": 3.0,
        "rows": 10,
        "rows_per_call": 1.0,
        "shared_blks_hit": 9,
        "shared_blks_read": 1,
        "temp_blks_written": 3,
        "wal_bytes": 7,
        "share_pct": 30.0,
    }


def test_csv_says_the_same_as_json(read, statements):
    statements.add(1, grown(3, 4.5))

    (line,) = csv.DictReader(io.StringIO(read("?format=csv"), newline=""))
    (row,) = json.loads(read("?format=json"))

    assert list(line) == list(row)
    assert line["total_exec_time_ms"] == "4.5"


def test_what_was_not_called_in_the_window_is_not_listed(read, statements):
    idle = statements.add(1)
    early = statements.add(2, grown(5, 5.0, minute=1))
    late = statements.add(3, grown(5, 5.0, minute=30))
    start = int(statements.at(10).timestamp())

    found = ids(read(f"?from={start}"))

    assert found == [late.pk]
    assert set(ids(read())) == {early.pk, late.pk}
    assert idle.pk not in ids(read())


def test_it_sorts_by_any_column_either_way(read, statements):
    one = statements.add(1, grown(1, 9.0, rows=5), query="SELECT a")
    two = statements.add(2, grown(9, 2.0, rows=3), query="SELECT b")

    assert ids(read()) == [one.pk, two.pk]
    assert ids(read("?sort=-total_exec_time")) == [one.pk, two.pk]
    assert ids(read("?sort=total_exec_time_ms")) == [two.pk, one.pk]
    assert ids(read("?sort=-calls")) == [two.pk, one.pk]
    assert ids(read("?sort=query")) == [one.pk, two.pk]
    for column in (*COLUMNS, "hit_pct"):
        assert sorted(ids(read(f"?sort={column}"))) == sorted([one.pk, two.pk])


def test_it_filters_by_text_database_and_user(read, statements):
    # The words stand behind what a list shows of a text.
    long = statements.add(1, grown(1, 1.0), query="SELECT " + "a, " * 200 + "needle")
    other = statements.add(2, grown(1, 1.0), usename="batch", datname="archive")

    assert ids(read("?q=NEEDLE")) == [long.pk]
    assert ids(read("?q=batch")) == [other.pk]
    assert ids(read("?database=archive")) == [other.pk]
    assert ids(read("?user=app")) == [long.pk]
    assert [row["query"][-6:] for row in json.loads(read("?format=json&user=app"))] == ["needle"]


def test_fifty_rows_make_a_page_and_the_export_has_all(read, statements):
    for number in range(60):
        statements.add(number, grown(1, 1.0 + number))

    assert len(ids(read())) == 50
    assert len(ids(read("?page=2"))) == 10
    assert len(json.loads(read("?page=2&format=json"))) == 60


def test_more_rows_need_no_more_questions(read, statements):
    def asked() -> int:
        with CaptureQueriesContext(
            connection,
        ) as seen:
            read()
        return len(seen)

    statements.add(1, grown(1, 1.0))
    read()
    few = asked()
    for number in range(2, 40):
        statements.add(number, grown(1, 1.0))

    assert asked() == few


def test_the_verdict_names_the_top_statement_and_its_share(read, statements):
    statements.add(1, grown(4, 8000.0), query="SELECT pg_sleep($1)")
    statements.add(2, grown(9, 2000.0))

    text = read()

    assert "SELECT pg_sleep($1) takes 80 % of this target&#x27;s execution time" in text
    assert "8 s in 4 calls, 2 s each." in text


def test_what_became_slower_is_said_first(read, statements):
    statements.add(1, grown(10, 100.0, minute=2), grown(10, 900.0, minute=38), query="SELECT slow")
    statements.add(2, grown(10, 9000.0, minute=2), grown(10, 9000.0, minute=38))
    start = int(statements.at(0).timestamp())

    text = read(f"?from={start}")

    assert "One statement became slower: SELECT slow takes 90 ms, was 10 ms" in text
    assert 'class="verdict" data-level="warning"' in text


def test_a_nested_statement_is_part_of_the_one_that_called_it(read, statements):
    statements.add(1, grown(1, 100.0), query="SELECT f()")
    statements.add(2, grown(1, 90.0), toplevel=False)

    rows = json.loads(read("?format=json"))

    assert [(row["toplevel"], row["share_pct"]) for row in rows] == [(True, 100), (False, 90)]
    assert read().count("nested</span>") == 1


def test_evictions_and_resets_are_said(read, statements, target):
    statements.add(1, grown(1, 1.0))
    assert "was full" not in read()
    statements.read(3, second=5, evicted=7)
    assert "was full 7 times in this window and dropped some of its statements" in read()
    statements.read(4, second=5, evicted=1)
    setting(target, "pg_stat_statements.max", "5000")
    mark = {"target": target, "kind": Mark.Kind.RESET, "at": statements.at(9)}
    Mark.objects.create(text="Statistics of pg_stat_statements were reset.", **mark)

    text = read()

    assert "was full 8 times in this window and dropped at least 250 of its statements" in text
    assert "(5 % of the 5,000 that it holds, but never fewer than 10): totals may" in text
    assert "Statistics were reset once in it." in text


def test_what_it_held_is_told_as_it_was_then(read, statements, target):
    statements.add(1, grown(1, 1.0))
    statements.read(3, second=5, evicted=1)
    setting(target, "pg_stat_statements.max", "5000")
    HISTORY["settings"].latest._default_manager.update(since_at=statements.at(0))
    held = {"name": "pg_stat_statements.max", "before_at": statements.at(19)}
    SettingChange.objects.create(
        target=target,
        at=statements.at(20),
        before={"setting": "1000"},
        after={"setting": "5000"},
        **held,
    )

    assert "the 1,000 that it holds" in read(f"?at={statements.at(10).timestamp()}")
    assert "the 5,000 that it holds" in read(f"?at={statements.at(30).timestamp()}")


@pytest.mark.parametrize(
    ("held", "dropped", "of"),
    [
        ("100", "10", "the 100 that it holds"),  # the least that the server takes: 5 % are 5
        ("200", "10", "the 200 that it holds"),
        ("220", "11", "the 220 that it holds"),
        ("5000", "250", "the 5,000 that it holds"),
    ],
)
def test_so_many_are_dropped_each_time(read, statements, target, held, dropped, of):
    statements.add(1, grown(1, 1.0))
    statements.read(3, second=5, evicted=2)
    setting(target, "pg_stat_statements.max", held)

    text = read()

    assert f"dropped at least {dropped} of its statements each time (5 % of {of}, but never" in text
    assert "never fewer than 10)" in text


def test_a_statement_that_began_anew_in_the_window_says_so(read, statements):
    statements.add(1, grown(3, 1.0), grown(2, 1.0, minute=9, change=Change.RESTARTED))

    assert "Its counters began anew in this window" in read()
    assert json.loads(read("?format=json"))[0]["calls"] == 5


def test_a_foreign_text_is_escaped(read, statements):
    statements.add(1, grown(1, 1.0), query="SELECT '<img src=x>' AS \"<b onload=1>\"")

    text = read()

    assert "<img src=x" not in text
    assert "<b onload" not in text


def refuse(target, state, reason):
    ProbeState.objects.update_or_create(
        target=target, probe="statements", defaults={"state": state, "reason": reason}
    )


def setting(target, name, value):
    HISTORY["settings"].latest._default_manager.create(
        target_id=target.pk,
        database_id=0,
        name=name,
        setting=value,
        since_at=timezone.now(),
        changed_at=timezone.now(),
    )


MISSING = "The extension pg_stat_statements is installed in no database that is read."


def code(text: str) -> str:
    """Return the statement that the page offers, without markup."""
    block = re.search(r'<pre class="code sql">(.*?)<button', text, re.DOTALL)
    assert block
    return re.sub(r"<[^>]+>", "", block[1]).replace("&#x27;", "'").replace("&quot;", '"')


def test_a_missing_extension_shows_what_installs_it(read, target):
    refuse(target, "unsupported", MISSING)
    setting(target, "shared_preload_libraries", "auto_explain")

    assert code(read()).splitlines() == [
        "ALTER SYSTEM SET shared_preload_libraries = 'auto_explain', 'pg_stat_statements';",
        "-- then restart the server, and:",
        "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;",
    ]


def test_a_library_that_is_loaded_needs_no_restart(read, target):
    refuse(target, "unsupported", MISSING)
    setting(target, "shared_preload_libraries", "pg_stat_statements")
    setting(target, "pg_stat_statements.max", "5000")

    assert code(read()) == "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;"


def test_libraries_that_were_not_read_are_not_overwritten(read, target):
    refuse(target, "unsupported", MISSING)

    assert "ALTER SYSTEM" not in code(read())
    assert "CREATE EXTENSION" in code(read())


def test_an_old_extension_shows_its_update(read, target):
    reason = "pg_stat_statements 1.8 is too old here: ALTER EXTENSION pg_stat_statements UPDATE;"
    refuse(target, "unsupported", reason)

    text = read()

    assert code(text) == "ALTER EXTENSION pg_stat_statements UPDATE;"
    assert ";." not in text
    assert "Pg_stat" not in text


def test_a_missing_right_shows_its_grant(read, target):
    grant = 'GRANT USAGE ON SCHEMA "Stats" TO collector;'
    said = 'The schema "Stats" of pg_stat_statements may not be used.'
    refuse(target, "denied", f"{said} In the database shop: {grant}")

    text = read()

    assert code(text) == grant
    assert "Run this on the target as a superuser, in the database shop:" in text


def test_tracking_switched_off_is_said_above_what_was_counted(read, statements, target):
    statements.add(1, grown(1, 1.0))
    setting(target, "pg_stat_statements.track", "none")

    text = read()

    assert "pg_stat_statements.track is none" in text
    assert "pg_reload_conf" in code(text)
    assert len(ids(text)) == 1


def test_before_the_second_snapshot_it_says_when_figures_come(read, statements):
    assert "they come with the second one" in read()


def test_before_the_first_snapshot_it_says_when_it_comes(read):
    assert "First snapshot" in read()


def test_it_shows_what_a_server_counted_to_the_call(watch, embedded):
    watched = watch(embedded, name="counted")
    client = browser_of(person("reader", "viewer"))
    with embedded.connect(dbname="shop") as session:
        session.execute("SELECT 1 AS warm_up_of_pages")
        take_now(watched, ["statements"])
        for _ in range(7):
            session.execute("SELECT g AS seven_times FROM generate_series(1, 3) AS g")
        take_now(watched, ["statements"])

    response = client.get("/targets/counted/queries/?format=json&q=seven_times")

    (row,) = json.loads(response.getvalue())
    assert (row["calls"], row["rows"], row["rows_per_call"]) == (7, 21, 3)
    assert (row["database"], row["usename"], row["toplevel"]) == ("shop", "postgres", True)
    assert row["query"] == "SELECT g AS seven_times FROM generate_series($1, $2) AS g"
    assert row["mean_exec_time_ms"] == pytest.approx(row["total_exec_time_ms"] / 7)


def own(statements, ms, **labels):
    """Add a statement of the target's own login."""
    return statements.add(77, grown(3, ms), usename="collector", userid=16500, **labels)


def connected(target, usename, application_name):
    """Have somebody connected now, as the last snapshot would have left it."""
    HISTORY["activity"].latest._default_manager.create(
        target_id=target.pk,
        database_id=0,
        pid=1,
        backend_start=timezone.now(),
        usename=usename,
        application_name=application_name,
        backend_type="client backend",
        since_at=timezone.now(),
        changed_at=timezone.now(),
    )


def test_howdahs_own_statements_are_left_out_and_their_cost_is_said(read, statements, target):
    theirs = statements.add(1, grown(4, 983.0))
    mine = own(statements, 17.0)
    connected(target, "collector", "howdah:fast")

    text = read()

    assert ids(text) == [theirs.pk]
    assert "1 statement ran in this window." in text
    assert "1 statement of Howdah&#x27;s own is left out: watching costs 1.7 %." in text
    assert [row["share_pct"] for row in json.loads(read("?format=json"))] == [100]
    shown = read("?own=1")
    assert ids(shown) == [theirs.pk, mine.pk]
    assert "is among them: watching costs 1.7 %." in shown
    assert [row["share_pct"] for row in json.loads(read("?own=1&format=json"))] == [98.3, 1.7]


def test_howdahs_own_statement_is_never_what_costs_most(read, statements):
    statements.add(1, grown(4, 10.0), query="SELECT theirs")
    own(statements, 990.0, query="SELECT mine")

    text = read()

    assert "SELECT theirs takes 100 % of the execution time that is not Howdah&#x27;s own" in text
    assert "at top level, without Howdah&#x27;s own" in text
    assert "SELECT mine" not in text
    assert "SELECT mine takes 99 % of this target&#x27;s execution time" in read("?own=1")


def test_where_nothing_else_ran_that_is_said_with_the_switch(read, statements):
    mine = own(statements, 5.0)

    text = read()

    assert "Only Howdah ran statements in this window" in text
    assert "own=1" in text
    assert ids(read("?own=1")) == [mine.pk]


def test_a_login_that_others_use_too_hides_nothing(read, statements, target):
    mixed = own(statements, 5.0)
    connected(target, "collector", "psql")

    text = read()

    assert ids(text) == [mixed.pk]
    assert "collector is not used by Howdah alone" in text
    assert "watching costs" not in text


def test_what_one_login_hides_is_said_where_another_one_is_told_apart(read, statements, target):
    statements.add(1, grown(4, 100.0), usename="owner")
    own(statements, 5.0)
    statements.add(78, grown(3, 20.0), usename="operator", userid=16501)
    connected(target, "collector", "psql")

    text = read()

    assert "1 statement of Howdah&#x27;s own is left out" in text
    assert "collector is not used by Howdah alone, so its statements stay" in text


def test_the_page_of_a_statement_says_the_share_of_the_list(read, statements, client, target):
    theirs = statements.add(1, grown(4, 300.0))
    statements.add(2, grown(4, 100.0))
    mine = own(statements, 100.0)
    client = browser_of(person("another", "viewer"))

    def share(row):
        address = f"/targets/{target.name}/queries/{row.pk}/?format=json"
        return json.loads(client.get(address).getvalue())[0]["share_pct"]

    assert (share(theirs), share(mine)) == (75, 20)


def test_what_howdah_reads_is_left_out_on_a_server(watch, embedded):
    watched = watch(embedded, name="watched", operator_user="operator")
    client = browser_of(person("reader", "viewer"))
    with embedded.connect(dbname="shop") as session:
        take_now(watched)
        session.execute("SELECT 1 AS not_ours")
        take_now(watched)

    def users(query):
        address = f"/targets/watched/queries/?format=json{query}"
        return {row["usename"] for row in json.loads(client.get(address).getvalue())}

    assert "postgres" in users("")
    assert "collector" not in users("")
    assert "collector" in users("&own=1")


@pytest.mark.parametrize("with_texts", [True, False])
def test_rows_are_what_their_types_say(target, statements, with_texts):
    statements.add(1, grown(9, 20.0, minute=3), grown(20, 400.0, minute=35), datname=None)
    statements.add(2, grown(1, 70.0, shared_blks_hit=9))
    window = Window.last("1h", timezone.now())

    rows = statement_rows.statements_of(target, window, with_texts=with_texts)

    assert any(row["slower"] for row in rows)
    for row in rows:
        assert_typed(row, StatementRow)
    for line in statement_rows.with_sparks(target, window, statement_rows.with_previews(rows)):
        assert_typed(line, DrawnStatementRow)
