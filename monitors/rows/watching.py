"""What watching costs a target: the statements of Howdah's own logins, told from all others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q, QuerySet

from monitors import words
from monitors.history.source import Key
from monitors.history.window import Window
from monitors.models import HISTORY, Target
from monitors.rows.statements import StatementRow, share_anew

OURS = "howdah"
"""How the application_name of each of Howdah's sessions begins."""
LOOKED_BACK = timedelta(hours=1)
"""How far before a window's end a login is looked for in the hands of others."""
HUNDRED = 100
WHOLE = "this target's execution time"
OTHERS = "the execution time that is not Howdah's own"
"""Of what a share is."""


@dataclass(frozen=True)
class Watching:
    """The statements of a window that are shown, and what is known of Howdah's own."""

    rows: list[StatementRow]
    """Shares are of what is shown."""
    own: list[StatementRow]
    shared: list[str]
    """Logins of the target that others use too: their statements can't be told apart."""
    is_shown: bool
    """Whether its own are among the rows."""
    key: Key
    """What charts of the rows are limited to."""

    @property
    def cost_pct(self) -> float | None:
        """Its part of the execution time at top level; None where there was none."""
        own = total_ms(self.own)
        whole = total_ms(self.rows) + (0 if self.is_shown else own)
        return HUNDRED * own / whole if whole else None

    @property
    def whole(self) -> str:
        """Of what the shares of the rows are."""
        return WHOLE if self.is_shown else OTHERS

    @property
    def sentence(self) -> str:
        """What was left out and what it costs, '' where there is nothing to say."""
        if not self.own:
            return self.shared_words
        are = "is" if len(self.own) == 1 else "are"
        where = "among them" if self.is_shown else "left out"
        cost = "" if self.cost_pct is None else f": watching costs {self.cost_pct:.1f} %"
        found = f"{words.count(len(self.own), 'statement')} of Howdah's own {are} {where}{cost}."
        return f"{found} {self.shared_words}".rstrip()

    @property
    def shared_words(self) -> str:
        """Why not all of its own are known, '' where they are."""
        if not self.shared:
            return ""
        many = len(self.shared) > 1
        return (
            f"{' and '.join(self.shared)} {'are' if many else 'is'} not used by Howdah alone, so"
            f" {'their' if many else 'its'} statements stay among the others':"
            f" give Howdah {'logins' if many else 'a login'} of its own."
        )


def total_ms(rows: Sequence[StatementRow]) -> float:
    """Return the execution time of what ran at top level."""
    return float(sum(row["total_exec_time"] for row in rows if row["toplevel"]))


def watching_of(
    target: Target, window: Window, rows: Sequence[StatementRow], *, with_own: bool
) -> Watching:
    """Tell Howdah's own statements from others and leave them out unless they are wanted."""
    used = target.logins & {row["usename"] for row in rows}
    shared = shared_of(target, window, used) if used else []
    own_logins = used.difference(shared)
    own = [row for row in rows if row["usename"] in own_logins]
    if with_own or not own:
        return Watching(list(rows), own, shared, is_shown=True, key={"toplevel": True})
    others = [row for row in rows if row["usename"] not in own_logins]
    userids = sorted({row["userid"] for row in others})
    key = {"toplevel": True, "userid": userids}
    return Watching(share_anew(others), own, shared, is_shown=False, key=key)


def own_userids(target: Target, window: Window) -> set[int]:
    """Return the roles, by oid, whose statements are Howdah's own."""
    own = target.logins.difference(shared_of(target, window, target.logins))
    latest = HISTORY["statements"].latest._default_manager
    rows = latest.filter(target_id=target.pk, usename__in=own)
    return set(rows.values_list("userid", flat=True).distinct())


def shared_of(target: Target, window: Window, logins: Collection[str]) -> list[str]:
    """Return which of some logins somebody else was seen with, late in a window."""
    history = HISTORY["activity"]
    begins = max(window.start, window.end - LOOKED_BACK)
    lately = history.samples._default_manager.filter(taken_at__gte=begins, taken_at__lt=window.end)
    found: set[str] = set()
    sources: list[QuerySet[Any]] = [lately]
    if window.is_live:
        sources.append(history.latest._default_manager.all())
    for rows in sources:
        theirs = rows.filter(
            ~Q(application_name__startswith=OURS),
            target_id=target.pk,
            usename__in=logins,
            backend_type="client backend",
        )
        found.update(theirs.values_list("usename", flat=True).distinct())
    return sorted(found)
