"""What went wrong with a target, in one sentence for a DBA and without a secret."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

from monitors import words

MAX_REASON = 300


class Unreachable(Exception):
    """No usable connection; its text is the reason as a sentence."""


class DatabaseClosed(Unreachable):
    """The server answers, but does not let this login into this one database."""


class Full(DatabaseClosed):
    """Login or database have as many connections as they may have; one may be free in a moment."""


NO_ANSWER = "No answer within the time limit: check address and firewall."

REFUSED = re.compile(
    r"failed:\s+[^:\n]+:\s+(?P<sqlstate>[0-9A-Z]{5}):\s+(?P<text>[^\n]*)"
    r"(?:.*\n[^:\n]+:\s+(?P<routine>\w+), [\w.-]+:\d+)?\s*$",
    re.DOTALL,
)
"""What a server said at login, as libpq words it at its most verbose, in any language."""

HBA = "The server's pg_hba.conf has no entry for this host, user and database, or rejects them."
HBA_PLAIN = (
    "The server's pg_hba.conf has no entry for this host, user and database without TLS, or rejects"
    " them: where it asks for TLS choose a stronger sslmode, else add the entry."
)
DATABASE_LIMIT = (
    "The database's own CONNECTION LIMIT lets no further session in:"
    " ALTER DATABASE {database} CONNECTION LIMIT -1;"
)
"""Of a limit of 0 and of one that is used up: the server does not tell them apart."""
LOGIN_LIMIT = (
    "The login's own CONNECTION LIMIT lets no further session in:"
    " ALTER ROLE {login} CONNECTION LIMIT 5;"
)
SERVER_FULL = "Too many connections: the server has no slot left for this login."
REFUSALS: tuple[tuple[str, str, type[Unreachable], str], ...] = (
    ("42501", "CheckMyDatabase", DatabaseClosed,
     "The login may not connect to this database: GRANT CONNECT ON DATABASE {database} TO {login};"),
    ("3D000", "", DatabaseClosed, "The database does not exist on the server."),
    ("55000", "InitPostgres", DatabaseClosed,
     "The database is invalid: its DROP was interrupted. Once more: DROP DATABASE {database};"),
    ("55000", "", DatabaseClosed,
     "The database takes no connections: ALTER DATABASE {database} ALLOW_CONNECTIONS true;"),
    ("53300", "CheckMyDatabase", Full, DATABASE_LIMIT),
    ("53300", "InitializeSessionUserId", Full, LOGIN_LIMIT),
    ("53300", "", Unreachable, SERVER_FULL),
    ("28000", "ClientAuthentication", DatabaseClosed, HBA),
    ("28000", "InitializeSessionUserId", Unreachable,
     "The role may not log in, or does not exist: ALTER ROLE {login} LOGIN; or CREATE ROLE {login} LOGIN;"),
    ("28P01", "", Unreachable, "Password authentication failed: check user and password."),
    ("57P03", "", Unreachable,
     "The server does not accept connections yet: it is starting up, shutting down or recovering."),
    ("57P01", "", Unreachable, "The server closed the connection."),
    ("57P02", "", Unreachable, "The server closed the connection."),
)  # fmt: skip
"""SQLSTATE, the function of the server's source ('' for any) -> what to raise: words decide nothing.

{database} and {login} are those of the attempt.
"""

POOLER_REFUSES = (
    "PgBouncer answers there and refuses Howdah's settings (options). Connect to the server itself,"
    " or let pgbouncer.ini say ignore_startup_parameters = options, and pool_mode = session for"
    " this database."
)


NO_TURN = "The pooler there had no connection free within its query_wait_timeout."
WAITED = "query_wait_timeout"
"""What PgBouncer says, and nothing else, to whom it kept waiting."""


def refusal(message: str, *, encrypted: bool, database: str, login: str) -> Unreachable:
    """Return what to raise for a connection that failed, from libpq's most verbose message.

    `database` and `login` are names as statements have them.
    """
    found = REFUSED.search(message)
    if found is None:
        return Unreachable(libpq_reason(primary_text(psycopg.Error(message))))
    sqlstate, routine = found["sqlstate"], found["routine"] or ""
    # PgBouncer has one SQLSTATE for all it says, and one language.
    if sqlstate == "08P01" and "unsupported startup parameter" in found["text"]:
        return Unreachable(POOLER_REFUSES)
    if sqlstate == "08P01" and found["text"].strip() == WAITED:
        return Unreachable(NO_TURN)
    for state, function, kind, reason in REFUSALS:
        if sqlstate == state and function in {"", routine}:
            said = HBA_PLAIN if reason == HBA and not encrypted else reason
            return kind(said.format(database=database, login=login))
    return Unreachable(sentence(found["text"]))


# What libpq says itself, not the server: psycopg brings its own, which speaks English alone.
LIBPQ_REASONS: tuple[tuple[str, str], ...] = (
    (r"connection refused", "Connection refused: no server listens there."),
    (r"could not translate host name|name or service not known|nodename nor servname"
     r"|no address associated|temporary failure in name resolution",
     "The host name does not resolve."),
    (r"no route to host", "No route to the host."),
    (r"network is unreachable", "The network is unreachable."),
    (r"timeout expired|timed out", NO_ANSWER),
    (r"no password supplied", "The server asks for a password and none is stored."),
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
    (r"server closed the connection unexpectedly|connection reset by peer",
     "The server closed the connection."),
)  # fmt: skip


def libpq_reason(text: str) -> str:
    """Return a sentence for a failure of libpq's own; what has none stays in its words."""
    for pattern, reason in LIBPQ_REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return reason
    return sentence(text)


FAMILIAR: tuple[tuple[type[Exception], str], ...] = (
    (errors.QueryCanceled, "The read was cancelled: it took longer than its time limit."),
    (errors.LockNotAvailable, "A lock was not free within the time limit."),
    (errors.AdminShutdown, "The server closed the connection."),
    (errors.CrashShutdown, "The server closed the connection."),
)


def reason_of(error: Exception) -> str:
    """Return why a target could not be read, at most 300 characters, ending in a full stop."""
    if isinstance(error, Unreachable):
        return str(error)[:MAX_REASON]
    for kind, reason in FAMILIAR:
        if isinstance(error, kind):
            return reason
    text, detail = primary_text(error), detail_of(error)
    if isinstance(error, errors.ProtocolViolation) and text == WAITED:
        return NO_TURN
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return libpq_reason(text)
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
    """Return text capped, as a sentence."""
    text = " ".join(text.split())[: MAX_REASON - 2]
    return words.sentence(text) or "The server gave no reason."
