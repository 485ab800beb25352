"""The batches of a target: who asked for what on how many tables, and how it went."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from dashboard.frame.listing import PAGE_SIZE, Listing, chosen, page_of
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from monitors.actions import ACTIONS
from monitors.models import Batch
from monitors.rows import batches as batch_rows
from monitors.rows.batches import BatchRow

DEFAULT_WINDOW = "30d"
FILTERS = {"all": "All", "open": "Under way", "failed": "With failures"}


class LineRow(BatchRow):
    """A batch as a line of the page."""

    verb: str
    noun: str
    level: str  # how well it went so far


@require_safe
def batches(request: PageRequest, name: str) -> HttpResponseBase:
    """Show the batches of a window, newest first, or export all that the filter matches."""
    target, window = get_target(request, name), window_of(request, DEFAULT_WINDOW)
    every = batch_rows.asked_of(target).filter(
        asked_at__gte=window.start, asked_at__lt=window.end
    )  # fmt: skip
    matching = narrowed(every, chosen(request, "filter", FILTERS, "all"))
    exported = table_response(
        request, "batches", batch_rows.COLUMNS, batch_rows.read_all(matching)
    )  # fmt: skip
    if exported:
        return exported
    context = {
        "listing": listing_of(request, matching),
        "filter": request.GET.get("filter") or "all",
        "filters": [(key, text, narrowed(every, key).count()) for key, text in FILTERS.items()],
    }
    return render_page(
        request, "batches.html", context, page="target-actions", target=target, window=window
    )


def narrowed(found: QuerySet[Batch], word: str) -> QuerySet[Batch]:
    """Return those of some batches that a filter lets through."""
    if word == "open":
        return found.filter(finished_at=None)
    return batch_rows.with_failures(found) if word == "failed" else found


def listing_of(request: HttpRequest, matching: QuerySet[Batch]) -> Listing[LineRow]:
    """Return the page of the list that the query asks for."""
    count = matching.count()
    page = page_of(request, count)
    rows = batch_rows.rows_of(matching[(page - 1) * PAGE_SIZE : page * PAGE_SIZE])
    shown: list[LineRow] = [
        {
            **row,
            "verb": verb_of(row["action"]),
            "noun": noun_of(row["action"]),
            "level": level_of(row),
        }
        for row in rows
    ]
    return Listing(matching=[], rows=shown, total=count, page=page, sort="", q="")


def verb_of(name: str) -> str:
    """Return an action's verb; its name where this version does not know it."""
    return ACTIONS[name].verb if name in ACTIONS else name


def noun_of(name: str) -> str:
    """Return what an action is done to."""
    return ACTIONS[name].noun if name in ACTIONS else "object"


def level_of(row: BatchRow) -> str:
    """Return how well a batch went so far."""
    if row["failed"]:
        return "critical"
    if row["skipped"] or row["cancelled"] or row["state"] == "held":
        return "warning"
    return "good" if row["state"] == "ended" else "notice"
