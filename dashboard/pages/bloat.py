"""How much room tables and indexes waste, by which method that is known, and what grows.

Long, since one page with its three views and their exports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, TypedDict

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.frame import SUBJECTS
from dashboard.frame.listing import Listing, chosen, listing_from, listing_of, sort_of, sought_in
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.actions import offered
from monitors.advisor import Finding
from monitors.findings import judge
from monitors.findings.verdict import Verdict, tell_verdict
from monitors.history import objects
from monitors.history.gauges import read_gauges
from monitors.history.latest import read_latest
from monitors.history.marks import read_marks
from monitors.history.source import POINTS, Key, Series
from monitors.history.sparks import draw_sparks
from monitors.history.window import Window
from monitors.models import HISTORY, Target
from monitors.people import access
from monitors.rows import bloat as bloat_rows, bloat_groups
from monitors.rows.bloat import BloatRow
from monitors.rows.bloat_groups import GroupRow, SchemaRow
from monitors.rows.tables import databases_of, read_at_of

TABS = {
    "all": "All",
    "tables": "Tables",
    "indexes": "Indexes",
    "growers": "Growers",
    "schemas": "By schema",
}
SCHEMA_COLUMNS = (
    "database",
    "schemaname",
    "objects",
    "unknown",
    "size_bytes",
    "table_bytes",
    "index_bytes",
    "bloat_bytes",
)
SORTED = ("name", *bloat_rows.COLUMNS)
KINDS = {"tables": ("r", "m", "t"), "indexes": ("i",)}
"""relkind of what a tab shows, of others all."""
WINDOW = "24h"
"""Shown by default: bloat is read each hour."""
TOP = 4
"""Objects with a line of their own in the chart."""
LARGE_BYTES = 1024**2
"""Wasted by less, nobody's line in the chart."""
Lines = Listing[BloatRow] | Listing[SchemaRow]
"""What a tab lists."""


class DrawnBloatRow(BloatRow):
    """An object as a line of the page."""

    spark: list[float | None]  # the course of its wasted bytes


class BlindRow(TypedDict):
    """A database of which nothing is known."""

    database: str
    objects: int  # that are hidden


@require_safe
def bloat(request: PageRequest, name: str) -> HttpResponseBase:
    """Show wasted bytes, their history, and the tables and indexes that waste most."""
    target, window = get_target(request, name), window_of(request, WINDOW)
    findings = judge.find(target, None if window.is_live else window.end)
    tab = chosen(request, "tab", TABS, "all")
    facts = facts_of(target, window, findings)
    if tab == "schemas":
        schemas = by_schema(request, facts.groups)
        exported = table_response(request, "bloat", SCHEMA_COLUMNS, schemas.matching)
        return exported or page(request, target, window, facts, schemas, schemas.rows)
    shown = listing(request, target, window, facts, tab)
    exported = table_response(request, "bloat", bloat_rows.COLUMNS, shown.matching)
    return exported or page(
        request, target, window, facts, shown, with_sparks(target, window, shown.rows)
    )


@dataclass(frozen=True)
class Facts:
    """What the page says of all objects together."""

    groups: list[GroupRow]
    grown: bloat_rows.Grown
    worst: list[BloatRow]  # what wastes most, most first
    findings: Sequence[Finding]

    @property
    def measured(self) -> set[int]:
        """The ids of the databases where pgstattuple works."""
        return bloat_rows.measured_in(self.groups)


def facts_of(target: Target, window: Window, findings: Sequence[Finding]) -> Facts:
    """Return what the page says of all objects together."""
    groups = bloat_groups.groups_of(target, window)
    grown = bloat_rows.growth_of(target, window)
    rows = read_worst(target, window, [group["database_id"] for group in groups])
    measured = bloat_rows.measured_in(groups)
    worst = bloat_rows.complete(target, window, rows, grown, findings, measured=measured)
    return Facts(groups, grown, worst, findings)


def read_worst(target: Target, window: Window, database_ids: Iterable[int]) -> list[dict[str, Any]]:
    """Return the objects of some databases that waste most, most first, as last read."""
    most = objects.Order(objects.column("bloat_bytes"), greatest_first=True)
    mine = objects.among("database_id", sorted(set(database_ids)))
    return bloat_rows.objects_of(target, window).rows(mine, order=[most], limit=TOP)


