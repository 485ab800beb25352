"""Pool calculators: for figures that are typed in, and for a target with its own limits and demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from django.core.exceptions import BadRequest
from django.http import HttpResponse, JsonResponse, QueryDict
from django.http.response import HttpResponseBase
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from dashboard import curve
from dashboard.frame.frame import WINDOW_WORDS
from dashboard.frame.requests import (
    PageRequest,
    get_target,
    note_export,
    render_page,
    table_response,
    window_of,
)
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.history.window import Window
from monitors.models import Target
from monitors.rows import pools as rows
from monitors.rows.pools import AnswerRow, Measured
from monitors.rules import pool_sizes, pool_words, pools as rules, queueing
from monitors.rules.pool_words import Asked, Demand, Words
from monitors.rules.pools import Answer, Limits
from monitors.rules.queueing import Wait

QUIZ = "processes=4&pool_size=25&max_overflow=10&max_connections=100&reserved=3"
"""The worked example: four workers, each with a pool of 25 and 10, before 100 connections."""
LEVELS = {rules.FITS: "good", rules.IS_TIGHT: "warning", rules.EXCEEDS: "critical"}


class FieldRow(TypedDict):
    """A field of the form."""

    word: str
    id: str
    value: str  # as typed
    default: str  # what an empty one means
    error: str


@dataclass(frozen=True)
class Forecast:
    """How long one waits for a connection, by the size of the pool that all share."""

    demand: Demand
    waits: list[Wait]
    drawing: SafeString
    size: int | None  # that is asked about
    at_size: Wait | None
    is_drawn: bool  # whether that size is on the drawing
    enough: int | None  # from this size on next to nobody waits
    recommended: int | None


@require_safe
def calculator(request: PageRequest) -> HttpResponseBase:
    """Reckon with figures that are typed in."""
    asked = pool_words.read(words_of(request.GET))
    answers = answer_or_refuse(request, asked)
    if exported := export(request, answers):
        return exported
    context = {
        **context_of(request, asked, Limits(), answers),
        "forecast": forecast_of(asked, asked.demand, None),
    }
    return page(request, context, asked, page="pool-calculator")


@require_safe
def pools(request: PageRequest, name: str) -> HttpResponseBase:
    """Reckon with a target's own limits, beside its use and its measured demand."""
    target, window = get_target(request, name), window_of(request)
    limits = rows.limits_of(target, window)
    asked = pool_words.read(words_of(request.GET), limits)
    answers = answer_or_refuse(request, asked)
    if exported := export(request, answers):
        return exported
    measured, traffic = rows.measure(target, window), rows.traffic_of(target, window)
    demand = asked.demand or measured.busiest
    context = {
        **context_of(request, asked, limits or Limits(), answers),
        "limits": limits,
        "databases": rows.database_limits(target, window),
        "lines": lines_of(asked, answers, measured.recommended),
        "measured": measured,
        "traffic": traffic,
        "mistakes": rules.mistakes_in(traffic),
        "is_typed": asked.demand is not None,
        "forecast": forecast_of(asked, demand, measured.recommended),
        "use_tiles": use_tiles(traffic, measured),
    }
    return page(request, context, asked, page="pools", target=target, window=window)


def page(
    request: PageRequest,
    context: dict[str, Any],
    asked: Asked,
    *,
    page: str,
    target: Target | None = None,
    window: Window | None = None,
) -> HttpResponse:
    """Render either page; what is typed without a meaning is a bad request, while one types it is not."""
    return render_page(
        request,
        "pools.html",
        context,
        page=page,
        target=target,
        window=window,
        reads=("sessions", "databases") if target else (),
        status=400 if asked.wrong and not request.htmx else 200,
    )


def answer_or_refuse(request: PageRequest, asked: Asked) -> list[AnswerRow]:
    """Return the answer's rows; raises BadRequest where a program asks what has no meaning."""
    if asked.wrong and request.GET.get("format"):
        raise BadRequest(asked.error)
    return rows.answer_rows(asked)


def export(request: PageRequest, answers: Sequence[AnswerRow]) -> HttpResponseBase | None:
    """Answer `format=json` with the one answer as an object, {} where nothing is asked; CSV has a row of it."""
    if request.GET.get("format") != "json":
        return table_response(request, "pools", rows.COLUMNS, answers)
    if request.method == "GET":
        note_export(request, "pools")
    return JsonResponse(answers[0] if answers else {})


def context_of(
    request: PageRequest, asked: Asked, limits: Limits, answers: Sequence[AnswerRow]
) -> dict[str, Any]:
    """Return what both pages show: the form, the answer, and the worked example."""
    found = rules.answer(asked.question) if answers else None
    pooler = [once.word for once in pool_words.PGBOUNCER_NUMBERS]
    quiz = pool_words.read(words_of(QueryDict(QUIZ)))
    typed = words_of(request.GET)
    return {
        "asked": asked,
        "answer": found,
        "row": answers[0] if answers else None,
        "level": LEVELS[found.verdict] if found else "unknown",
        "first": first_of(found),
        "too_many": -found.left if found else 0,
        "checks": sorted(found.checks, key=lambda check: check.share) if found else [],
        "tiles": tiles(asked, found) if found else [],
        "lines": lines_of(asked, answers, None),
        "services": service_fields(typed, asked),
        "once": once_fields(typed, asked, limits),
        "has_pgbouncer": any(request.GET.get(one) or (one, 0) in asked.wrong for one in pooler),
        "kept_words": [(word, request.GET[word]) for word in WINDOW_WORDS if request.GET.get(word)],
        "quiz": rows.answer_rows(quiz)[0],
        "quiz_query": QUIZ,
    }


