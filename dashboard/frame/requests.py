"""What every page does with a request: its target, its window, its answer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django_htmx.middleware import HtmxDetails

from dashboard.frame import export, frame
from dashboard.source import source_of
from monitors.advisor import Finding
from monitors.audit import entries
from monitors.findings import past
from monitors.history.window import WINDOWS, Window
from monitors.kinds import POSTGRES
from monitors.models import Target
from monitors.people import access

DEFAULT_WINDOW = "1h"
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
"""Beyond these a window can't be reckoned with."""
SAFE = frozenset({"GET", "HEAD"})


class PageRequest(HttpRequest):
    """A request of somebody who has logged in."""

    htmx: HtmxDetails
    user: User


def get_target(
    request: PageRequest,
    name: str,
    permission: str = "view",
    kinds: Collection[str] = (POSTGRES,),
) -> Target:
    """Return the target; raise Http404 where the person may not even know of it.

    Also where it is of another kind than the page is for. For a page that shows the past it is the target as it was then. Raises PermissionDenied (and audits it) where it is visible, but `permission` is missing.
    """
    try:
        if permission == "manage_targets":
            return access.get_managed_target(request.user, name)
        target = access.get_visible_target(request.user, name)
    except Target.DoesNotExist:
        raise Http404 from None
    if target.kind not in kinds:
        raise Http404
    if permission != "view":
        source = request.META.get("REMOTE_ADDR", "")
        access.require(request.user, permission, target, source=source)
    window = window_of(request) if request.method in SAFE else None
    return target if window is None or window.is_live else past.as_of(target, window.end)


def moment_of(text: str) -> datetime:
    """Read epoch seconds or ISO 8601, UTC where it names no zone; raises BadRequest."""
    try:
        if text.replace(".", "", 1).isdigit():
            return datetime.fromtimestamp(float(text), UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        message = f"{text[:40]!r} is not a time. Write it as 2026-03-01T12:30Z."
        raise BadRequest(message) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not EARLIEST <= moment <= LATEST:
        message = f"{text[:40]!r} is no time of any history."
        raise BadRequest(message)
    return moment


def window_of(request: HttpRequest, default: str = DEFAULT_WINDOW) -> Window:
    """Return the window that the query names: `from` and `to`, or `window` until `at` or now.

    `default` is the length where it names none.

    Raises BadRequest for words that mean no window: a page never shows another
    time than the one that was asked for.
    """
    query, now = request.GET, timezone.now()
    if query.get("from"):
        start = moment_of(query["from"])
        end = min(moment_of(query["to"]), now) if query.get("to") else now
        if end <= start:
            message = "The window ends before it begins."
            raise BadRequest(message)
        return Window(start=start, end=end, is_live=end == now, label="")
    label = query.get("window") or default
    if label not in WINDOWS:
        message = f"A window is one of {', '.join(WINDOWS)}."
        raise BadRequest(message)
    if query.get("at"):
        at = min(moment_of(query["at"]), now)
        return Window(start=at - WINDOWS[label], end=at, is_live=False, label=label)
    return Window.last(label, now)


def render_page(  # noqa: PLR0913 - keyword only, and all but the first two are optional
    request: PageRequest,
    template: str,
    context: Mapping[str, Any],
    *,
    page: str,
    target: Target | None = None,
    window: Window | None = None,
    reads: Sequence[str] = (),
    findings: Sequence[Finding] | None = None,
    is_live: bool = False,
    database_id: int | None = None,
    status: int = 200,
) -> HttpResponse:
    """Answer with the page in its frame, or to HTMX with its partial `body` alone.

    `page` is the URL name that the rail marks; `reads` names the probes whose
    age the frame tells; without `findings` the frame reads them itself. `is_live`
    says that the page shows what was read this second for those who look;
    `database_id` that it is about that database alone.
    HTMX also gets the parts of the frame that go with the body, out of band.
    """
    window = window or window_of(request)
    full = {
        **context,
        "target": target,
        "window": window,
        "frame": frame.build(
            request,
            page=page,
            target=target,
            window=window,
            reads=reads,
            found=findings,
            is_live=is_live,
            database_id=database_id,
        ),
    }
    if request.htmx and not request.htmx.boosted and not request.htmx.history_restore_request:
        body = render_to_string(f"{template}#body", full, request)
        response = HttpResponse(body + render_to_string("_oob.html", full, request), status=status)
    else:
        response = render(request, template, full, status=status)
    patch_vary_headers(response, ["HX-Request", "Cookie"])
    return response


def table_response(
    request: HttpRequest, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> HttpResponse | StreamingHttpResponse | None:
    """Answer `format=json` or `format=csv` with all rows, audited; None for any other request.

    `columns` are the keys in order; a row may have more, which are left out.
    Raises BadRequest for another format.
    """
    wanted = request.GET.get("format", "")
    if not wanted or wanted == "html":
        return None
    if wanted not in {"json", "csv"}:
        message = "A format is json or csv."
        raise BadRequest(message)
    if request.method == "GET":
        note_export(request, name)
    write = export.json_response if wanted == "json" else export.csv_response
    return write(name, columns, rows)


def note_export(request: HttpRequest, name: str) -> None:
    """Write down who took which rows; what can't be audited is not handed out."""
    match = request.resolver_match
    entries.add(
        "export",
        request.user.get_username(),
        source_of(request),
        target_name=match.kwargs.get("name", "") if match else "",
        object_name=name,
        query=request.META.get("QUERY_STRING", "")[:500],
    )
