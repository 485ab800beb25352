"""The pages of a target, in the order of the rail."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from django.http.response import HttpResponseBase

from monitors.kinds import EVERY, PGBOUNCER, POSTGRES


@dataclass(frozen=True, kw_only=True)
class Page:
    """One entry of a target's rail; `name` is the URL's name."""

    name: str
    title: str
    icon: str
    heading: str
    """The group it stands under."""
    address: str = ""
    """Below the target's; '' for `name/`, `/` for the target's own."""
    module: str = ""
    """The file of this folder that has it, '' for that of its name."""
    kinds: tuple[str, ...] = (POSTGRES,)
    """The kinds of target that have it."""

    @property
    def path(self) -> str:
        """Return its address below the target's."""
        return "" if self.address == "/" else self.address or f"{self.name}/"

    @property
    def view(self) -> Callable[..., HttpResponseBase]:
        """Return what answers: the function of its name."""
        function = self.name.replace("-", "_")
        module = importlib.import_module(f"{__name__}.{self.module or function}")
        found: Callable[..., HttpResponseBase] = getattr(module, function)
        return found


PAGES: tuple[Page, ...] = (
    Page(name="overview", title="Overview", icon="overview", heading="Now", address="/"),
    Page(name="activity", title="Activity", icon="activity", heading="Now"),
    Page(name="locks", title="Locks", icon="stuck", heading="Now"),
    Page(name="pooler", title="Overview", icon="overview", heading="Now", kinds=(PGBOUNCER,)),
    Page(
        name="pooler-clients",
        title="Clients",
        icon="activity",
        heading="Now",
        address="clients/",
        kinds=(PGBOUNCER,),
    ),
    Page(name="vacuum", title="Vacuum", icon="vacuum", heading="Health"),
    Page(name="wraparound", title="Wraparound", icon="wraparound", heading="Health"),
    Page(name="bloat", title="Bloat", icon="bloat", heading="Health"),
    Page(name="load", title="Load", icon="load", heading="Load"),
    Page(name="queries", title="Queries", icon="queries", heading="Load"),
    Page(name="connections", title="Connections", icon="link", heading="Load"),
    Page(name="pools", title="Pools", icon="pools", heading="Load"),
    Page(
        name="target-findings",
        title="Findings",
        icon="findings",
        heading="Record",
        address="findings/",
        module="findings",
        kinds=EVERY,
    ),
    Page(name="jobs", title="Jobs", icon="clock", heading="Record"),
    Page(name="settings", title="Settings", icon="settings", heading="Record"),
    Page(
        name="pooler-config",
        title="Configuration",
        icon="settings",
        heading="Record",
        address="configuration/",
        kinds=(PGBOUNCER,),
    ),
    Page(
        name="target-actions",
        title="Actions",
        icon="actions",
        heading="Record",
        address="actions/",
        module="action_log",
        kinds=EVERY,
    ),
)
