"""What tests of a pooler's probes share: its rows as last read, and a pool that is full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monitors.collect.rounds import take_now
from monitors.models import HISTORY, Target


def latest(name: str, target: Target, of: str = "database") -> list[dict[str, Any]]:
    """Return what was read last of the database `shop`; of everything where `of` is ''."""
    rows = HISTORY[name].latest._default_manager.filter(target_id=target.pk, gone_at=None)
    return [row for row in rows.values() if not of or row[of] == "shop"]


def read_full(
    target: Target, eventually: Callable[..., None], active: int = 2, waiting: int = 4
) -> dict[str, Any]:
    """Read a pooler until a pool has so many servers in use and clients waiting; return the pool."""
    found: dict[str, Any] = {}

    def is_full() -> bool:
        taken = take_now(target)
        assert {(one.state, one.error) for one in taken} == {("ok", "")}, taken
        found.update(next(iter(latest("pooler_pools", target)), {}))
        return (found.get("sv_active"), found.get("cl_waiting")) == (active, waiting)

    eventually(is_full)
    return found
