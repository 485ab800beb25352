"""Effective rights as pages show them: targets with the same rights share a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from monitors.models import Target


@dataclass(frozen=True)
class SameRights:
    """Targets on which somebody may do the same, for the same reasons."""

    targets: list[Target]
    permissions: tuple[str, ...]
    roles: tuple[str, ...]


def together(rights: Iterable[tuple[Target, Sequence[str], Sequence[str]]]) -> list[SameRights]:
    """Return rows of (target, permissions, roles), in the order of their first target."""
    rows: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Target]] = {}
    for target, permissions, roles in rights:
        rows.setdefault((tuple(permissions), tuple(roles)), []).append(target)
    return [SameRights(targets, *same) for same, targets in rows.items()]
