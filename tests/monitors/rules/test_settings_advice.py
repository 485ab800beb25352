"""Advice on settings: both sides of every threshold, and nothing without its number."""

from __future__ import annotations

from typing import Any

import pytest

from monitors.rules.settings_advice import GB, MB, Advice, Facts, advise, allowed_mib, rows_by_name

DEFAULTS: dict[str, tuple[str, str | None]] = {
    "autovacuum": ("on", None),
    "autovacuum_max_workers": ("3", None),
    "autovacuum_naptime": ("60", "s"),
    "autovacuum_vacuum_cost_delay": ("2", "ms"),
    "autovacuum_vacuum_cost_limit": ("-1", None),
    "autovacuum_work_mem": ("-1", "kB"),
    "checkpoint_completion_target": ("0.9", None),
    "checkpoint_timeout": ("300", "s"),
    "enable_partitionwise_join": ("off", None),
    "enable_seqscan": ("on", None),
    "fsync": ("on", None),
    "full_page_writes": ("on", None),
    "idle_in_transaction_session_timeout": ("600000", "ms"),
    "log_autovacuum_min_duration": ("600000", "ms"),
    "log_min_duration_statement": ("1000", "ms"),
    "maintenance_work_mem": ("65536", "kB"),
    "max_connections": ("100", None),
    "max_wal_size": ("1024", "MB"),
    "random_page_cost": ("4", None),
    "shared_buffers": ("16384", "8kB"),
    "statement_timeout": ("0", "ms"),
    "track_counts": ("on", None),
    "track_io_timing": ("on", None),
    "vacuum_cost_delay": ("0", "ms"),
    "vacuum_cost_limit": ("200", None),
    "work_mem": ("4096", "kB"),
}
RESTART = {"max_connections", "shared_buffers", "autovacuum_max_workers"}


def said(facts: Facts | None = None, /, **values: str) -> list[Advice]:
    """Return the advice on a well kept server with some settings changed, information left out."""
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "setting": values.get(name, default),
            "unit": unit,
            "boot_val": default,
            "source": "configuration file",
            "context": "postmaster" if name in RESTART else "sighup",
        }
        for name, (default, unit) in DEFAULTS.items()
    ]
    found = advise(rows_by_name(rows), facts or Facts(server_version=160004))
    return [one for one in found if one.level != "info"]


def levels(facts: Facts | None = None, /, **values: str) -> dict[str, str]:
    return {one.name: one.level for one in said(facts, **values)}


def test_a_well_kept_server_has_none_and_statement_timeout_0_is_fine() -> None:
    assert said() == []


def test_nothing_is_said_before_anything_was_read() -> None:
    assert advise({}, Facts()) == []


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "autovacuum", "track_counts"])
def test_what_endangers_data_is_critical(name: str) -> None:
    [one] = said(**{name: "off"})

    assert (one.name, one.level) == (name, "critical")
    assert one.statement == f"ALTER SYSTEM SET {name} = on;\nSELECT pg_reload_conf();"


def test_the_rate_of_the_defaults() -> None:
    assert allowed_mib(200, 2) == pytest.approx(35.51, abs=0.01)
    assert allowed_mib(200, 20) == pytest.approx(3.55, abs=0.01)


@pytest.mark.parametrize(
    ("limit", "delay", "expected"),
    [
        ("-1", "2", {}),
        ("198", "2", {}),  # 35.16 MiB/s
        ("197", "2", {"autovacuum_vacuum_cost_limit": "warning"}),  # 34.98
        ("200", "20", {"autovacuum_vacuum_cost_delay": "warning"}),
        ("200", "0", {}),  # no limit at all
        ("200", "-1", {}),  # inherits 0
    ],
)
def test_a_slow_autovacuum_is_told_with_its_rate(
    limit: str, delay: str, expected: dict[str, str]
) -> None:
    found = said(autovacuum_vacuum_cost_limit=limit, autovacuum_vacuum_cost_delay=delay)

    assert {one.name: one.level for one in found} == expected
    assert all("MiB/s" in one.title for one in found)


@pytest.mark.parametrize(
    ("due", "expected"),
    [
        (3, []),
        (4, ["autovacuum_vacuum_cost_limit"]),
        (9, ["autovacuum_vacuum_cost_limit"]),
        (10, ["autovacuum_vacuum_cost_limit", "autovacuum_max_workers"]),
        (None, []),
    ],
)
def test_tables_that_wait_are_held_against_the_workers(due: int, expected: list[str]) -> None:
    assert [one.name for one in said(Facts(tables_due=due))] == expected


