"""A login of Howdah's whose password is no longer taken soon.

Source: https://www.postgresql.org/docs/current/sql-createrole.html
"""

from __future__ import annotations

from collections.abc import Iterator

from monitors import words
from monitors.advisor import DAY, Advisor, Finding, Hurt, Row, Samples, Severity, Thresholds

DEFAULTS = {
    "warning_days": 7,  # before its password expires
    "critical_days": 1,
}
LOST = {
    "collector": "nothing of this server is read any more",
    "operator": "no action can be sent any more",
}


def advise(samples: Samples, thresholds: Thresholds) -> Iterator[Finding]:
    """Judge the roles that Howdah logs in with; of others nothing is said."""
    for row in samples.of("logins"):
        if row["rolvaliduntil"] is None:  # read for its limit of connections
            continue
        uses = [use for use, role in samples.roles.items() if role == row["rolname"]]
        seconds = (row["rolvaliduntil"] - samples.now).total_seconds()
        if not uses or seconds > thresholds["warning_days"] * DAY:
            continue
        near = seconds <= thresholds["critical_days"] * DAY
        severity = Severity.CRITICAL if near else Severity.WARNING
        yield finding_of(row, uses, seconds, severity, thresholds)


def finding_of(
    row: Row, uses: list[str], seconds: float, severity: Severity, thresholds: Thresholds
) -> Finding:
    """Say which password expires when, what that ends, and how it is renewed."""
    role, until = row["rolname"], row["rolvaliduntil"]
    when = f"expires in {words.duration(seconds)}" if seconds > 0 else "has expired"
    lost = " and ".join(LOST[use] for use in uses)
    return Finding(
        advisor="password_expires",
        severity=severity,
        title=f"The password of the {' and '.join(uses)} login {role} {when}.",
        why=(
            "It is not taken at the next connection after that. Set a new one there and here,"
            f" or another moment: ALTER ROLE {words.quoted(role)} VALID UNTIL '…'."
        ),
        object_name=role,
        hurt=Hurt(lost, at=until, already=seconds <= 0),
        evidence=(("Valid until", until, "at"),),
        score=thresholds["warning_days"] * DAY / max(seconds, 1.0),
    )


ADVISOR = Advisor(
    name="password_expires",
    subject="settings",
    plural="{count} passwords expire.",
    defaults=DEFAULTS,
    advise=advise,
    reads=("logins",),
)
