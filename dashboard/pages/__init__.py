"""The pages of a target, in the order of the rail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Page:
    """One entry of a target's rail; `name` is the URL's name."""

    name: str
    title: str
    icon: str
    heading: str
    """The group it stands under."""


PAGES: tuple[Page, ...] = (
    Page(name="overview", title="Overview", icon="overview", heading="Now"),
    Page(
        name="activity",
        title="Activity",
        icon="activity",
        heading="Now",
    ),
    Page(
        name="vacuum",
        title="Vacuum",
        icon="vacuum",
        heading="Health",
    ),
    Page(name="wraparound", title="Wraparound", icon="wraparound", heading="Health"),
    Page(name="bloat", title="Bloat", icon="bloat", heading="Health"),
    Page(name="queries", title="Queries", icon="queries", heading="Load"),
    Page(name="target-findings", title="Findings", icon="findings", heading="Record"),
    Page(name="jobs", title="Jobs", icon="clock", heading="Record"),
    Page(name="settings", title="Settings", icon="settings", heading="Record"),
    Page(name="target-actions", title="Actions", icon="actions", heading="Record"),
)
