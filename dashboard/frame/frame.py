"""What stands around every page: rail, window picker, freshness, palette, strip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Count, Max, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property

from dashboard.frame.states import State, unread
from dashboard.pages import PAGES, Page
from monitors.advisor import Finding, Severity
from monitors.advisors import ADVISORS
from monitors.findings import judge
from monitors.findings.standing import standing_of
from monitors.history.freshness import freshness
from monitors.history.window import WINDOWS, Window
from monitors.models import Action, Database, FindingRecord, Target
from monitors.people import access
from monitors.rows import findings, stuck
from monitors.rows.backends import epoch_us

WINDOW_WORDS = ("window", "from", "to", "at")
"""The query's words that a link to another page carries along."""

STAYS = timedelta(minutes=10)
"""How long a finished action stays in the strip unless it is dismissed."""

DISMISSED = "dismissed_actions"
"""Session key: ids of actions that the person has put away."""

THEMES = frozenset({"light", "dark"})
"""Values of the cookie `theme`; anything else follows the system."""

SUBJECTS = {advisor.name: advisor.subject for advisor in ADVISORS}
"""Which page counts an advisor's findings."""

TIMELESS = frozenset({"account", "matrix", "people", "pool-calculator", "stuck", "targets"})
"""Pages that show no time: they have no window to choose."""

IN_STRIP = (Action.State.WAITING, Action.State.QUEUED, Action.State.RUNNING)


@dataclass(frozen=True)
class Entry:
    """A line of the rail."""

    title: str
    url: str
    icon: str
    current: bool
    count: int = 0
    level: str = ""
    counts: str = "finding"
    """What is counted, in the singular."""


@dataclass(frozen=True)
class Group:
    """A heading of the rail and what stands under it."""

    heading: str
    entries: list[Entry]


@dataclass(frozen=True)
class Choice:
    """A button of the window picker."""

    label: str
    text: str
    url: str
    current: bool


@dataclass(frozen=True)
class Fresh:
    """How old the page's figures are: a level, a few words, and the whole sentence."""

    level: str
    text: str
    reason: str = ""
    read_at: datetime | None = None
    next_at: datetime | None = None
    is_live: bool = False


LIVE = Fresh("good", "Live", "Read each second while somebody looks at this page.", is_live=True)


@dataclass(frozen=True)
class Frame:
    """Everything that base.html shows beside the page itself."""

    page: str
    rail: list[Group]
    windows: list[Choice]
    window_query: str
    fresh: Fresh | None
    unread: State | None
    targets: list[Target]
    strip: list[Action]
    may_manage: bool
    datids: dict[int, int]
    """Oids of the target's databases by our id."""
    primary: Target | None = None
    """Of a standby: its primary, where the person may see it."""

    @cached_property
    def role_sets(self) -> dict[str, frozenset[str]]:
        """Every role's permissions, asked for once an answer however many buttons name roles."""
        return access.role_sets()

    def roles_with(self, permission: str) -> str:
        """Return the roles that include a permission, as `operator, dba or cancel-only`."""
        return access.named_with(self.role_sets, permission)

    @property
    def strip_runs(self) -> bool:
        """Whether something in the strip will still change."""
        return any(action.state in IN_STRIP for action in self.strip)


def theme_of(request: HttpRequest) -> str:
    """Return light, dark, or nothing where the system decides."""
    theme = request.COOKIES.get("theme", "")
    return theme if theme in THEMES else ""


def window_query(request: HttpRequest) -> str:
    """Return the part of the query that names the window, with its question mark."""
    kept = [(word, request.GET[word]) for word in WINDOW_WORDS if request.GET.get(word)]
    return f"?{urlencode(kept)}" if kept else ""


def level_of(findings: Sequence[Finding]) -> str:
    """Return the worst severity as a word, empty where there is none."""
    worst = max((finding.severity for finding in findings), default=None)
    return Severity(worst).name.lower() if worst is not None else ""


def of_target(
    page: Page, target: Target, current: str, query: str, found: Sequence[Finding]
) -> Entry:
    """Return the rail's line of one of a target's pages, with its count of findings.

    What is acknowledged or snoozed does not count; the Findings page has those that are kept.
    """
    mine = [
        finding
        for finding in found
        if not finding.quiet
        and (
            finding.record_id
            if page.name == "target-findings"
            else SUBJECTS.get(finding.advisor) == page.name
        )
    ]
    return Entry(
        title=page.title,
        url=reverse(page.name, args=[target.name]) + query,
        icon=page.icon,
        current=page.name == current,
        count=len(mine),
        level=level_of(mine),
    )


def target_rail(target: Target, current: str, query: str, found: Sequence[Finding]) -> list[Group]:
    """Return a target's pages under their headings."""
    groups: dict[str, list[Entry]] = {}
    for page in [one for one in PAGES if target.kind in one.kinds]:
        entry = of_target(page, target, current, query, found)
        groups.setdefault(page.heading, []).append(entry)
    return [Group(heading, entries) for heading, entries in groups.items()]


def open_findings(current: str, targets: Sequence[Target]) -> Entry:
    """Return the fleet's line of findings, with how many are open on some targets."""
    url, is_current = reverse("findings"), current == "findings"
    rows = FindingRecord.objects.filter(target__in=targets, opened_at__isnull=False)
    state = findings.in_state("open", timezone.now())
    found = rows.filter(state).aggregate(count=Count("pk"), worst=Max("severity"))
    level = Severity(found["worst"]).name.lower() if found["worst"] else ""
    return Entry("Findings", url, "findings", is_current, found["count"], level)


