"""Values in people's units, and what counts as changed."""

from __future__ import annotations

from typing import Any

import pytest

from monitors.rules import setting


@pytest.mark.parametrize(
    ("text", "unit", "words"),
    [
        ("16384", "8kB", "128 MB"),
        ("16385", "8kB", "131,080 kB"),
        ("4096", "kB", "4 MB"),
        ("16777216", "B", "16 MB"),
        ("1", "16MB", "16 MB"),
        ("2048", "32kB", "64 MB"),  # a server with greater blocks
        ("300", "s", "5 min"),
        ("90", "s", "90 s"),
        ("200", "ms", "200 ms"),
        ("1440", "min", "1 d"),
        ("2", "ms", "2 ms"),
        ("0.5", "ms", "500 us"),
        ("-1", "ms", "-1"),
        ("0", "kB", "0"),
        ("200000000", None, "200,000,000"),
        ("55432", None, "55432"),  # a port
        ("0600", None, "0600"),  # a mode
        ("on", None, "on"),
        ("", None, "(empty)"),
        (None, "kB", "\N{EN DASH}"),
    ],
)
def test_a_value_is_written_as_people_read_it(text: str, unit: str, words: str) -> None:
    assert setting.words_of(text, unit) == words


def row(value: str | None = "1", **fields: Any) -> dict[str, Any]:
    base = {"setting": value, "boot_val": "1", "unit": None, "source": "configuration file"}
    return {**base, "context": "user", "pending_restart": False, **fields}


@pytest.mark.parametrize(
    ("one", "changed"),
    [
        (row("2"), True),
        (row("1"), False),  # initdb wrote the default
        (row("2", source="default"), False),
        (row("2", source="override"), False),
        (row("2", context="internal"), False),
        (row(None, source=None), False),
        (row("", boot_val=None), False),
        (row("x", boot_val=None), True),
    ],
)
def test_changed_is_what_somebody_gave_another_value(one: dict[str, Any], *, changed: bool) -> None:
    assert setting.is_changed(one) is changed


PENDING = row(pending_restart=True)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (row("1"), row("2"), "value"),
        (row("1"), row("1", unit="kB"), "value"),
        (row("1"), row("1"), ""),
        (row("1"), row(None), ""),
        (row(None), row("2"), ""),
        (row("1"), PENDING, "pending"),
        (PENDING, row("1"), "done"),
        (PENDING, row("2"), "value"),
        (row("1", source="command line"), {**PENDING, "source": "command line"}, ""),
        (row("1", source="default"), row("1"), "source"),
        (None, row("1"), "appeared"),
        (row("1"), None, "gone"),
        (None, row(None), ""),
        (None, None, ""),
    ],
)
def test_what_changed(
    before: dict[str, Any] | None, after: dict[str, Any] | None, kind: str
) -> None:
    assert setting.what_changed(before, after) == kind


@pytest.mark.parametrize(
    ("group", "inside", "outside"),
    [
        ("autovacuum", ["autovacuum_naptime", "vacuum_cost_limit", "track_counts"], ["work_mem"]),
        ("memory", ["work_mem", "shared_buffers", "huge_pages", "wal_buffers"], ["port"]),
        ("wal", ["max_wal_size", "checkpoint_timeout", "fsync", "archive_mode"], ["work_mem"]),
        ("logging", ["log_min_duration_statement", "logging_collector"], ["wal_log_hints"]),
        ("connections", ["max_connections", "statement_timeout", "ssl", "port"], ["work_mem"]),
    ],
)
def test_groups_go_by_names(group: str, inside: list[str], outside: list[str]) -> None:
    assert [name for name in inside + outside if setting.GROUPS[group](name)] == inside


RUN = "Run ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();"


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ("", RUN),
        ("autovacuum=command line", RUN),
        (
            "autovacuum=database,fsync=command line",
            "fsync is set on the server's command line: change it there and restart.",
        ),
        ("fsync=global", f"{RUN} ALTER DATABASE or ALTER ROLE ALL sets it too, and wins."),
    ],
)
def test_how_a_setting_is_changed_depends_on_where_it_comes_from(sources: str, words: str) -> None:
    assert setting.remedy_words("fsync", "on", {setting.SOURCES: sources}) == words
    needs = setting.change_needs("fsync", {setting.SOURCES: sources}, "reload")
    assert needs == ("command line, restart" if "fsync=command line" in sources else "reload")
