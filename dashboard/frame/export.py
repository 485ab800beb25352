"""A page's table for programs: JSON and CSV, as keys and values that PostgreSQL would write."""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.http import StreamingHttpResponse

from monitors.plain import harmless

Row = Mapping[str, object]
"""Of any subject, by column."""

ID_KEYS = frozenset(
    {"queryid", "query_id", "backend_xid", "backend_xmin", "xmin", "system_identifier"}
)
"""64-bit identifiers: strings, because JavaScript rounds numbers beyond 2^53."""


class Echo:
    """A file that gives back what is written to it, for csv.writer."""

    def write(self, text: str) -> str:
        """Return text."""
        return text


def iso(moment: datetime) -> str:
    """Return a time in ISO 8601 with microseconds, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


WRITERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (datetime, iso),
    (timedelta, timedelta.total_seconds),
    (Decimal, float),
    ((uuid.UUID, date), str),
)
"""How a type that JSON lacks is written; datetime stands before date, whose kind it is."""


def plain(key: str, value: Any) -> Any:
    """Return what JSON can hold: times in ISO 8601 with microseconds, ids as strings."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(key, item) for item in value]
    if key in ID_KEYS:
        return str(value)
    for kinds, write in WRITERS:
        if isinstance(value, kinds):
            return write(value)
    return value


def cell(key: str, value: Any) -> str | int | float:
    """Return what a CSV cell holds: nothing for None, lists as JSON, no formula."""
    value = plain(key, value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return harmless(value) if isinstance(value, str) else value


def json_lines(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """Yield a JSON list of objects, one a line."""
    head = "[\n"
    for row in rows:
        line = {key: plain(key, row.get(key)) for key in columns}
        yield head + json.dumps(line, ensure_ascii=False, default=str)
        head = ",\n"
    yield "[]\n" if head == "[\n" else "\n]\n"


def csv_lines(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """Yield RFC 4180 lines, a head first."""
    writer = csv.writer(Echo())
    yield writer.writerow(columns)
    for row in rows:
        yield writer.writerow([cell(key, row.get(key)) for key in columns])


def attachment(
    lines: Iterator[str], name: str, suffix: str, content_type: str
) -> StreamingHttpResponse:
    """Return lines as a file to keep; `name` is one of ours, never a target's."""
    response = StreamingHttpResponse(lines, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="{name}.{suffix}"'
    return response


def json_response(name: str, columns: Sequence[str], rows: Iterable[Row]) -> StreamingHttpResponse:
    """Answer with a list of objects."""
    lines = json_lines(columns, rows)
    return attachment(lines, name, "json", "application/json; charset=utf-8")


def csv_response(name: str, columns: Sequence[str], rows: Iterable[Row]) -> StreamingHttpResponse:
    """Answer with a head line and a line a row."""
    return attachment(csv_lines(columns, rows), name, "csv", "text/csv; charset=utf-8")
