"""The persons of the access tests, and browsers of theirs."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from monitors.models import Environment, Grant, Role, Target

PASSWORD = "correct horse battery"
CANCEL_ONLY = "cancel-only"
"""A role of one's own."""


def make_role(name: str = CANCEL_ONLY, *permissions: str) -> Role:
    """Save a role of one's own, where there is none of its name: by default to cancel, no more."""
    includes = ["view", *(permissions or ("cancel_backend",))]
    fields = {"permissions": includes, "made_by": "root"}
    return Role.objects.get_or_create(name=name, defaults=fields)[0]


def person(name: str, *roles: str, target: Target | None = None) -> User:
    """Make somebody with roles, on one target or on everything."""
    user = User.objects.create_user(name, password=PASSWORD)
    for role in roles:
        if role == CANCEL_ONLY:
            make_role()
        Grant.objects.create(user=user, role=role, target=target)
    return user


def browser_of(user: User) -> Client:
    """Return a client in which somebody is logged in."""
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def make_target(name: str = "shop-1", **fields: Any) -> Target:
    """Save a target that nobody can reach."""
    environment = Environment.objects.get(name=fields.pop("environment", "development"))
    options = {"host": "192.0.2.1", "user": "collector", "operator_user": "operator", **fields}
    return Target.objects.create(name=name, environment=environment, **options)


HTMX = {"HX-Request": "true"}