def groups_of_tab(groups: Sequence[GroupRow], tab: str) -> list[GroupRow]:
    """Return the groups of one of `TABS`."""
    kinds = KINDS.get(tab)
    return [group for group in groups if kinds is None or group["relkind"] in kinds]


def grew(grown: bloat_rows.Grown) -> list[tuple[int, int]]:
    """Return the keys of what grew in the window."""
    return [key for key, change in grown.items() if round(change.grown) > 0]


def listing(
    request: PageRequest, target: Target, window: Window, facts: Facts, tab: str
) -> Listing[BloatRow]:
    """Return the objects that the query asks for; by default what wastes or grew most first."""
    databases = {pk: one.datname for pk, one in databases_of(target, window).items()}
    read_at = read_at_of(target, window, "bloat")
    wanted = request.GET.get("database", "")
    conditions = [
        objects.among("database_id", [pk for pk in databases if wanted in {"", databases[pk]}])
    ]
    if tab in KINDS:
        conditions.append(objects.among("relkind", KINDS[tab]))
    if tab == "growers":
        conditions.append(objects.among_keys(grew(facts.grown)))
    if q := sought_in(request):
        named = [pk for pk, name in databases.items() if q.casefold() in name.casefold()]
        conditions.append(
            objects.any_of(
                objects.containing(q, "schemaname", "indexrelname"),
                objects.containing(q, "schemaname", "relname"),
                objects.among("database_id", named),
            )
        )
    by_name = sorted(databases, key=lambda pk: databases[pk].casefold())
    growth = {key: round(change.grown) for key, change in facts.grown.items()}
    return listing_from(
        request,
        bloat_rows.objects_of(target, window),
        *conditions,
        sort=sort_of(request, SORTED, "-growth_bytes" if tab == "growers" else "-bloat_bytes"),
        orders={
            **bloat_rows.ORDERS,
            "database": objects.place_in("database_id", by_name),
            "read_at": objects.place_in("database_id", sorted(read_at, key=lambda pk: read_at[pk])),
            "growth_bytes": objects.value_of(growth),
        },
        complete=lambda rows: complete(target, window, facts, rows),
        then=[objects.Order(objects.column("size_bytes"), greatest_first=True)],
    )


def complete(
    target: Target, window: Window, facts: Facts, rows: Sequence[Mapping[str, Any]]
) -> list[BloatRow]:
    """Return objects as read as the page shows them."""
    return bloat_rows.complete(
        target, window, rows, facts.grown, facts.findings, measured=facts.measured
    )


def by_schema(request: PageRequest, groups: Sequence[GroupRow]) -> Listing[SchemaRow]:
    """Return the schemas that the query asks for, what wastes most first."""
    return listing_of(
        request,
        bloat_groups.by_schema(
            group
            for group in groups
            if request.GET.get("database") in {None, "", group["database"]}
        ),
        columns=SCHEMA_COLUMNS,
        default="-bloat_bytes",
        searched=lambda row: f"{row['database']} {row['schemaname']}",
    )


def page(
    request: PageRequest,
    target: Target,
    window: Window,
    facts: Facts,
    shown: Lines,
    rows: Sequence[DrawnBloatRow] | Sequence[SchemaRow],
) -> HttpResponse:
    """Render the page around a listing and the rows of it that are shown."""
    tab = request.GET.get("tab") or "all"
    groups = facts.groups
    known = any(group["method"] for group in groups)
    total = read_gauges("bloat", target.pk, window, ["bloat_bytes"]) if known else None
    names = {group["database_id"]: group["database"] for group in groups}
    charted = lines_of(request, target, window, facts, tab)
    context: dict[str, Any] = {
        "findings": [one for one in facts.findings if SUBJECTS.get(one.advisor) == "bloat"],
        "verdict": verdict(target, window, facts),
        "objects_count": bloat_groups.count_objects(groups),
        "known": known,
        "listing": shown,
        "sort": shown.sort,
        "tab": tab,
        "heading": "Schemas" if tab == "schemas" else "Tables and indexes",
        "tabs": [(key, text, count_of(facts, key)) for key, text in TABS.items()],
        "databases": sorted(set(names.values())),
        "blind": blind_in(facts),
        "unmeasured": sorted(name for pk, name in names.items() if pk not in facts.measured),
        "not_judged": not_judged(facts),
        "tiles": tiles(target, window, facts, total),
        "chart": chart_of(target, window, charted) if known else None,
        "rows": rows,
        "offers": offered(target.major),
        "may": access.permissions_of(request.user, target),
    }
    return render_page(
        request,
        "bloat.html",
        context,
        page="bloat",
        target=target,
        window=window,
        reads=("bloat",),
        findings=facts.findings,
    )


