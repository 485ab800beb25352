"""Nothing is shown to anybody who has not logged in, but what PUBLIC names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlencode, urlsplit

from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, QueryDict
from django.urls import Resolver404, resolve, reverse

from dashboard.errors import BadCookie, BadForm

PUBLIC = frozenset({"login", "healthz-live", "healthz-ready"})
"""URL names that need no login; static files are served before this is asked."""

EXPORTS = frozenset({"json", "csv"})

Handler = Callable[[HttpRequest], HttpResponse]


def same_origin_resources(get_response: Handler) -> Handler:
    """Django middleware: no page of another site may embed anything of this one."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return response

    return middleware


def words_of(given: QueryDict) -> Iterator[str]:
    """Yield every text of a query or a form: names and values."""
    for name, values in given.lists():
        yield from (name, *values)


def no_null_characters(get_response: Handler) -> Handler:
    """Django middleware: 400 for a NUL, which neither PostgreSQL's texts nor a name can hold."""

    def middleware(request: HttpRequest) -> HttpResponse:
        said = "A null character has no place in"
        if "\0" in request.path_info or any("\0" in word for word in words_of(request.GET)):
            message = f"{said} an address. Leave it out."
            raise BadRequest(message)
        if any("\0" in word for word in words_of(request.POST)):
            message = f"{said} a form. Go back and leave it out."
            raise BadForm(message)
        # `"\\000"` in quotes is one character there.
        if any("\0" in word for word in request.COOKIES.values()):
            message = f"{said} a cookie. Delete this site's cookies."
            raise BadCookie(message)
        return get_response(request)

    return middleware


def is_public(request: HttpRequest) -> bool:
    """Whether the address is one that anybody may open; an unknown one is not."""
    try:
        match = resolve(request.path_info)
    except Resolver404:
        return False
    return match.url_name in PUBLIC


def refuse(request: HttpRequest) -> HttpResponse:
    """Answer who is not logged in: to the login page, or 401 where a program asks."""
    if request.GET.get("format") in EXPORTS:
        return JsonResponse({"error": "Log in first."}, status=401)
    if request.headers.get("HX-Request") == "true":
        # A login page swapped into a table cell would help nobody.
        response = HttpResponse(status=401)
        response["HX-Redirect"] = login_url(shown_page(request))
        return response
    here = request.get_full_path() if request.method in {"GET", "HEAD"} else ""
    return HttpResponseRedirect(login_url(here))


def shown_page(request: HttpRequest) -> str:
    """Return the path and query of the page that HTMX asks from, '' where it names none."""
    try:
        seen = urlsplit(request.headers.get("HX-Current-URL", ""))
    except ValueError:  # what a browser never sends, such as http://[
        return ""
    return f"{seen.path}?{seen.query}" if seen.query else seen.path


def login_url(here: str) -> str:
    """Return the login page's address, which leads back to `here` afterwards."""
    return reverse("login") + (f"?{urlencode({'next': here})}" if here else "")


def login_required(get_response: Handler) -> Handler:
    """Django middleware: deny by default, and let no cache keep what it lets through."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if is_public(request):
            return get_response(request)
        allowed = request.user.is_authenticated
        response = get_response(request) if allowed else refuse(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response

    return middleware
