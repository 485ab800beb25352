"""A page's table for programs."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from dashboard.frame.export import csv_response, json_response, plain

MOMENT = datetime(2026, 3, 1, 13, 0, 0, 1, tzinfo=timezone(timedelta(hours=1)))


def body(response):
    return b"".join(response.streaming_content).decode()


def test_json_is_a_list_of_objects_with_just_the_columns():
    rows: list[dict[str, object]] = [
        {"relname": "a", "n_dead_tup": 3, "level": "critical"},
        {"relname": "b"},
    ]

    found = json.loads(body(json_response("tables", ["relname", "n_dead_tup"], rows)))

    assert found == [{"relname": "a", "n_dead_tup": 3}, {"relname": "b", "n_dead_tup": None}]


def test_json_of_no_rows_is_an_empty_list():
    assert json.loads(body(json_response("tables", ["relname"], []))) == []


@pytest.mark.parametrize(
    ("key", "value", "written"),
    [
        ("read_at", MOMENT, "2026-03-01T12:00:00.000001Z"),
        ("read_at", datetime(2026, 3, 1, tzinfo=UTC), "2026-03-01T00:00:00.000000Z"),
        ("query_id", -(2**62), str(-(2**62))),
        ("queryid", 2**62, str(2**62)),
        ("n_dead_tup", 2**40, 2**40),
        ("blocked_by", [1, 2], [1, 2]),
        ("xact_seconds", timedelta(seconds=1.5), 1.5),
        ("cost", Decimal("1.5"), 1.5),
        ("autovacuum_enabled", False, False),
        ("last_vacuum", None, None),
    ],
)
def test_values_keep_their_whole_precision(key, value, written):
    assert plain(key, value) == written


def test_csv_has_a_head_and_reads_back():
    rows = [{"relname": 'a "b", c', "on": True, "pids": [1, 2], "at": MOMENT, "none": None}]

    text = body(csv_response("tables", ["relname", "on", "pids", "at", "none"], rows))

    head, line = csv.reader(io.StringIO(text))
    assert head == ["relname", "on", "pids", "at", "none"]
    assert line == ['a "b", c', "true", "[1, 2]", "2026-03-01T12:00:00.000001Z", ""]


ODD = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx"]
ODD += [f"{sign}1" for sign in "\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"]
ODD += [f"{unseen}=1" for unseen in (" ", "\u3000", "\ufeff", "\u200b", "\u202e", "\0", "\n\t")]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_name_from_a_target_is_never_a_formula(name):
    text = body(csv_response("tables", ["relname"], [{"relname": name}]))

    assert next(iter(list(csv.reader(io.StringIO(text, newline="")))[1:]))[0] == f"'{name}"


def test_a_negative_number_stays_a_number():
    assert "\r\n-5\r\n" in body(csv_response("tables", ["n"], [{"n": -5}]))


def test_an_export_is_a_file_to_keep():
    response = csv_response("vacuum", ["n"], [])

    assert response["Content-Disposition"] == 'attachment; filename="vacuum.csv"'
