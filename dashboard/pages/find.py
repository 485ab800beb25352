"""What the finder looks up on the server: tables and statements by words of their text."""

from __future__ import annotations

from typing import Any, TypedDict

from django.db.models import Q, QuerySet
from django.db.models.functions import Left
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.frame.requests import PageRequest
from monitors.advisor import table_name
from monitors.models import HISTORY, Database, Target
from monitors.people import access
from monitors.rows import statements as statement_rows

MOST = 8
"""Of each kind: who looks for more types another word."""

SHORTEST = 2
"""Letters: fewer would match nearly everything."""


class FoundTable(TypedDict):
    """A table whose name fits."""

    name: str
    target: Target
    database: Database
    relid: int


class FoundStatement(TypedDict):
    """A statement whose text fits."""

    pk: int
    text: str  # its beginning
    target: Target
    usename: str | None  # None: not read yet


@require_safe
def find(request: PageRequest) -> HttpResponse:
    """Answer with the lines for the finder: of one target where the query names it, else of all."""
    words = request.GET.get("q", "").split()
    targets = access.visible_targets(request.user)
    if name := request.GET.get("target"):
        targets = targets.filter(name=name)
    known = {target.pk: target for target in targets}
    asked = sum(map(len, words)) >= SHORTEST and known
    context = {
        "tables": tables(words, known) if asked else [],
        "statements": statements(words, known) if asked else [],
    }
    return render(request, "find.html", context)


def tables(words: list[str], targets: dict[int, Target]) -> list[FoundTable]:
    """Return tables whose schema and name hold every word."""
    rows = holding("tables", words, targets, ("schemaname", "relname"))
    found = rows.filter(relkind__in=["r", "m"]).order_by("relname", "schemaname")[:MOST]
    databases = Database.objects.in_bulk({row.database_id for row in found})
    return [
        {
            "name": table_name({"schemaname": row.schemaname, "relname": row.relname}),
            "target": targets[row.target_id],
            "database": databases[row.database_id],
            "relid": row.relid,
        }
        for row in found
        if row.database_id in databases
    ]


def statements(words: list[str], targets: dict[int, Target]) -> list[FoundStatement]:
    """Return statements whose text holds every word."""
    rows = holding("statements", words, targets, ("query",)).order_by("-total_exec_time")
    found = rows.annotate(text=Left("query", statement_rows.PREVIEW))
    return [
        {"pk": pk, "text": text, "target": targets[target_id], "usename": usename}
        for pk, text, target_id, usename in found.values_list("pk", "text", "target_id", "usename")[
            :MOST
        ]
    ]


def holding(
    probe: str, words: list[str], targets: dict[int, Target], columns: tuple[str, ...]
) -> QuerySet[Any]:
    """Return the latest rows of a probe in one of whose columns each word stands."""
    rows = HISTORY[probe].latest._default_manager.filter(target_id__in=targets, gone_at=None)
    for word in words:
        either = Q()
        for column in columns:
            either |= Q(**{f"{column}__icontains": word})
        rows = rows.filter(either)
    return rows
