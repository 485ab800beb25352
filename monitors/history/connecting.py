"""What databases' counters grew by of late, over which time, and who connected meanwhile."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, TypedDict

from django.db.models import Count

from monitors.advisor import is_ours
from monitors.history.counters import read_sums
from monitors.history.window import Window
from monitors.models import HISTORY, Snapshot
from monitors.models.history import Change

PROBE = "databases"
COUNTED = (
    "xact_commit",
    "xact_rollback",
    "session_time",
    "active_time",
    "idle_in_transaction_time",
    "sessions",
    "sessions_abandoned",
    "sessions_fatal",
    "sessions_killed",
    "temp_files",
    "temp_bytes",
    "deadlocks",
)
WHO = ("datname", "usename", "application_name", "client_addr")


class Newcomers(TypedDict):
    """New sessions of one origin that readings caught; most that live for milliseconds they don't."""

    datname: str | None
    usename: str | None
    application_name: str | None
    client_addr: str | None
    sessions: int


def grown(target_id: int, end: datetime, span: timedelta) -> list[dict[str, Any]]:
    """Return what the counters of each database grew by: COUNTED, datid, datname, and `seconds`.

    Of one that was reset meanwhile nothing is known, and it is left out. `seconds` lie between the
    two readings that are compared, by the target's clock; without two the list is empty.
    """
    window = Window(end - span, end, is_live=True)
    seconds = seconds_of(target_id, window)
    if not seconds:
        return []
    latest = HISTORY[PROBE].latest._default_manager.filter(target_id=target_id)
    names = dict(latest.values_list("datid", "datname"))
    there = set(
        latest.filter(gone_at=None, changed_at__lt=window.start).values_list("datid", flat=True)
    )
    rows = {row["datid"]: row for row in read_sums(PROBE, target_id, window, COUNTED)}
    still = {datid: dict.fromkeys(COUNTED, 0) for datid in there - rows.keys()}  # nothing changed
    return [
        {**row, "datid": datid, "datname": names.get(datid, ""), "seconds": seconds}
        for datid, row in {**rows, **still}.items()
        if row.get("complete", True)
    ]


def seconds_of(target_id: int, window: Window) -> float | None:
    """Return the time from the last reading before a window to the last one in it.

    Where none was before, from the first one in it: that gave no differences. None: not two.
    """
    read = Snapshot.objects.filter(target_id=target_id, probe=PROBE, state=Snapshot.State.OK)
    moments = read.values_list("target_at", flat=True)
    inside = moments.filter(taken_at__gte=window.start, taken_at__lt=window.end)
    last = inside.order_by("-taken_at").first()
    before = moments.filter(taken_at__lt=window.start).order_by("-taken_at").first()
    first = before or inside.order_by("taken_at").first()
    if first is None or last is None or last <= first:
        return None
    return (last - first).total_seconds()


def newcomers(
    target_id: int, end: datetime, span: timedelta, logins: Collection[str]
) -> list[Newcomers]:
    """Return whose new sessions the readings of `activity` caught, without Howdah's own."""
    rows = (
        HISTORY["activity"]
        .samples._default_manager.filter(
            target_id=target_id,
            taken_at__gt=end - span,
            taken_at__lte=end,
            change=Change.APPEARED,
            backend_type="client backend",
        )
        .values(*WHO)
        .annotate(sessions=Count("pid"))
        .order_by()
    )
    return [
        Newcomers(
            datname=row["datname"],
            usename=row["usename"],
            application_name=row["application_name"],
            client_addr=row["client_addr"],
            sessions=row["sessions"],
        )
        for row in rows
        if not is_ours(row["application_name"], row["usename"], logins)
    ]