def count_of(facts: Facts, tab: str) -> int:
    """Return how many lines a tab has."""
    if tab == "schemas":
        return len({(group["database"], group["schemaname"]) for group in facts.groups})
    if tab == "growers":
        return len(grew(facts.grown))
    return bloat_groups.count_objects(groups_of_tab(facts.groups, tab))


def blind_in(facts: Facts) -> list[BlindRow]:
    """Return the databases of which nothing is known."""
    hidden: dict[str, int] = {}
    for group in facts.groups:
        unread = group["not_estimated"] == "unreadable" and group["method"] is None
        if unread and group["database_id"] not in facts.measured:
            hidden[group["database"]] = hidden.get(group["database"], 0) + group["objects"]
    return [{"database": name, "objects": count} for name, count in sorted(hidden.items())]


def not_judged(facts: Facts) -> str:
    """Return that of some objects nothing is known; '' where all are judged."""
    unknown = dict(bloat_groups.methods_of(facts.groups)).get("not known", 0)
    return f"Of {words.count(unknown, 'object')} nothing is known." if unknown else ""


def verdict(target: Target, window: Window, facts: Facts) -> Verdict:
    """Return the verdict of the findings; where nothing is known of bloat, that.

    What a database costs that is not read stands beside it and replaces nothing.
    """
    judged = tell_verdict(
        target, facts.findings, page="bloat", at=None if window.is_live else window.end
    )
    is_read = judged.level in {"good", "notice"} or judged.apart is not None
    if judged.finding is not None or not is_read:
        return judged
    if not any(group["method"] for group in facts.groups):
        text = "How much is wasted is not known: there are no statistics that may be read, and nothing is measured."
        return replace(judged, level="unknown", text=text)
    waste = bloat_groups.sum_waste(facts.groups) or 0
    text = judged.text
    if waste >= LARGE_BYTES:
        largest = facts.worst[0]
        figure, size = " ".join(words.size_parts(waste)), largest["bloat_bytes"] or 0
        share = " ".join(words.size_parts(size))
        text = f"{text} {figure} are wasted in all, {share} of them by {largest['label']}."
    missing = not_judged(facts)
    if not missing:
        return replace(judged, text=text)
    text = text.replace("No table or index wastes", "No table or index that is judged wastes")
    return replace(judged, level="unknown", text=f"{text} {missing}")


def with_sparks(target: Target, window: Window, rows: list[BloatRow]) -> list[DrawnBloatRow]:
    """Return the rows of one page of the table with the course of their wasted bytes."""
    keys = [{"database_id": row["database_id"], "relid": row["relid"]} for row in rows]
    lines = draw_sparks("bloat", target.pk, window, "bloat_bytes", keys)
    return [{**row, "spark": line} for row, line in zip(rows, lines, strict=True)]


def lines_of(
    request: PageRequest, target: Target, window: Window, facts: Facts, tab: str
) -> list[tuple[str, Series]]:
    """Return what the chart draws: all, and what wastes most; of the database that the query names.

    In the tab of schemas those are schemas, else objects.
    """
    chosen_one = request.GET.get("database", "")
    ids = {group["database"]: group["database_id"] for group in facts.groups}
    line = partial(read_gauges, "bloat", target.pk, window, ["bloat_bytes"])
    lines = [(chosen_one or "All", line(database_id=ids.get(chosen_one)))]
    if tab == "schemas":
        schemas = [
            one
            for one in bloat_groups.by_schema(facts.groups)
            if chosen_one in {"", one["database"]} and (one["bloat_bytes"] or 0) >= LARGE_BYTES
        ][:TOP]
        several = len({one["database"] for one in schemas}) > 1
        for one in schemas:
            label = f"{one['database']}.{one['schemaname']}" if several else one["schemaname"]
            key = in_schema(target, ids, one)
            lines.append((label, line(database_id=ids[one["database"]], key=key)))
        return lines
    worst = facts.worst
    if chosen_one in ids:
        rows = read_worst(target, window, [ids[chosen_one]])
        worst = complete(target, window, facts, rows)
    for row in worst:
        if (row["bloat_bytes"] or 0) >= LARGE_BYTES:
            drawn = line(database_id=row["database_id"], key={"relid": row["relid"]})
            lines.append((label_of(row, worst), drawn))
    return lines


