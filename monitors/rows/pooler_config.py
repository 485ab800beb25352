"""A pooler's settings as its page and export show them."""

from __future__ import annotations

from typing import TypedDict

from monitors.history.window import Window
from monitors.models import Target
from monitors.rows.configuration import settings_of

COLUMNS = ("name", "setting", "boot_val", "is_changed", "changeable")
"""Keys of the export, in order."""


class ConfigRow(TypedDict):
    """One setting."""

    name: str
    setting: str
    boot_val: str | None  # its default; None: there is none
    is_changed: bool  # from the default
    changeable: bool  # by RELOAD, without a restart


def config_of(target: Target, window: Window) -> list[ConfigRow]:
    """Return the settings by name, now or as they stood at the end of a window in the past."""
    at = None if window.is_live else window.end
    return [
        {
            "name": row["name"],
            "setting": row["setting"] or "",
            "boot_val": row["boot_val"],
            "is_changed": (row["setting"] or "") != (row["boot_val"] or ""),
            "changeable": row["changeable"],
        }
        for row in settings_of(target, at, "pooler_config")
    ]