def first_of(found: Answer | None) -> rules.Check | None:
    """Return the limit that breaks first."""
    if found is None:
        return None
    return next(check for check in found.checks if check.limit == found.first_limit)


def lines_of(
    asked: Asked, answers: Sequence[AnswerRow], pooled: int | None
) -> list[pool_sizes.Lines]:
    """Return what to paste, [] without an answer; `pooled` is the pool that is recommended for all."""
    if not answers:
        return []
    size = answers[0]["per_process_with_room"] or answers[0]["per_process_at_most"]
    return pool_sizes.lines_for(asked.question, size, pooled)


# The form


def words_of(query: QueryDict) -> Words:
    """Return a query's words, each with all of its values."""
    return {word: [str(value) for value in values] for word, values in query.lists()}


def field_of(typed: Words, asked: Asked, word: str, default: object, number: int) -> FieldRow:
    """Return one field: what was typed, what it means where that is nothing, and what is wrong."""
    return {
        "word": word,
        "id": f"{word}-{number}",
        "value": pool_words.typed(typed, word, number),
        "default": "" if default is None else str(default),
        "error": asked.wrong.get((word, number), ""),
    }


def service_fields(typed: Words, asked: Asked) -> list[dict[str, FieldRow]]:
    """Return the fields of each service, and those of one more."""
    defaults = {one.word: one.default for one in pool_words.SERVICE_NUMBERS}
    found = enumerate(pool_words.rows_of(typed))
    filled = [number for number, row in found if any(row.values())]
    count = max(filled, default=-1) + 2
    return [
        {
            word: field_of(typed, asked, word, defaults.get(word), number)
            for word in pool_words.SERVICE
        }
        for number in range(min(count, pool_words.MANY))
    ]


def once_fields(typed: Words, asked: Asked, limits: Limits) -> dict[str, FieldRow]:
    """Return the fields that stand once, by word; those of the server have its own figures."""
    numbers = (*pool_words.SERVER_NUMBERS, *pool_words.PGBOUNCER_NUMBERS)
    defaults: dict[str, object] = {one.word: one.default for one in numbers}
    defaults |= {"max_connections": limits.max_connections, "reserved": limits.reserved}
    return {word: field_of(typed, asked, word, defaults.get(word), 0) for word in pool_words.ONCE}


# What is shown


def tiles(asked: Asked, found: Answer) -> list[Tile]:
    """Return the headline figures of an answer."""
    limits = asked.question.limits
    first = first_of(found)
    level = LEVELS[found.verdict]
    broken = first is not None and first.breaks
    return [
        Tile(title="Needed", value=found.needed, note="under full load"),
        Tile(
            title="Usable",
            value=found.usable,
            note=f"max_connections {limits.max_connections:,} less {limits.reserved:,} reserved",
        ),
        Tile(
            title="Left" if found.left >= 0 else "Too many",
            value=abs(found.left),
            level=level if found.left < rules.TIGHT * found.usable else "",
            note=f"of {found.usable:,} usable",
        ),
        Tile(
            title="First limit",
            value=first.share_pct if first else None,
            write=lambda value: figures.pct(value, 0),
            level=level if broken else "",
            note=f"of full load, then {found.first_limit}",
        ),
        Tile(
            title="Memory, estimated",
            value=found.memory_most_bytes,
            write=figures.bytes_,
            note=f"{words.size(found.memory_least_bytes)} at least; a sort in each at most",
        ),
    ]


def use_tiles(traffic: rules.Traffic, measured: Measured) -> list[Tile]:
    """Return how a target is connected to, now and over the days that are kept."""
    usable = "" if traffic.usable is None else f"of {traffic.usable:,} usable"
    return [
        Tile(title="Open now", value=traffic.open, note=usable),
        Tile(title="Idle now", value=traffic.idle, note="in no transaction"),
        Tile(title="Most open", value=measured.peak_open, note="in the last 7 days"),
        Tile(
            title="In transaction",
            value=measured.usual_in_xact,
            note=f"99 % of {words.count(measured.readings, 'reading')}; most "
            f"{figures.number(measured.peak_in_xact)}",
        ),
        Tile(
            title="Recommended pool",
            value=measured.recommended,
            note="for all together" if measured.cores else "for all together; no cap by cores",
        ),
    ]


def forecast_of(asked: Asked, demand: Demand | None, recommended: int | None) -> Forecast | None:
    """Return the forecast of waits, None without a load or for one that no server carries."""
    if demand is None or demand.load <= 0:
        return None
    size = asked.question.load(rules.Surge()) if asked.is_asked and not asked.wrong else None
    marked = [one for one in (size, recommended) if one]
    waits = rows.waits_of(demand, marked)
    if not waits:
        return None
    drawn = {wait.size for wait in waits}
    marks = [(one, kind) for one, kind in ((size, "now"), (recommended, "balanced")) if one]
    return Forecast(
        demand=demand,
        waits=waits,
        drawing=curve.wait_curve(
            waits,
            demand.xact_seconds,
            marks=[mark for mark in marks if mark[0] in drawn],
            label=f"Mean wait for a connection by the size of the pool, from {waits[0].size:,} "
            f"to {waits[-1].size:,} connections.",
        ),
        size=size,
        at_size=wait_at(demand, size),
        is_drawn=size in drawn,
        enough=queueing.smallest_size(demand.load),
        recommended=recommended,
    )


def wait_at(demand: Demand, size: int | None) -> Wait | None:
    """Return the wait at a size, None where there is none or it is beyond what is reckoned with."""
    if size is None or not 0 < size <= queueing.LONGEST:
        return None
    return queueing.wait_of(demand.load, demand.xact_seconds, size)
