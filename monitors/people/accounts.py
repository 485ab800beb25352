"""Accounts, groups and roles: every change of who may what, for pages and commands alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from monitors.audit import entries
from monitors.models import Environment, Grant, Role, Target
from monitors.people import access

LAST_ADMIN = "{name} is the last admin. Make another account admin on everything first."


class LastAdmin(Exception):
    """Afterwards nobody could manage people; its text is a sentence."""


def add(who: str, source: str, *, name: str, password: str) -> User:
    """Make an account without any right; raises ValidationError for a taken name, a weak password.

    The keys of the error are `name` and `password`.
    """
    user = User(username=name)
    try:
        user.clean_fields(exclude=["password"])
    except ValidationError as error:
        raise ValidationError({"name": error.messages}) from None
    if User.objects.filter(username=name).exists():
        message = f"There is an account {name} already."
        raise ValidationError({"name": message})
    check_password(password, user)
    user.set_password(password)
    with transaction.atomic():
        user.save()
        entries.add("person.add", who, source, object_name=name)
    return user


def check_password(password: str, user: User) -> None:
    """Raise ValidationError, with the key `password`, for a weak one."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise ValidationError({"password": error.messages}) from None


def set_password(who: str, source: str, user: User, password: str) -> None:
    """Change a password; the account's sessions end. Raises ValidationError for a weak one."""
    check_password(password, user)
    user.set_password(password)
    with transaction.atomic():
        user.save(update_fields=["password"])
        entries.add("person.password", who, source, object_name=user.username)
    end_sessions(user)


def deactivate(who: str, source: str, user: User) -> int:
    """End an account and its sessions at once; return how many. Raises LastAdmin."""
    with transaction.atomic(), one_admin_stays(last_admin(user.username)):
        user.is_active = False
        user.save(update_fields=["is_active"])
        entries.add("person.deactivate", who, source, object_name=user.username)
    return end_sessions(user)


def activate(who: str, source: str, user: User) -> None:
    """Let an account log in again, with the roles that it had."""
    user.is_active = True
    with transaction.atomic():
        user.save(update_fields=["is_active"])
        entries.add("person.activate", who, source, object_name=user.username)


def end_sessions(user: User) -> int:
    """Delete an account's sessions; return how many there were."""
    ended = [
        session.pk
        for session in Session.objects.filter(expire_date__gt=timezone.now()).iterator()
        if session.get_decoded().get("_auth_user_id") == str(user.pk)
    ]
    Session.objects.filter(pk__in=ended).delete()
    return len(ended)


def join(who: str, source: str, user: User, name: str) -> Group:
    """Put a person into a group, which is made where it does not exist; raises ValidationError."""
    group = Group.objects.filter(name=name).first() or Group(name=name)
    try:
        group.full_clean()
    except ValidationError as error:
        raise ValidationError({"group": error.messages}) from None
    with transaction.atomic():
        group.save()
        user.groups.add(group)
        entries.add("group.join", who, source, object_name=user.username, group=name)
    return group


def leave(who: str, source: str, user: User, group: Group) -> None:
    """Take a person out of a group; its roles are gone at once. Raises LastAdmin."""
    with transaction.atomic(), one_admin_stays(last_admin(user.username)):
        user.groups.remove(group)
        entries.add("group.leave", who, source, object_name=user.username, group=group.name)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Where a role holds: on a target, on an environment's targets, or on everything."""

    target: Target | None = None
    environment: Environment | None = None


def give(
    who: str, source: str, holder: User | Group, role: str, scope: Scope
) -> tuple[Grant, bool]:
    """Give a role, once; return the grant and whether it is new.

    Raises ValidationError, with the key `role`, where there is no such role.
    """
    fields = fields_of(holder, role, scope)
    with transaction.atomic():
        hold_role(role)
        grant, made = Grant.objects.get_or_create(**fields)
        if made:
            write_down("grant.add", who, source, grant)
    return grant, made


def hold_role(name: str) -> None:
    """Keep a role from being removed until the transaction ends; raises ValidationError."""
    own = Role.objects.select_for_update(no_key=True).filter(name=name)
    if name not in access.ROLES and not own:
        message = f"There is no role {name}. Known: {', '.join(access.role_sets())}."
        raise ValidationError({"role": message})