@pytest.mark.parametrize(("seconds", "expected"), [("300", []), ("301", ["autovacuum_naptime"])])
def test_a_long_naptime(seconds: str, expected: list[str]) -> None:
    assert list(levels(autovacuum_naptime=seconds)) == expected


FITS = 64 * MB // 6


@pytest.mark.parametrize(
    ("dead", "version", "values", "expected"),
    [
        (FITS, 160000, {}, []),
        (FITS + 1, 160000, {}, ["maintenance_work_mem"]),
        (FITS + 1, 170000, {}, []),  # 17 keeps dead rows in less
        (FITS + 1, None, {}, []),
        (FITS + 1, 160000, {"autovacuum_work_mem": "131072"}, []),
        (FITS + 1, 160000, {"autovacuum_work_mem": "1024"}, ["autovacuum_work_mem"]),
        (GB, 160000, {"maintenance_work_mem": str(2 * GB // 1024)}, []),  # more is not used
    ],
)
def test_a_vacuum_of_several_passes(
    dead: int, version: int | None, values: dict[str, str], expected: list[str]
) -> None:
    found = said(Facts(server_version=version, most_dead=dead), **values)

    assert [one.name for one in found] == expected
    assert all("depends on RAM" in one.note for one in found)


@pytest.mark.parametrize(
    ("buffers", "data", "expected"),
    [
        ("16384", GB + 1, ["shared_buffers"]),
        ("16384", GB, []),
        ("16385", 100 * GB, []),
        ("16384", None, []),
    ],
)
def test_small_buffers_for_much_data(buffers: str, data: int | None, expected: list[str]) -> None:
    found = said(Facts(tables_bytes=data), shared_buffers=buffers)

    assert [one.name for one in found] == expected
    for one in found:
        assert "depends on RAM" in one.note
        assert "Holds after a restart" in one.note
        assert "pg_reload_conf" not in one.statement


@pytest.mark.parametrize(
    ("work_mem", "temp", "expected"),
    [
        ("5242", None, []),  # 100 times is just under 4 times 128 MB
        ("5243", None, ["work_mem"]),
        ("4096", GB, []),
        ("4096", GB + 1, ["work_mem"]),
        ("4097", GB + 1, []),
    ],
)
def test_work_mem_too_large_or_too_small(
    work_mem: str, temp: float | None, expected: list[str]
) -> None:
    found = said(Facts(temp_bytes=temp), work_mem=work_mem)

    assert [one.name for one in found] == expected


# 1 GB / 1.9 of WAL in 300 s is 1.80 MiB/s.
@pytest.mark.parametrize(
    ("rate", "expected"), [(None, []), (1.79 * MB, []), (1.80 * MB, ["max_wal_size"])]
)
def test_wal_that_forces_checkpoints(rate: float | None, expected: list[str]) -> None:
    found = said(Facts(wal_bytes_per_second=rate))

    assert [one.name for one in found] == expected


def test_the_size_that_is_proposed_lets_checkpoints_come_in_time() -> None:
    [one] = said(Facts(wal_bytes_per_second=20 * MB))

    assert "20 MB/s of WAL force a checkpoint every 26 s, not every 5 min" in one.title
    assert "max_wal_size = '12GB'" in one.statement


@pytest.mark.parametrize(
    ("name", "value", "fine"),
    [
        ("enable_seqscan", "off", "on"),
        ("idle_in_transaction_session_timeout", "0", "1"),
        ("log_min_duration_statement", "-1", "1"),
        ("log_min_duration_statement", "0", "1"),
        ("log_autovacuum_min_duration", "-1", "0"),
        ("track_io_timing", "off", "on"),
    ],
)
def test_notices(name: str, value: str, fine: str) -> None:
    assert levels(**{name: value}) == {name: "notice"}
    assert levels(**{name: fine}) == {}


def test_the_command_line_wins_so_no_statement_is_offered() -> None:
    row = {
        "name": "fsync",
        "setting": "off",
        "unit": None,
        "boot_val": "on",
        "source": "command line",
        "context": "sighup",
    }
    [one] = advise({"fsync": row}, Facts())

    assert one.statement == ""
    assert "command line" in one.note


def test_the_worst_comes_first() -> None:
    found = said(fsync="off", autovacuum_naptime="900", track_io_timing="off")

    assert [one.level for one in found] == ["critical", "warning", "notice"]