def in_schema(target: Target, ids: Mapping[str, int], row: SchemaRow) -> Key:
    """Return the key of a schema's objects, also of those that are gone."""
    found = read_latest(
        "bloat",
        target.pk,
        database_id=ids[row["database"]],
        key={"schemaname": row["schemaname"]},
        gone=True,
        without=HISTORY["bloat"].sample.gauges,
    )
    return {"relid": [one["relid"] for one in found]}


def chart_of(target: Target, window: Window, drawn: Sequence[tuple[str, Series]]) -> dict[str, Any]:
    """Return the chart of wasted bytes."""
    lines = [(label, line, "bloat_bytes") for label, line in drawn]
    colours = dict(
        zip((name for name, *_ in lines), ("text", "lock", "io", "cpu", "ipc"), strict=False)
    )
    return charts.chart(
        "Wasted bytes",
        charts.joined(lines, within=window.length / timedelta(seconds=1) / POINTS / 2),
        unit="bytes",
        colours=colours,
        marks=read_marks(target.pk, window, None),
        note="bloat_bytes",
        window=window,
        since=target.created_at,
    )


def label_of(row: BloatRow, others: Sequence[BloatRow]) -> str:
    """Return an object's label, with the database where two would be alike."""
    alike = [one for one in others if one["label"] == row["label"]]
    return row["label"] if len(alike) == 1 else f"{row['database']}: {row['label']}"


def grown_most(target: Target, window: Window, facts: Facts) -> BloatRow | None:
    """Return the object that grew most in the window, None where none grew."""
    grew_most = max(grew(facts.grown), key=lambda key: facts.grown[key].grown, default=None)
    if grew_most is None:
        return None
    rows = bloat_rows.objects_of(target, window).rows(objects.among_keys([grew_most]))
    found = complete(target, window, facts, rows)
    return found[0] if found else None


def still_note(count: int, unknown: int) -> str:
    """Return what did not grow of so many objects, of some of which nothing is known."""
    if unknown:
        return "not known" if unknown == count else "nothing that is judged grew"
    return "nothing grew in this window"


def tiles(target: Target, window: Window, facts: Facts, total: Series | None) -> list[Tile]:
    """Return the headline figures."""
    groups = facts.groups
    tables, indexes = groups_of_tab(groups, "tables"), groups_of_tab(groups, "indexes")
    methods = bloat_groups.methods_of(groups)
    count, unknown = bloat_groups.count_objects(groups), dict(methods).get("not known", 0)
    grown = grown_most(target, window, facts)
    growth = grown["growth_bytes"] if grown else None
    size = sum(group["size_bytes"] or 0 for group in groups if group["method"])
    waste = bloat_groups.sum_waste(groups)
    largest = facts.worst[0] if facts.worst else None
    most = largest["bloat_bytes"] if largest else None
    return [
        Tile(
            title="Wasted",
            value=waste,
            write=figures.bytes_,
            spark=total.values["bloat_bytes"] if total else None,
            note=f"of {' '.join(words.size_parts(size))} that are judged",
        ),
        Tile(
            title="By tables",
            value=bloat_groups.sum_waste(tables),
            write=figures.bytes_,
            note="with TOAST",
        ),
        Tile(
            title="By indexes",
            value=bloat_groups.sum_waste(indexes),
            write=figures.bytes_,
            note=f"of {words.count(bloat_groups.count_objects(indexes), 'btree index')}".replace(
                "indexs", "indexes"
            ),
        ),
        Tile(
            title="Most by one",
            value=most,
            write=figures.bytes_,
            note=largest["label"] if largest and most else "nothing known",
        ),
        Tile(
            title="Judged",
            value=count - unknown,
            unit=f"of {count:,}",
            level="notice" if unknown else "",
            note=", ".join(f"{known:,} {word}" for word, known in methods),
        ),
        Tile(
            title="Grew most",
            value=growth,
            write=figures.bytes_,
            note=label_of(grown, [grown]) if grown and growth else still_note(count, unknown),
        ),
    ]
