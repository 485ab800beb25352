"""Words for a panel that can't show its figures: why, since when, what brings it to life."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Max
from django.utils import timezone

from monitors import words
from monitors.history import partitions
from monitors.history.freshness import Freshness, freshness
from monitors.history.window import Window
from monitors.models import ProbeState, Snapshot, Target
from monitors.probe import OLDEST_MAJOR
from monitors.rows.vacuum_parts import skew_of


@dataclass(frozen=True)
class State:
    """A level, an icon, a heading (with a moment it speaks of) and sentences.

    `helps` names the button that brings the panel to life: check, enable, now or
    before (as it was before the moment); empty where one can only wait.
    """

    level: str
    picture: str
    title: str
    text: str
    code: str = ""
    moment: datetime | None = None
    helps: str = ""


TELLING_SKEW = timedelta(seconds=5)
"""A smaller difference of two clocks may be the time that the answer took."""

UNREACHABLE = frozenset({Snapshot.State.UNREACHABLE})

CHECKS: Mapping[str, str] = {
    "listens": "The machine answers, but nothing listens on that port. "
    "Check that PostgreSQL runs and that it listens on this address.",
    "resolve": "Check the name's spelling and this machine's resolver.",
    "route": "Check the network and the firewall between.",
    "network": "Check the network and the firewall between.",
    "no answer": "Check that the machine runs, and the network and firewall between.",
    "not answer": "Check that the machine runs, and the network and firewall between.",
    "connection limit": "Howdah reads over two connections, and a check opens one more.",
    "slot": "Raise max_connections, or close sessions: nobody new gets in.",
    "authentication failed": "Check the password that is stored here and the one on the server.",
    "without tls": "TLS is chosen on the target's edit page; an entry names this login and the "
    "address that Howdah comes from.",
    "role": "Create the login with the grant script of the Targets page.",
    "pg_hba": "Add a line for this login and for the address that Howdah comes from.",
    "enter it again": "Type the password on the target's edit page: it is bound to an address.",
    "certificate": "Check the name in the certificate and the CA that signed it.",
}
"""What to check, by a word of the reason."""

CHECK_ANYWAY = "Check that the server runs and that this machine reaches it."


def advice(reason: str, otherwise: str = CHECK_ANYWAY) -> str:
    """Return what to check after a connection failed; `otherwise` where the reason says it all."""
    low = reason.lower()
    return next((text for word, text in CHECKS.items() if word in low), otherwise)


def unread(target: Target, probe_name: str, window: Window) -> State:
    """Return why a page has no figures of a probe."""
    if not window.is_live:
        return State(
            "notice",
            "clock",
            "Nothing is known of that moment",
            "History began later, or its samples have ended: then only hourly values exist. "
            "Choose a later moment or a wider window.",
            helps="now",
        )
    if not target.enabled:
        text = "Nothing reads a disabled target; its history stays. An admin can enable it."
        return State("warning", "pause", f"{target.name} is disabled", text, helps="enable")
    fresh = freshness(target, probe_name)
    return (
        down(target)
        or failed(target, fresh)
        or nothing(probe_name, fresh)
        or State(
            "notice",
            "clock",
            "First snapshot",
            f"It is read every {fresh.interval_seconds:,.0f} s. "
            "This page shows it as soon as it is there.",
            moment=fresh.next_at,
        )
    )


def down(target: Target) -> State | None:
    """Return since when a target can't be reached, why and what to check; None where it can."""
    known = ProbeState.objects.filter(target=target)
    tried = known.filter(state__in=UNREACHABLE)
    answered_at = known.aggregate(last=Max("taken_at"))["last"]
    if answered_at is not None:  # what failed before that is read again within a minute
        tried = tried.filter(failing_since__gt=answered_at)
    row = tried.order_by("failing_since").first()
    if row is None:
        return None
    title = f"{target.name} can't be reached since"
    text = f"{words.sentence(row.reason)} {advice(row.reason)}"
    helps = "before" if row.taken_at else "check"
    return State("critical", "offline", title, text, moment=row.failing_since, helps=helps)


EMPTY: Mapping[str, tuple[str, str]] = {
    "activity": ("Nobody is connected", "Howdah's own session is the only one."),
    "bloat": (
        "No table or index to judge",
        "The databases that are read have none. The target's patterns say which are read.",
    ),
    "tables": (
        "No table to vacuum",
        "The databases that are read have no tables. The target's patterns say which are read.",
    ),
}
"""What to say where a probe was read and found nothing: a heading and a sentence."""


def nothing(probe_name: str, fresh: Freshness) -> State | None:
    """Return that there is nothing to show; None before the first good snapshot."""
    if fresh.read_at is None:
        return None
    title, text = EMPTY.get(probe_name, ("Nothing to show", "It was read, and nothing was there."))
    return State("good", "good", title, text)


def failed(target: Target, fresh: Freshness) -> State | None:
    """Return why the last attempt of a probe failed, None where it didn't or there was none."""
    reason = words.sentence(fresh.reason)
    if fresh.state == Snapshot.State.DENIED:
        return denied(target, fresh.reason)
    if fresh.state == Snapshot.State.UNSUPPORTED:
        text = f"{reason} PostgreSQL {OLDEST_MAJOR} is the oldest that is read."
        return State("notice", "notice", "Not on this version", text)
    if fresh.state == Snapshot.State.FAILED:
        return State("warning", "warning", "The read failed", reason, helps="check")
    return None


GRANT = re.compile(r"^(.*?)(?: In the database (.+))?: (GRANT .+;)$", re.DOTALL)
"""A reason that ends in the statement which helps, and where to run it."""


def denied(target: Target, reason: str) -> State:
    """Return which right a login lacks, with the statement that gives it where the reason has it."""
    told = GRANT.match(reason)
    title = f"{target.user} may not read this"
    if told is None:
        return State("warning", "stuck", title, words.sentence(reason), helps="check")
    said, dbname, code = told.groups()
    where = f", in the database {dbname}" if dbname else ""
    text = f"{words.sentence(said)} Run this on the target as a superuser{where}:"
    return State("warning", "stuck", title, text, code=code, helps="check")


def clock_words(target: Target) -> str:
    """Return by how much a target's clock differs from ours; empty below what latency explains."""
    skew = skew_of(target)
    if abs(skew) < TELLING_SKEW:
        return ""
    length = words.duration(abs(skew).total_seconds())
    side = "behind" if skew > timedelta(0) else "ahead of"
    return (
        f"The clock of {target.name} is {length} {side} Howdah's. What the server dates itself, as "
        "the begin of a statement, is by its clock; when something was read is by Howdah's."
    )


def was_ever_read(target: Target, probe_name: str, window: Window) -> bool:
    """Tell whether a probe was ever read by a window's end: else "none" would say nothing.

    Beyond the snapshots' age a past moment counts as read.
    """
    if window.is_live:
        read = ProbeState.objects.filter(target=target, probe=probe_name, taken_at__isnull=False)
        return read.exists()
    tried = Snapshot.objects.filter(target_id=target.pk, probe=probe_name)
    good = tried.filter(state=Snapshot.State.OK, taken_at__lte=window.end)
    return good.exists() or window.end < timezone.now() - partitions.KEEP_SAMPLES
