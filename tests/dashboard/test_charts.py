"""Columns for the browser, and small lines and bars as SVG."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree

from hypothesis import given, strategies

from dashboard import charts
from monitors.history.source import Series

VALUES = strategies.lists(strategies.none() | strategies.floats(0, 1e12), max_size=40)


def test_a_stacked_row_is_empty_in_all_columns_or_in_none():
    series = Series([1, 2, 3], {"a": [1, None, None], "b": [None, None, 3]})

    chart = charts.chart("x", series, unit="count", stack=True)

    assert [one["values"] for one in chart["series"]] == [[1, None, 0], [0, None, 3]]


def test_lines_keep_their_gaps():
    chart = charts.chart("x", Series([1, 2, 3], {"a": [1, None, 3]}), unit="count")

    assert chart["series"][0]["values"] == [1, None, 3]
    assert not chart["empty"]


def test_a_chart_without_a_value_says_so():
    assert charts.chart("x", Series([1], {"a": [None]}), unit="count")["empty"]
    assert charts.chart("x", Series(), unit="count")["empty"]


def test_a_joined_line_holds_its_value_between_its_own_points_only():
    early = Series([10, 30], {"n": [1, 2]})
    late = Series([20, 40], {"n": [7, 8]})

    joined = charts.joined([("early", early, "n"), ("late", late, "n")], within=1)

    assert joined.times == [10, 20, 30, 40]
    assert joined.values == {"early": [1, 1, 2, None], "late": [None, 7, 7, 8]}


def test_points_of_one_round_of_reads_stand_at_one_time():
    first = Series([10, 20], {"n": [1, 2]})
    second = Series([10.4, 20.4], {"n": [7, 8]})

    joined = charts.joined([("first", first, "n"), ("second", second, "n")], within=1)

    assert joined == Series([10.4, 20.4], {"first": [1, 2], "second": [7, 8]})


def test_a_gap_of_one_line_stays_a_gap_when_joined():
    torn = Series([10, 20, 30], {"n": [1, None, 3]})
    whole = Series([10, 25, 30], {"n": [5, 5, 5]})

    joined = charts.joined([("torn", torn, "n"), ("whole", whole, "n")], within=1)

    assert joined.values["torn"] == [1, None, None, 3]


def test_an_action_is_a_mark_that_leads_to_it():
    at = datetime(2026, 3, 1, tzinfo=UTC)
    mark = {
        "at": at,
        "kind": "action",
        "text": "vacuum",
        "url_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    }

    found = charts.mark_of(mark)

    assert found["t"] == at.timestamp()
    assert found["url"] == "/actions/0f8fad5b-d9cb-469f-a165-70867728950e/"
    assert charts.mark_of({**mark, "url_id": None})["url"] == ""


def test_a_twin_table_is_short_and_begins_with_the_newest():
    chart = charts.chart("x", Series(list(range(240)), {"a": list(range(240))}), unit="count")

    rows = charts.twin(chart)

    assert len(rows) <= 60
    assert rows[0] == (239, [239])


@given(VALUES)
def test_a_spark_is_well_formed_and_stays_in_its_box(values):
    picture = ElementTree.fromstring(str(charts.spark(values, label="a <b>")))

    for path in picture:
        numbers = (
            path.attrib["d"].replace("M", " ").replace("L", " ").replace("Z", "").replace("h0", "")
        )
        points = [float(number) for number in numbers.split()]
        assert all(0 <= x <= charts.WIDTH for x in points[::2])
        assert all(0 <= y <= charts.HEIGHT for y in points[1::2])


def test_a_gap_breaks_a_spark():
    assert len(charts.points([1, 2, None, 3, 4])) == 2


def test_a_meter_never_leaves_its_box():
    assert 'width="100.0%"' in charts.meter(250, label="x")
    assert 'width="0.0%"' in charts.meter(None, label="x")
    assert 'aria-label="&lt;b&gt;"' in charts.meter(1, label="<b>")
