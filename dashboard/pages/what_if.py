"""What autovacuum would do to a table under other parameters, replayed over its own past.

Long, since one page with its form, its proof, its trade-off and its chart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict
from urllib.parse import urlencode

from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from dashboard import charts
from dashboard.frame.frame import WINDOW_WORDS
from dashboard.frame.hindrance import why_not
from dashboard.frame.requests import PageRequest, get_target, render_page, table_response, window_of
from dashboard.frame.tiles import Tile
from dashboard.templatetags import figures
from monitors import words
from monitors.history.counters import read_sums
from monitors.history.source import Series
from monitors.history.window import Window
from monitors.models import Database, Target
from monitors.people import access
from monitors.rows import replay, tables as table_rows
from monitors.rows.replay import NotEnough, Replay
from monitors.rows.tables import TableRow
from monitors.rules import autovacuum, simulator
from monitors.rules.autovacuum import CAP_MAJOR
from monitors.rules.simulator import Candidate, Outcome

COLUMNS = (
    "parameters",
    "vacuums_a_day",
    "usual_dead_tup",
    "peak_dead_tup",
    "extra_pages",
    "io_bytes_a_day",
    "work_bytes_a_day",
    "dead_bytes_a_day",
    "total_bytes_a_day",
    "is_pressed",
    "busy_pct",
    "workers_pct",
    "is_balanced",
)
"""Keys of the export: a row for what is in force, for what is tried, and for each on the trade-off."""

POINTS = 240
DAY_SECONDS = 86400
CAP = "autovacuum_vacuum_max_threshold"
"""Of 18 and newer: no table waits for more dead rows than that."""
FORM = (
    "autovacuum_vacuum_scale_factor",
    "autovacuum_vacuum_threshold",
    CAP,
    "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_vacuum_insert_threshold",
    "autovacuum_analyze_scale_factor",
    "autovacuum_analyze_threshold",
    "autovacuum_vacuum_cost_limit",
    "autovacuum_vacuum_cost_delay",
)


class OutcomeRow(TypedDict):
    """What autovacuum does to a table under some parameters."""

    options: dict[str, str]
    parameters: str  # the same in words
    vacuums_a_day: float
    usual_dead_tup: float
    peak_dead_tup: float
    extra_pages: float  # that the table grows by for want of room
    extra_bytes: float
    io_bytes_a_day: float
    work_bytes_a_day: float
    dead_bytes_a_day: float
    total_bytes_a_day: float
    is_pressed: bool  # it comes at nearly every visit of a worker
    busy_pct: float  # of one worker's time
    is_balanced: bool  # the one of the trade-off that is proposed
    kind: str  # now, tried, or '' of the trade-off


class ExportRow(OutcomeRow):
    """The same, as an export has it."""

    workers_pct: float  # of all workers' time


class ProposalRow(ExportRow):
    """One on the trade-off as a line of the page."""

    url: str  # where it is replayed
    arguments: dict[str, str]  # of the action that sets it


class FieldRow(TypedDict):
    """A field of the form."""

    name: str
    value: str  # as typed
    in_force: str
    source: str  # whose that is: table or server


@require_safe
def what_if(request: PageRequest, name: str, datid: int, relid: int) -> HttpResponseBase:
    """Replay a table's window under the parameters in force and those that the query names."""
    target, window = get_target(request, name), window_of(request)
    row = found(target, window, datid, relid)
    error, changes = "", {}
    try:
        changes = replay.parse(request.GET)
    except ValueError as wrong:
        error = str(wrong)
    done, reason = None, ""
    try:
        done = replay.replay(target, row, window, changes)
    except NotEnough as wrong:
        reason = str(wrong)
    wants_best = bool(request.GET.get("best") or request.GET.get("format"))
    candidates = replay.trade_off(target, done) if done and wants_best else []
    rows = rows_of(done, candidates, workers_of(target)) if done else []
    exported = table_response(request, "what-if", COLUMNS, rows)
    if exported:
        return exported
    context = {
        "row": row,
        "reason": reason,
        "error": error,
        "fields": fields_of(request, target, done),
        "kept_words": [(word, request.GET[word]) for word in WINDOW_WORDS if request.GET.get(word)],
        "replay": done,
        "changes": changes,
        "candidates": proposals(request, row, rows[len(rows) - len(candidates) :]),
        "drawing": drawing_of(rows) if candidates else "",
        "wants_best": wants_best,
    }
    return page(request, target, window, context, status=400 if error else 200)


def page(
    request: PageRequest, target: Target, window: Window, context: dict[str, Any], *, status: int
) -> HttpResponse:
    """Render the page around a replay, or around the reason why there is none."""
    done: Replay | None = context["replay"]
    if done is not None:
        context |= {
            "tiles": tiles(done, target),
            "chart": chart_of(done, target, window),
            "proof": done.proof,
            "verdict": replay.verdict_of(done.proof),
            "choices": simulator.CHOICES,
            "nothing_better": nothing_better(target, done),
            "is_trusted": replay.is_trusted(done.proof),
            "now": row_of(done.as_is, done.options, {}),
            "by_hand": by_hand(target, window, context["row"]),
            "why_not": why_not_set(request, target, window),
            "setting": arguments_of(context["row"], tried_of(done, context["changes"])),
        }
    return render_page(
        request,
        "what_if.html",
        context,
        page="vacuum",
        target=target,
        window=window,
        reads=("tables",),
        database_id=context["row"]["database_id"],
        status=status,
    )


