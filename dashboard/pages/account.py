"""Who I am and what I may: rights, password, theme, log in and log out."""

from __future__ import annotations

from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from axes.helpers import get_client_ip_address, get_lockout_response
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, UsernameField
from django.contrib.auth.signals import user_login_failed
from django.contrib.auth.views import LoginView, LogoutView
from django.db.models import Sum
from django.forms import TextInput
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.frame.frame import theme_of
from dashboard.frame.requests import PageRequest, render_page
from dashboard.source import source_of
from monitors.audit import entries
from monitors.models import Grant
from monitors.people import access
from monitors.rows.rights import SameRights, together

THEMES = ("light", "dark", "system")
THEME_SECONDS = 365 * 24 * 3600


@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def account(request: PageRequest) -> HttpResponse:
    """Show who is logged in with which rights; POST changes the password."""
    credentials = {"username": request.user.get_username()}
    if request.method == "POST" and not AxesProxyHandler.is_allowed(request, credentials):
        locked: HttpResponse = get_lockout_response(request, credentials)
        return locked
    form = PasswordChangeForm(request.user, request.POST or None)
    form.fields["old_password"].widget.attrs.pop("autofocus")
    if request.method == "POST" and form.is_valid():
        form.save()
        update_session_auth_hash(request, form.user)
        entries.add("password.change", request.user.get_username(), source_of(request))
        messages.success(request, "Your password is changed; other sessions of yours are ended.")
        return redirect("account")
    if "old_password" in form.errors and request.POST.get("old_password"):
        # A guess as at the login: it counts towards the same lock.
        entries.add("password.failed", request.user.get_username(), source_of(request))
        user_login_failed.send(sender=__name__, credentials=credentials, request=request)
    context = {
        "form": form,
        "rights": rights_of(request),
        "grants": grants_of(request),
        "chosen_theme": theme_of(request),
    }
    return render_page(
        request, "account.html", context, page="account", status=400 if form.errors else 200
    )


def rights_of(request: PageRequest) -> list[SameRights]:
    """Return what the person may on the targets that they see, permissions sorted."""
    targets = access.visible_targets(request.user).select_related("environment")
    return together(
        (target, sorted(access.permissions_of(request.user, target)), ()) for target in targets
    )


def grants_of(request: PageRequest) -> list[Grant]:
    """Return the person's own grants and those of their groups."""
    grants = Grant.objects.select_related("target", "environment", "group")
    mine = grants.filter(user=request.user)
    groups = grants.filter(group__in=request.user.groups.all())
    return [*mine.order_by("role"), *groups.order_by("role")]


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Keep the chosen theme in a cookie that the server reads, so that no page flashes."""
    chosen = request.POST.get("theme", "")
    response = HttpResponseRedirect(safe_next(request))
    if chosen in THEMES[:2]:
        response.set_cookie(
            "theme",
            chosen,
            max_age=THEME_SECONDS,
            httponly=True,
            samesite="Lax",
            secure=request.is_secure(),
        )
    elif chosen == "system":
        response.delete_cookie("theme", samesite="Lax")
    return response


def safe_next(request: HttpRequest) -> str:
    """Return the posted address on this site, else the account page."""
    address = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(
        address, {request.get_host()}, require_https=request.is_secure()
    )
    return address if safe else reverse("account")


def failures_from(request: HttpRequest) -> int:
    """Return how many logins failed lately from a request's address."""
    attempts = AccessAttempt.objects.filter(
        ip_address=get_client_ip_address(request),
        attempt_time__gt=timezone.now() - settings.AXES_COOLOFF_TIME,
    )
    return attempts.aggregate(total=Sum("failures_since_start"))["total"] or 0


class LoginForm(AuthenticationForm):
    """Name and password; its errors never say which of the two was wrong."""

    # Django's own field says its limit to the browser alone; longer ones would be stored by axes.
    username = UsernameField(max_length=150, widget=TextInput(attrs={"autofocus": True}))

    error_messages = {
        "invalid_login": "The name or the password is wrong. Both are case-sensitive.",
        "inactive": "The name or the password is wrong. Both are case-sensitive.",
    }


class Login(LoginView):
    """The login page; every attempt is in the audit."""

    form_class = LoginForm
    template_name = "registration/login.html"
    redirect_authenticated_user = True
    http_method_names = ["get", "head", "post"]

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Read no password from an address that gave too many wrong ones, under whatever names."""
        if failures_from(request) >= settings.ADDRESS_FAILURE_LIMIT:
            context = {
                "username": "Every name",
                "cooloff_timedelta": settings.AXES_COOLOFF_TIME,
                "failure_limit": settings.ADDRESS_FAILURE_LIMIT,
            }
            return render(request, settings.AXES_LOCKOUT_TEMPLATE, context, status=429)
        return super().post(request, *args, **kwargs)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        """Log in, leave the event."""
        name = form.get_user().get_username()
        entries.add("login", name, source_of(self.request))
        return super().form_valid(form)

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        """Show the login again, leave the event under the name that was tried."""
        name = str(form.data.get("username", ""))[:150]
        entries.add("login.failed", name, source_of(self.request))
        response = super().form_invalid(form)
        response.status_code = 400
        return response


class Logout(LogoutView):
    """Log out, by POST."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Leave the event, end the session."""
        if request.user.is_authenticated:
            entries.add("logout", request.user.get_username(), source_of(request))
        return super().post(request, *args, **kwargs)
