"""The stretch of time that a page shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

WINDOWS: dict[str, timedelta] = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
DEFAULT_WINDOW = "1h"


@dataclass(frozen=True)
class Window:
    """The half-open range [start, end) in UTC."""

    start: datetime
    end: datetime
    is_live: bool  # ends now
    label: str = ""  # a key of WINDOWS, '' for from and to

    @classmethod
    def last(cls, label: str, now: datetime) -> Window:
        """Return the window of a label that ends now; KeyError for another label."""
        return cls(now - WINDOWS[label], now, is_live=True, label=label)

    @property
    def length(self) -> timedelta:
        """How long it is."""
        return self.end - self.start