def nothing_better(target: Target, done: Replay) -> str:
    """Return why no choice is proposed."""
    if not replay.is_trusted(done.proof):
        return replay.NOT_TRUSTED
    if not autovacuum.server_enabled(target.settings):
        return "Autovacuum is off on this server, so no choice does anything: turn it on first."
    return replay.NOTHING_BETTER


def drawing_of(rows: Sequence[ExportRow]) -> SafeString:
    """Return the trade-off drawn: work across, dead rows up, with what is in force and tried."""
    points = []
    for row in rows:
        kind = "balanced" if row["is_balanced"] else row["kind"]
        points.append((row["work_bytes_a_day"], row["usual_dead_tup"], kind))
    first = rows[0]
    return charts.trade_off(
        points,
        label="Work of vacuums a day across, usual dead rows up. In force: "
        f"{words.size(first['work_bytes_a_day'])} a day, {words.short(first['usual_dead_tup'])} dead rows.",
    )


def address_of(request: PageRequest, options: Mapping[str, str]) -> str:
    """Return this page's address with other parameters, in the same window."""
    kept = {word: request.GET[word] for word in WINDOW_WORDS if request.GET.get(word)}
    return f"{request.path}?{urlencode({**kept, **options})}"


def proposals(
    request: PageRequest, table: TableRow, rows: Sequence[ExportRow]
) -> list[ProposalRow]:
    """Return the trade-off's rows with where each is replayed and what sets it."""
    return [
        {
            **one,
            "url": address_of(request, one["options"]),
            "arguments": arguments_of(table, one["options"]),
        }
        for one in rows
    ]


def tried_of(done: Replay, changes: Mapping[str, str]) -> dict[str, str]:
    """Return what is tried with what switches autovacuum on; {} where nothing is tried."""
    return {**done.on, **changes} if changes else {}


def arguments_of(table: TableRow, options: Mapping[str, str]) -> dict[str, str]:
    """Return the arguments of the action that sets some parameters; {} for none."""
    if not options:
        return {}
    return {"database": table["database"], "table": table["table"], **options}


def why_not_set(request: PageRequest, target: Target, window: Window) -> str:
    """Return why the person can't set parameters from here, '' where they can."""
    may = access.permissions_of(request.user, target)
    return why_not(target, "set_autovacuum", may, is_live=window.is_live)


def by_hand(target: Target, window: Window, table: TableRow) -> int:
    """Return how often the table was vacuumed by hand in a window: the replay leaves that out."""
    key = {"relid": table["relid"]}
    sums = read_sums(
        "tables", target.pk, window, ["vacuum_count"], database_id=table["database_id"], key=key
    )
    return sum(one["vacuum_count"] for one in sums)


def workers_of(target: Target) -> int:
    """Return how many autovacuum workers a target may have."""
    return max(int(target.settings.get("autovacuum_max_workers", 3)), 1)


def found(target: Target, window: Window, datid: int, relid: int) -> TableRow:
    """Return the table's row; raises Http404 where no such table was ever read."""
    database = Database.objects.filter(target=target, datid=datid).first()
    key = {"database_id": database.pk, "relid": relid} if database else None
    tables = table_rows.tables_of(target, window, [], key) if key else []
    if not tables:
        raise Http404
    return tables[0]


def rows_of(done: Replay, candidates: Sequence[Candidate], workers: int) -> list[ExportRow]:
    """Return what is in force, what is tried, and the trade-off, as rows of the export."""
    knee = simulator.balanced(candidates)
    rows: list[OutcomeRow] = [{**row_of(done.as_is, done.options, {}), "kind": "now"}]
    if done.tried is not None:
        rows.append({**row_of(done.tried, done.chosen, done.options), "kind": "tried"})
    for one in candidates:
        rows.append({**row_of(one.outcome, one.options, {}), "is_balanced": one is knee})
    return [{**row, "workers_pct": row["busy_pct"] / workers} for row in rows]


def row_of(outcome: Outcome, options: Mapping[str, str], known: Mapping[str, str]) -> OutcomeRow:
    """Return one outcome; `parameters` are those of `options` that `known` has not."""
    chosen = {name: value for name, value in options.items() if known.get(name) != value}
    return {
        "options": chosen,
        "parameters": ", ".join(replay.spell(chosen)),
        "vacuums_a_day": outcome.vacuums_a_day,
        "usual_dead_tup": outcome.usual_dead,
        "peak_dead_tup": outcome.peak_dead,
        "extra_pages": outcome.extra_pages,
        "extra_bytes": outcome.extra_pages * simulator.PAGE_BYTES,
        "io_bytes_a_day": outcome.io_bytes_a_day,
        "work_bytes_a_day": outcome.work_bytes_a_day,
        "dead_bytes_a_day": outcome.dead_bytes_a_day,
        "total_bytes_a_day": outcome.total_bytes_a_day,
        "is_pressed": outcome.is_pressed,
        "busy_pct": 100 * outcome.busy_share,
        "is_balanced": False,
        "kind": "",
    }


