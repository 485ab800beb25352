"""What the history knows of a table that an action measured: dead rows that a rewrite took away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitors import words
from monitors.action import Measured
from monitors.models import HISTORY, Database, Target
from monitors.probes.tables import COUNTED_AT, Dead, known_dead

NOT_KNOWN = "not known: it was rewritten since they were counted"


def without_rewritten(target: Target, identity: Mapping[str, Any], numbers: Measured) -> Measured:
    """Return what `relations.measure` returned, with the dead rows that are known.

    n_dead_tup is None where it is not known of one of the tables that hold the rows.
    """
    if "leaves" not in numbers:
        return numbers
    before = last_read(target, identity, [leaf["relid"] for leaf in numbers["leaves"]])
    dead = [known_dead(before.get(leaf["relid"]), said_of(leaf))[0] for leaf in numbers["leaves"]]
    found = {name: value for name, value in numbers.items() if name != "leaves"}
    if "n_dead_tup" in found:
        found["n_dead_tup"] = None if None in dead else sum(rows or 0 for rows in dead)
    return found


def said_of(leaf: Mapping[str, Any]) -> Dead:
    """Return what a server says now of a table's dead rows."""
    counted_at = tuple(leaf["counted_at"])
    return Dead(
        leaf["relid"],
        leaf["relfilenode"],
        leaf["n_dead_tup"],
        None,
        leaf["relallvisible"],
        counted_at,
    )


def last_read(target: Target, identity: Mapping[str, Any], relids: list[int]) -> dict[int, Dead]:
    """Return {relid: what was kept of the last snapshot} of tables that were in it."""
    databases = Database.objects.filter(target=target, datid=identity["datid"], gone_at=None)
    latest = HISTORY["tables"].latest._default_manager.filter(
        target_id=target.pk, database_id__in=databases.values("pk"), relid__in=relids, gone_at=None
    )
    return {
        relid: Dead(relid, file, dead, gone, visible, tuple(counted_at))
        for relid, file, dead, gone, visible, *counted_at in latest.values_list(
            *Dead._fields[:-1], *COUNTED_AT
        )
    }


def facts_of(numbers: Measured) -> list[tuple[str, str]]:
    """Return what a preview says of a table's numbers; nothing of what was not measured."""
    facts = []
    if "n_dead_tup" in numbers:
        dead = numbers["n_dead_tup"]
        facts.append(("Dead rows", NOT_KNOWN if dead is None else f"{dead:,}"))
    if "n_live_tup" in numbers:
        facts.append(("Live rows", f"{numbers['n_live_tup']:,}"))
    if numbers.get("size_bytes") is not None:
        facts.append(("Size", words.size(numbers["size_bytes"])))
    if "partitions" in numbers:
        facts.append(("Partitions", f"{numbers['partitions']:,}"))
    return facts