def take(who: str, source: str, grant: Grant) -> None:
    """Take a role away; it counts from the next request on. Raises LastAdmin."""
    with transaction.atomic(), one_admin_stays(last_admin(holder_of(grant))):
        write_down("grant.remove", who, source, grant)
        grant.delete()


def fields_of(holder: User | Group, role: str, scope: Scope) -> dict[str, Any]:
    """Return the columns of a grant."""
    return {
        "user": holder if isinstance(holder, User) else None,
        "group": holder if isinstance(holder, Group) else None,
        "role": role,
        "target": scope.target,
        "environment": scope.environment,
    }


def write_down(what: str, who: str, source: str, grant: Grant) -> None:
    """Put a change of rights into the audit."""
    entries.add(
        what,
        who,
        source,
        target_name=grant.target.name if grant.target else "",
        object_name=holder_of(grant),
        **described(grant),
    )


def holder_of(grant: Grant) -> str:
    """Return whose a grant is."""
    return grant.user.username if grant.user else str(grant.group)


def scope_of(grant: Grant) -> str:
    """Return where a grant holds, for people."""
    if grant.target:
        return f"target {grant.target.name}"
    return f"environment {grant.environment.name}" if grant.environment else "everything"


def described(grant: Grant) -> dict[str, Any]:
    """Return a grant as plain values: name, group (bool), role, target, environment."""
    return {
        "name": holder_of(grant),
        "group": grant.group is not None,
        "role": grant.role,
        "target": grant.target.name if grant.target else None,
        "environment": grant.environment.name if grant.environment else None,
    }


def admins() -> QuerySet[User]:
    """Return who may manage people: active, and with a role on everything that includes it.

    Also through a group. On a target or an environment that permission is never asked for.
    """
    grants = Grant.objects.filter(access.gives("manage_people"), target=None, environment=None)
    own = Q(pk__in=grants.exclude(user=None).values("user"))
    through = Q(groups__in=grants.exclude(group=None).values("group"))
    return User.objects.filter(own | through, is_active=True).distinct()


def last_admin(name: str) -> str:
    """Return why a person or group must keep what it has."""
    return LAST_ADMIN.format(name=name)


@contextmanager
def one_admin_stays(message: str) -> Iterator[None]:
    """Raise LastAdmin after a change, which is then rolled back, that leaves no admin.

    Two such changes at once wait for each other: roles of one's own, any of which may get or
    lose the permission, and the grants by which people manage people are locked.
    """
    list(Role.objects.select_for_update().order_by("pk"))
    manages = access.gives("manage_people")
    list(Grant.objects.select_for_update().filter(manages).order_by("pk"))
    had = admins().exists()
    yield
    if had and not admins().exists():
        raise LastAdmin(message)


@dataclass(frozen=True)
class Right:
    """What a person may do on a target, and by which grants."""

    target: Target
    permissions: list[str]
    grants: list[Grant]


def grants_of(user: User) -> list[Grant]:
    """Return a person's own grants and those of the groups, whether or not the account is active."""
    grants = Grant.objects.filter(Q(user=user) | Q(group__in=user.groups.all()))
    return list(
        grants.select_related("target", "environment", "user", "group").order_by("role", "pk")
    )


def rights_of(user: User) -> list[Right]:
    """Return a person's effective rights on each target where there are any, by name."""
    if not user.is_active:
        return []
    grants, sets = grants_of(user), access.role_sets()
    rights = []
    for target in Target.objects.filter(deleting_at=None).select_related("environment"):
        mine = [grant for grant in grants if holds_on(grant, target)]
        names = frozenset[str]().union(*(sets.get(grant.role, frozenset()) for grant in mine))
        if names:
            rights.append(Right(target, sorted(names), mine))
    return rights


def holds_on(grant: Grant, target: Target | None) -> bool:
    """Return whether a grant holds on a target; None: on everything."""
    if target is None:
        return grant.target_id is None and grant.environment_id is None
    if grant.target_id is not None:
        return grant.target_id == target.pk
    return grant.environment_id in {None, target.environment_id}
