"""What a server that is read well does not tell: it has to be known before a page says that all is well.

Sources: https://www.postgresql.org/docs/current/runtime-config-statistics.html (track_activities,
track_counts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db.models import Count

from monitors import words
from monitors.advisor import DISABLED
from monitors.history.latest import read_as_of
from monitors.kinds import PGBOUNCER
from monitors.models import HISTORY, Target
from monitors.rules import autovacuum, setting

STATEMENTS = "statements"
"""Which statements and transactions are open, and for how long."""
COUNTS = "counts"
"""How many rows are dead, were inserted or changed."""
SETTINGS = "settings"
"""What the server's settings are."""
FORCED = "forced"
"""At which age a vacuum is forced."""

STANDBY = (
    "Which tables need vacuum is not known on a standby: PostgreSQL does not replicate the "
    "counters of tables, and autovacuum runs on the primary alone."
)
"""Why a standby has no counts; that is no fault of it."""
FORCED_ELSEWHERE = "When a vacuum is forced is not known on a standby: it runs on the primary, by the settings there."
NO_SETTINGS = "The server's settings have not been read."
NOT_TOLD = "not known: track_activities is off"
"""What a figure of what runs says in place of a number."""
NOT_COUNTED = "not known: track_counts is off"
"""What a figure of counted rows says in place of a number."""

CLIENT = "client backend"


def unknowns_of(target: Target, at: datetime | None = None) -> dict[str, str]:
    """Return {what is not known: a sentence that says why}; {} where all is.

    With `at`, of a past moment.
    """
    if at is None:
        return unknowns_of_all([target])[target.pk]
    rows = read_as_of("activity", target.pk, at)
    hidden = sum((row["state"], row["backend_type"]) == (DISABLED, CLIENT) for row in rows)
    return told(target, hidden)


def unknowns_of_all(targets: Sequence[Target]) -> dict[int, dict[str, str]]:
    """Return {target id: what is not known now}, with one query for all."""
    latest = HISTORY["activity"].latest._default_manager.filter(
        target_id__in=[target.pk for target in targets],
        gone_at__isnull=True,
        state=DISABLED,
        backend_type=CLIENT,
    )
    hidden = dict(latest.values_list("target_id").annotate(Count("pid")))
    return {target.pk: told(target, hidden.get(target.pk, 0)) for target in targets}


def told(target: Target, hidden: int) -> dict[str, str]:
    """Return what is not known of a target, so many backends of which hide their statements."""
    if target.kind == PGBOUNCER:  # it has no statements and rows of its own
        return {}
    settings = target.settings
    texts = {
        STATEMENTS: statements_text(settings, hidden),
        COUNTS: STANDBY if target.in_recovery else counts_text(settings),
        SETTINGS: "" if settings else NO_SETTINGS,
        FORCED: FORCED_ELSEWHERE if target.in_recovery else "" if settings else NO_SETTINGS,
    }
    return {subject: text for subject, text in texts.items() if text}


def statements_text(settings: Mapping[str, str], hidden: int) -> str:
    """Return why open statements are not all known; '' where they are."""
    if not tells_activities(settings):
        return (
            "track_activities is off: which statements run, and for how long, is not known. "
            f"{setting.remedy_words('track_activities', 'on', settings)}"
        )
    if not hidden:
        return ""
    verb, runs = ("has", "it runs") if hidden == 1 else ("have", "they run")
    return (
        f"{words.count(hidden, 'backend')} {verb} track_activities off: what {runs}, "
        "and for how long, is not known."
    )


def tells_activities(settings: Mapping[str, str]) -> bool:
    """Tell whether a server's own processes say what they run; sessions may choose otherwise."""
    return autovacuum.is_on(settings.get("track_activities", "on"))


def counts_rows(settings: Mapping[str, str]) -> bool:
    """Tell whether a server counts rows: what it says of them else is of long ago, or 0."""
    return autovacuum.is_on(settings.get("track_counts", "on"))


def counts_text(settings: Mapping[str, str]) -> str:
    """Return why rows are not counted; '' where they are."""
    if counts_rows(settings):
        return ""
    return (
        "track_counts is off: rows that die or change are not counted. "
        f"{setting.remedy_words('track_counts', 'on', settings)}"
    )