def fields_of(request: PageRequest, target: Target, done: Replay | None) -> list[FieldRow]:
    """Return the form's fields: what was typed, what is in force, and whose it is."""
    own = done.options if done else {}
    return [
        {
            "name": name,
            "value": request.GET.get(name, "").strip(),
            "in_force": own.get(name, target.settings.get(name, "")),
            "source": "table" if name in own else "server",
        }
        for name in FORM
        if name != CAP or (target.major or 0) >= CAP_MAJOR
    ]


def tiles(done: Replay, target: Target) -> list[Tile]:
    """Return the headline figures of what is tried, else of what is in force."""
    shown, was = done.tried or done.as_is, done.as_is
    workers = workers_of(target)

    def note(value: str) -> str:
        return f"{value} as it is" if done.tried else "replayed as it is"

    return [
        Tile(
            title="Vacuums a day",
            value=round(shown.vacuums_a_day, 1),
            write=figures.short,
            level="warning" if shown.is_pressed else "",
            note=note(f"{was.vacuums_a_day:,.1f}")
            + ("; at nearly every visit of a worker" if shown.is_pressed else ""),
        ),
        Tile(
            title="Dead rows, usual",
            value=shown.usual_dead,
            write=figures.short,
            note=note(words.short(was.usual_dead)),
        ),
        Tile(
            title="Dead rows, peak",
            value=shown.peak_dead,
            write=figures.short,
            note=note(words.short(was.peak_dead)),
        ),
        Tile(
            title="Grown for want of room",
            value=shown.extra_pages * simulator.PAGE_BYTES,
            write=figures.bytes_,
            note=note(words.size(was.extra_pages * simulator.PAGE_BYTES)),
        ),
        Tile(
            title="Vacuum I/O a day",
            value=shown.io_bytes_a_day,
            write=figures.bytes_,
            note=note(words.size(was.io_bytes_a_day)),
        ),
        Tile(
            title="Workers' time a day",
            value=DAY_SECONDS * shown.busy_share,
            write=figures.duration,
            level="warning" if shown.late else "",
            note=busy_note(shown, was if done.tried else None, workers),
        ),
    ]


def busy_note(shown: Outcome, was: Outcome | None, workers: int) -> str:
    """Return how much of all workers' time a table takes, and what that is as it is."""
    before = ""
    if was is not None:
        seconds = DAY_SECONDS * was.busy_share
        before = f"{words.duration(seconds) if seconds else 'none'} as it is; "
    note = f"{before}{100 * shown.busy_share / workers:.2g} % of {workers} workers"
    late = f"; {shown.late:,} visits found one still at it" if shown.late else ""
    return f"{note}{late}"


def chart_of(done: Replay, target: Target, window: Window) -> dict[str, Any]:
    """Return dead rows as recorded, as replayed, and as they would have been."""
    start, seconds = done.recording.start, done.recording.seconds
    step = seconds / POINTS
    times = [start + step * (number + 1) for number in range(POINTS)]
    recorded = [(one.at, float(one.dead)) for one in done.recording.steps]
    lines = {"recorded": recorded, "replayed": done.as_is.dead}
    if done.tried is not None:
        lines["tried"] = done.tried.dead
    gaps = [(one.at - one.seconds, one.at) for one in done.recording.steps if one.ins is None]
    values = {name: greatest(line, start, step, gaps) for name, line in lines.items()}
    runs = (done.tried or done.as_is).vacuums
    return charts.chart(
        "Dead rows",
        Series(times, values),
        unit="rows",
        labels={"recorded": "Recorded", "replayed": "Replayed as it is", "tried": "Tried"},
        colours={"recorded": "text", "replayed": "io", "tried": "cpu"},
        window=window,
        since=target.created_at,
        note=f"{len(runs):,} vacuum{'' if len(runs) == 1 else 's'} in the replay",
    )


def greatest(
    line: Sequence[tuple[float, float]],
    start: float,
    step: float,
    gaps: Sequence[tuple[float, float]],
) -> list[float | None]:
    """Return the greatest value of each of `POINTS` steps; the last one holds where none is.

    None inside of a gap: nothing is replayed there.
    """
    buckets: list[float | None] = [None] * POINTS
    for moment, value in line:
        number = min(max(int((moment - start) / step), 0), POINTS - 1) if step else 0
        buckets[number] = max(value, buckets[number] or 0.0)
    last: float | None = None
    for number, bucket in enumerate(buckets):
        middle = start + step * (number + 0.5)
        if any(begin < middle < end for begin, end in gaps):
            last = buckets[number] = None
            continue
        last = bucket if bucket is not None else last
        buckets[number] = last
    return buckets