def stuck_now(current: str, targets: Sequence[Target]) -> Entry:
    """Return the fleet's line of stuck backends, with how many there are on some targets."""
    count = stuck.count_stuck(targets, timezone.now())
    here, level = current == "stuck", "warning" if count else ""
    return Entry("Stuck", reverse("stuck"), "stuck", here, count, level, "stuck backend")


def fleet_rail(current: str, targets: Sequence[Target], may: frozenset[str]) -> Group:
    """Return the pages that are not of one target."""
    entries = [
        Entry("Fleet", reverse("fleet"), "fleet", current == "fleet"),
        stuck_now(current, targets),
        open_findings(current, targets),
        Entry("Actions", reverse("actions"), "actions", current == "actions"),
        Entry("Targets", reverse("targets"), "targets", current == "targets"),
        Entry("Pools", reverse("pool-calculator"), "pools", current == "pool-calculator"),
    ]
    if "manage_targets" in may:
        here = current == "thresholds"
        entries.append(Entry("Thresholds", reverse("thresholds"), "settings", here))
    if "manage_people" in may:
        entries.append(Entry("People", reverse("people"), "admin", current == "people"))
    if may & {"manage_people", "audit"}:
        entries.append(Entry("Who may what", reverse("matrix"), "table", current == "matrix"))
    return Group("Fleet", entries)


def window_choices(request: HttpRequest, window: Window) -> list[Choice]:
    """Return the picker's buttons; a moment in the past (`at`) stays when the width changes."""
    query = request.GET.copy()
    for word in ("from", "to", "page", "format"):
        query.pop(word, None)
    choices = []
    for label in WINDOWS:
        query["window"] = label
        text = f"{label[:-1]}\N{NO-BREAK SPACE}{label[-1]}"
        url = f"{request.path}?{query.urlencode()}"
        choices.append(Choice(label, text, url, current=label == window.label))
    return choices


def fresh_of(
    target: Target, window: Window, reads: Sequence[str], database_id: int | None = None
) -> Fresh | None:
    """Return how old the figures of some probes are, None where the page reads none.

    With `database_id`, of a page about that database alone.
    """
    if not window.is_live:
        return Fresh("notice", "The past")
    if not reads:
        return None
    standing = standing_of(target, reads, timezone.now(), database_id)
    if standing.apart:
        return Fresh(standing.apart.level, "Read", standing.apart.text, read_at=standing.read_at)
    if not standing.level:
        return Fresh("good", "Read", read_at=standing.read_at)
    if standing.level == "unknown" and target.enabled:
        return Fresh("notice", "First snapshot", standing.text, next_at=next_at(target, reads))
    level = "warning" if standing.level == "unknown" else standing.level
    return Fresh(level, "Last read", standing.text, read_at=standing.read_at)


def next_at(target: Target, reads: Sequence[str]) -> datetime | None:
    """Return when the first of some probes is read next."""
    due = [freshness(target, name).next_at for name in reads]
    return min((moment for moment in due if moment), default=None)


def strip_of(request: HttpRequest, target: Target) -> list[Action]:
    """Return the actions that run on a target or ended a moment ago, newest first."""
    since = timezone.now() - STAYS
    recent = Q(finished_at__gte=since) & ~Q(state=Action.State.DRAFT)
    # Of a batch only what runs: its own page has the rest.
    alone = Q(batch=None) | Q(state=Action.State.RUNNING)
    rows = Action.objects.filter(Q(state__in=IN_STRIP) | recent, alone, target=target)
    dismissed = request.session.get(DISMISSED, [])
    return [
        action for action in rows.order_by("-created_at")[:20] if str(action.id) not in dismissed
    ][:5]


def finding_url(target: Target, finding: Finding, datids: Mapping[int, int]) -> str | None:
    """Return where a finding's object is shown: a table's page, a backend's, or its subject's.

    `datids` are the oids of the target's databases by our id.
    """
    datid = datids.get(finding.database_id or 0)
    if finding.relid and datid:
        return reverse("table", args=[target.name, datid, finding.relid])
    if finding.pid and finding.backend_start:
        return reverse("backend", args=[target.name, finding.pid, epoch_us(finding.backend_start)])
    subject = SUBJECTS.get(finding.advisor)
    return reverse(subject, args=[target.name]) if subject else None


def primary_of(target: Target, targets: Iterable[Target]) -> Target | None:
    """Return the primary of a standby among some targets: what has its data and is none itself."""
    if not target.in_recovery:
        return None
    same = (one for one in targets if one.system_identifier == target.system_identifier)
    return next((one for one in same if one.in_recovery is False), None)


def visible(user: User | AnonymousUser) -> list[Target]:
    """Return the targets that the person may see, by name."""
    return list(access.visible_targets(user).select_related("environment").order_by("name"))


def build(  # noqa: PLR0913 - keyword only
    request: HttpRequest,
    *,
    page: str,
    target: Target | None,
    window: Window,
    reads: Sequence[str],
    found: Sequence[Finding] | None,
    is_live: bool = False,
    database_id: int | None = None,
) -> Frame:
    """Return the frame of one answer."""
    query = window_query(request)
    may = access.permissions_of(request.user)
    targets = visible(request.user)
    rail = [fleet_rail(page, targets, may)]
    if target is not None:
        found = judge.find(target) if found is None else found
        rail = [*target_rail(target, page, query, found), rail[0]]
    return Frame(
        page=page,
        rail=rail,
        windows=[] if page in TIMELESS else window_choices(request, window),
        window_query=query,
        fresh=LIVE if is_live else fresh_of(target, window, reads, database_id) if target else None,
        unread=unread(target, reads[0], window) if target and reads else None,
        targets=targets,
        strip=strip_of(request, target) if target else [],
        may_manage="manage_targets" in may,
        primary=primary_of(target, targets) if target else None,
        datids=dict(Database.objects.filter(target=target).values_list("pk", "datid")),
    )
