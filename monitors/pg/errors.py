"""What went wrong with a target, in one sentence for a DBA and without a secret."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

MAX_REASON = 300


class Unreachable(Exception):
    """No usable connection; its text is the reason as a sentence."""


class DatabaseClosed(Unreachable):
    """The server answers, but does not let this login into this one database."""


CLOSED = re.compile(
    r"permission denied for database|database .* does not exist|too many connections for database"
    r"|not currently accepting connections|cannot connect to invalid database|pg_hba\.conf",
    re.IGNORECASE,
)


def unreachable(error: psycopg.Error) -> Unreachable:
    """Return what to raise for an error while connecting."""
    kind = DatabaseClosed if CLOSED.search(primary_text(error)) else Unreachable
    return kind(reason_of(error))


# psycopg has no SQLSTATE for a failure while connecting: the text decides, and
# a server that speaks another language falls through to its own words.
CONNECT_REASONS: tuple[tuple[str, str], ...] = (
    (r"connection refused", "Connection refused: no server listens there."),
    (r"could not translate host name|name or service not known|nodename nor servname"
     r"|no address associated|temporary failure in name resolution",
     "The host name does not resolve."),
    (r"no route to host", "No route to the host."),
    (r"network is unreachable", "The network is unreachable."),
    (r"timeout expired|timed out", "No answer within the time limit: check address and firewall."),
    (r"permission denied for database",
     "The login may not connect to this database: GRANT CONNECT ON DATABASE … TO it."),
    (r"too many connections for role",
     "The login's own CONNECTION LIMIT is used up: ALTER ROLE … CONNECTION LIMIT 5;"),
    (r"too many connections for database",
     "The database's own CONNECTION LIMIT is used up: ALTER DATABASE … CONNECTION LIMIT -1;"),
    (r"too many clients already|remaining connection slots|too many connections",
     "Too many connections: the server has no slot left for this login."),
    (r"password authentication failed|authentication failed",
     "Password authentication failed: check user and password."),
    (r"no password supplied", "The server asks for a password and none is stored."),
    (r"no pg_hba\.conf entry .*SSL encryption",
     "The server's pg_hba.conf has no entry for this host, user and database."),
    (r"no pg_hba\.conf entry",
     "The server's pg_hba.conf has no entry for this host, user and database without TLS:"
     " where it asks for TLS choose a stronger sslmode, else add the entry."),
    (r"pg_hba\.conf rejects",
     "The server's pg_hba.conf rejects this host, user and database."),
    (r"role .* does not exist", "The role does not exist on the server."),
    (r"cannot connect to invalid database",
     "The database is invalid: a DROP DATABASE was interrupted. Drop it once more."),
    (r"database .* does not exist", "The database does not exist on the server."),
    (r"is not permitted to log in", "The role may not log in: ALTER ROLE … LOGIN."),
    (r"the database system is starting up", "The server is starting up."),
    (r"the database system is shutting down", "The server is shutting down."),
    (r"is not currently accepting connections",
     "The database takes no connections: ALTER DATABASE … ALLOW_CONNECTIONS true;"),
    (r"in recovery mode|not accepting connections", "The server does not accept connections yet."),
    (r"server does not support ssl|does not support ssl",
     "The server does not offer TLS: enable it there, or choose a weaker sslmode."),
    (r"certificate verify failed|root certificate",
     "The server's certificate is not trusted: give its root certificate, or check sslmode."),
    (r"server certificate for .* does not match|does not match host name",
     "The server's certificate is for another host name."),
    (r"authentication method requirement|requires .*auth|password-based authentication|"
     r"requested .* authentication|did not complete authentication",
     "The server asks for an authentication method that is not allowed here (require_auth)."),
    (r"received invalid response|invalid response to|expected authentication request|"
     r"unsupported frontend protocol|protocol version|invalid length of startup",
     "What answers there does not speak PostgreSQL's protocol."),
    (r"server closed the connection unexpectedly|connection reset by peer|terminating connection",
     "The server closed the connection."),
)  # fmt: skip


def reason_of(error: Exception) -> str:
    """Return why a target could not be read, at most 300 characters, ending in a full stop."""
    if isinstance(error, Unreachable):
        return str(error)[:MAX_REASON]
    if isinstance(error, errors.QueryCanceled):
        return "The read was cancelled: it took longer than its time limit."
    if isinstance(error, errors.LockNotAvailable):
        return "A lock was not free within the time limit."
    text, detail = primary_text(error), detail_of(error)
    if isinstance(error, psycopg.OperationalError):
        for pattern, reason in CONNECT_REASONS:
            if re.search(pattern, text, re.IGNORECASE):
                return reason
    return sentence(f"{sentence(text)} {sentence(detail)}" if detail else text)


VALUES = re.compile(r"=\(.*\)", re.DOTALL)
"""The values of `Key (email)=(jane@example.com) is duplicated.`, in any language."""


def detail_of(error: Exception) -> str:
    """Return the server's DETAIL, often the reason itself, '' where there is none.

    Values of rows are left out: those of a key are replaced, and a detail about data that names
    no key (`Failing row contains (…)`) is not told.
    """
    diagnosis = getattr(error, "diag", None)
    detail = (diagnosis.message_detail if diagnosis else None) or ""
    if isinstance(error, errors.IntegrityError | errors.DataError):
        return VALUES.sub("=(…)", detail) if VALUES.search(detail) else ""
    return detail


def own_fault(error: BaseException | None) -> str:
    """Return a sentence for what nobody foresaw; a repr has no character that can't be kept."""
    return f"Howdah itself failed ({error!r:.300}), and the log of its worker says where."


def primary_text(error: Exception) -> str:
    """Return an error's own words on one line, without the address libpq puts in front."""
    diagnosis = getattr(error, "diag", None)
    text = (diagnosis.message_primary if diagnosis else None) or str(error)
    text = re.sub(r"^connection failed: ", "", text.strip())
    text = re.sub(r"^connection to server (at|on) .*?(failed|:)\s*:?\s*", "", text)
    text = re.sub(r"password=\S+", "password=…", text)
    return " ".join(text.split())


def sentence(text: str) -> str:
    """Return text capped, with a capital first letter and a full stop."""
    text = " ".join(text.split())[: MAX_REASON - 2]
    if not text:
        return "The server gave no reason."
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "…")) else ".")
