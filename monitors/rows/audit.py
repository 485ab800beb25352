"""The audit as its page and exports show it: one row an entry."""

from __future__ import annotations

from monitors.audit.chain import HASHED

COLUMNS = ("id", *HASHED)
"""Keys of an export, in order."""
