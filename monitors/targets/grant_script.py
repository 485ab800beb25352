"""The smallest rights that Howdah works with, as a script for psql, by version."""

from __future__ import annotations

from collections.abc import Sequence

from monitors import words

COLLECTOR_CONNECTIONS = 5
OPERATOR_CONNECTIONS = 10
MAINTAIN_MAJOR = 17
RESERVED_MAJOR = 16


def grant_script(
    major: int, *, collector: str, operator: str = "", databases: Sequence[str] = ()
) -> str:
    """Return the statements that a superuser runs once on a server of a major version.

    Passwords are not in it: psql asks for them, and sends them hashed. An
    operator that is the collector too gets both rights.
    """
    lines = [
        "-- The collector reads statistics, nothing else.",
        f"CREATE ROLE {words.quoted(collector)} LOGIN CONNECTION LIMIT {COLLECTOR_CONNECTIONS};",
        f"\\password {words.quoted(collector)}",
        f"GRANT pg_monitor TO {words.quoted(collector)};",
    ]
    if major >= RESERVED_MAJOR:
        lines.append(f"GRANT pg_use_reserved_connections TO {words.quoted(collector)};")
    if operator:
        lines += operator_lines(major, collector, operator)
    for name in databases:
        logins = ", ".join(
            dict.fromkeys(words.quoted(login) for login in (collector, operator) if login)
        )
        lines.append(f"GRANT CONNECT ON DATABASE {words.quoted(name)} TO {logins};")
    return "\n".join(lines) + "\n"


def operator_lines(major: int, collector: str, operator: str) -> list[str]:
    """Return the statements for the login that acts."""
    name = words.quoted(operator)
    lines = ["-- The operator cancels, terminates, vacuums and analyzes; it reads no table."]
    if operator != collector:
        lines += [
            f"CREATE ROLE {name} LOGIN CONNECTION LIMIT {OPERATOR_CONNECTIONS};",
            f"\\password {name}",
            f"GRANT pg_read_all_stats TO {name};",
        ]
    lines.append(f"GRANT pg_signal_backend TO {name};")
    if major >= MAINTAIN_MAJOR:
        lines += [
            f"GRANT pg_maintain TO {name};",
            "-- Only a table's owner may set its autovacuum options:",
            f"-- GRANT <owner of the tables> TO {name};",
        ]
    else:
        lines += [
            f"-- PostgreSQL {major} has no pg_maintain: only a table's owner may vacuum or alter it.",
            f"-- GRANT <owner of the tables> TO {name};",
        ]
    lines += [
        "-- To measure bloat exactly, where pgstattuple is installed:",
        f"-- GRANT pg_stat_scan_tables TO {name};",
        "-- To reset pg_stat_statements from here, in the database that has it:",
        f"-- GRANT EXECUTE ON FUNCTION pg_stat_statements_reset TO {name};",
    ]
    return lines
