"""The headline figures of a page: a row of tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString

from dashboard.templatetags import figures
from monitors.words import NONE

Writer = Callable[[Any], SafeString | str]


def write_rate(value: float) -> SafeString:
    """Write something a second, with one decimal."""
    return format_html('{}<span class="unit">/s</span>', figures.number(value, 1))


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure with its title and a note; a value of None is not known, and shown as a dash."""

    title: str
    value: Any
    write: Writer = figures.number
    note: str | None = ""
    level: str | None = ""
    """good, notice, warning or critical where it is judged."""
    unit: str = ""
    spark: Sequence[float | None] | None = None
    """A small line of its course over the window."""

    @property
    def text(self) -> SafeString | str:
        """Return the value as it is shown."""
        if self.value is None:
            return format_html('<span class="zero">{}</span>', NONE)
        return self.write(self.value)
