"""What clients are told when a connection can't be had: each text as real servers and pools say it.

Run on 14.23, 15.18, 16.14, 17.10, 18.4, PgBouncer 1.18 and 1.26.1, SQLAlchemy 2.1.9; a test asks the servers
again. The texts are those of a server that speaks English (`lc_messages`).

Source: https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-MAX-CONNECTIONS
"""

from __future__ import annotations

TOO_MANY = "FATAL:  sorry, too many clients already"
"""All slots are taken, the reserved ones too; in a rush of new sessions also before that."""
FOR_SUPERUSERS_14 = (
    "FATAL:  remaining connection slots are reserved for non-replication superuser connections"
)
FOR_SUPERUSERS_16 = (
    "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute"
)
FOR_PRIVILEGED_16 = (
    "FATAL:  remaining connection slots are reserved for roles with privileges of the"
    ' "pg_use_reserved_connections" role'
)
RESERVED_MAJOR = 16
"""From this version on there is `reserved_connections`, and another wording."""
NO_MORE_CLIENTS = "FATAL:  no more connections allowed (max_client_conn)"
"""PgBouncer at `max_client_conn`."""
QUERY_WAIT = "query_wait_timeout"
"""PgBouncer, of a client that has waited that long for a server connection."""


def slots_taken(major: int | None, reserved: int, for_privileged: int = 0) -> tuple[str, ...]:
    """Return what ordinary roles are told when no slot is left for them, the usual text first.

    `reserved` are all slots that are kept for others, `for_privileged` those of
    `reserved_connections` among them; major None: not known, so the wordings of all versions.
    """
    if not reserved:
        return (TOO_MANY,)
    newer = FOR_PRIVILEGED_16 if for_privileged else FOR_SUPERUSERS_16
    if major is None:
        return (newer, FOR_SUPERUSERS_14, TOO_MANY)
    return (newer if major >= RESERVED_MAJOR else FOR_SUPERUSERS_14, TOO_MANY)


def role_full(role: str) -> str:
    """Return what a role is told at its CONNECTION LIMIT."""
    return f'FATAL:  too many connections for role "{role}"'


def database_full(datname: str) -> str:
    """Return what a role is told at a database's CONNECTION LIMIT."""
    return f'FATAL:  too many connections for database "{datname}"'


def pool_exhausted(pool_size: int, max_overflow: int, timeout: float = 30) -> str:
    """Return what SQLAlchemy raises where nobody gives a connection back in time (`pool_timeout`)."""
    return (
        f"QueuePool limit of size {pool_size} overflow {max_overflow} reached,"
        f" connection timed out, timeout {timeout:.2f}"
    )
