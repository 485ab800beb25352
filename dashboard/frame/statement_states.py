"""Why a target's statements can't be read, and the statement that brings them to life."""

from __future__ import annotations

from collections.abc import Mapping

from dashboard.frame.states import State, denied
from monitors import words
from monitors.history.freshness import freshness
from monitors.models import HISTORY, Snapshot, Target

LIBRARY = "pg_stat_statements"
TRACK = "pg_stat_statements.track"
LOADED = "pg_stat_statements.max"
PRELOAD = "shared_preload_libraries"

PRIVATE = "Run this on the target as a superuser"


def state_of(target: Target) -> State | None:
    """Return what must be done before statements are counted, None where they are."""
    fresh = freshness(target, "statements")
    settings = settings_of(target)
    if fresh.state == Snapshot.State.UNSUPPORTED:
        return unsupported(target, fresh.reason, settings)
    if fresh.state == Snapshot.State.DENIED:
        return denied(target, fresh.reason)
    if settings.get(TRACK) == "none":
        return not_tracked()
    return None


def settings_of(target: Target) -> dict[str, str | None]:
    """Return the settings that decide it, as last read; missing ones do not exist there."""
    names = (LOADED, TRACK, PRELOAD)
    rows = HISTORY["settings"].latest._default_manager.filter(
        target_id=target.pk, name__in=names, gone_at=None
    )
    return dict(rows.values_list("name", "setting"))


def unsupported(target: Target, reason: str, settings: Mapping[str, str | None]) -> State:
    """Return how to install, load or update the extension."""
    if "too old" in reason:
        return State(
            "warning",
            "queries",
            f"{LIBRARY} is too old",
            f"{words.sentence(reason.partition(':')[0])} The server was upgraded, its extension was not. "
            f"{PRIVATE}, in the database that has it:",
            code=f"ALTER EXTENSION {LIBRARY} UPDATE;",
        )
    text = (
        "Then every statement's calls, time and rows are counted, at about 1 % of its time. "
        f"{PRIVATE}, in the database {target.dbname}:"
    )
    lines = [*preload(settings), f"CREATE EXTENSION IF NOT EXISTS {LIBRARY};"]
    if len(lines) > 1:
        text = f"Its library must be loaded when the server starts. {text}"
    return State(
        "warning",
        "queries",
        f"{LIBRARY} is not installed",
        f"{words.sentence(reason)} {text}",
        code="\n".join(lines),
    )


def preload(settings: Mapping[str, str | None]) -> list[str]:
    """Return what loads the library beside those that are loaded already; nothing where it is."""
    if LOADED in settings:
        return []
    if settings.get(PRELOAD) is None:  # not read: a list of others must not be lost
        return [f"-- {PRELOAD} must hold {LIBRARY}: it counts from the next start on"]
    others = [one.strip() for one in (settings[PRELOAD] or "").split(",")]
    names = [one for one in others if one and one != LIBRARY]
    values = ", ".join(quoted(one) for one in (*names, LIBRARY))
    return [f"ALTER SYSTEM SET {PRELOAD} = {values};", "-- then restart the server, and:"]


def quoted(text: str) -> str:
    """Return a text as PostgreSQL writes a literal."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def not_tracked() -> State:
    """Return how to switch counting on."""
    return State(
        "warning",
        "queries",
        "Statements are not counted",
        f"{TRACK} is none: {LIBRARY} is installed, and counts nothing. {PRIVATE}:",
        code=f"ALTER SYSTEM SET {TRACK} = 'top';\nSELECT pg_reload_conf();",
    )
