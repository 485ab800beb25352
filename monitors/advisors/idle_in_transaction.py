"""Transactions that stay open while their client does nothing.

Source: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-IN-TRANSACTION-SESSION-TIMEOUT
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from monitors import words
from monitors.advisor import (
    IDLE_IN_TRANSACTION,
    Advisor,
    Evidence,
    Finding,
    Hurt,
    Row,
    Samples,
    Severity,
    Thresholds,
    backend_name,
    is_client,
    remedy_of,
    seconds_since,
    severity_by,
    times_of,
)
from monitors.rules import stuck

DEFAULTS = {
    "notice_seconds": 60,  # since it became idle
    "warning_seconds": 300,
    "critical_seconds": 1800,
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge by the time since the last statement ended; one level worse where others wait for it."""
    directly = Counter(
        pid for row in samples.of("activity") for pid in set(row["blocked_by"] or ())
    )
    for row in samples.of("activity"):
        if row["state"] not in IDLE_IN_TRANSACTION or not is_client(row):
            continue
        seconds = seconds_since(row["state_change"], samples.now)
        severity = severity_by(row, stuck.IDLE, seconds, thresholds)
        if severity is not None:
            yield finding_of(row, seconds, severity, directly[row["pid"]], thresholds)


def finding_of(
    row: Row, seconds: float, severity: Severity, waiting: int, thresholds: Thresholds
) -> Finding:
    """Say who forgot a transaction, for how long, and what it holds back."""
    action, arguments = remedy_of(row)
    why = "Its locks stay, and VACUUM can't remove rows that died since the transaction began."
    if row["backend_xid"] is None and row["backend_xmin"] is None:
        why = "Its locks stay until the transaction ends; it has written nothing so far."
    if waiting:
        why = f"{words.count(waiting, 'backend')} wait{'s' if waiting == 1 else ''} for its locks. {why}"
    return Finding(
        advisor="idle_in_transaction",
        severity=Severity(min(severity + bool(waiting), Severity.CRITICAL)),
        title=f"{backend_name(row)} has been idle in transaction for {words.duration(seconds)}.",
        why=why,
        object_name=str(row["pid"]),
        hurt=hurt_of(row, seconds, waiting, thresholds["critical_seconds"]),
        pid=row["pid"],
        backend_start=row["backend_start"],
        evidence=evidence_of(row, seconds, waiting),
        action=action,
        arguments=arguments,
        score=times_of(seconds, thresholds["warning_seconds"]) + waiting,
    )


def hurt_of(row: Row, seconds: float, waiting: int, most: float) -> Hurt:
    """Return that others wait for it, or when it has kept dead rows for `most` seconds."""
    if waiting:
        return Hurt("others wait for its locks", already=True)
    if row["backend_xid"] is None and row["backend_xmin"] is None:
        return Hurt("once somebody wants what it has locked; no date: nobody knows when")
    return Hurt(
        f"idle for {words.duration(most)}, and no vacuum removed what died meanwhile",
        at=row["state_change"] + timedelta(seconds=most),
        already=seconds > most,
    )


def evidence_of(row: Row, seconds: float, waiting: int) -> tuple[Evidence, ...]:
    """Return the numbers and names behind the finding."""
    known: list[Evidence] = [("Idle for", seconds, "seconds")]
    if row["xact_start"] is not None:
        known.append(("Transaction since", row["xact_start"], "at"))
    if waiting:
        known.append(("Waiting for it", waiting, "count"))
    names = (("Database", "datname"), ("User", "usename"))
    known += [(label, row[column], "") for label, column in names if row[column]]
    return (*known, ("Last statement", row["query"] or "", ""))


ADVISOR = Advisor(
    name="idle_in_transaction",
    subject="activity",
    plural="{count} backends are idle in transaction.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("activity",),
)
