"""The health addresses say which link of the chain is broken."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from monitors.models import WorkerBeat

ROLES = ("tick", "snapshots", "signals", "requests")


def beat(*roles, age=timedelta()):
    for role in roles:
        WorkerBeat.objects.create(name=f"{role}@here:1", role=role, beat_at=timezone.now() - age)


def test_live_needs_neither_login_nor_database():
    response = Client().get("/healthz/live")

    assert response.status_code == 200


@pytest.mark.django_db
def test_it_is_ready_while_every_role_beats():
    beat(*ROLES)

    response = Client().get("/healthz/ready")

    assert (response.status_code, response.json()) == (200, {"ready": True, "reasons": {}})


@pytest.mark.django_db
@pytest.mark.parametrize("missing", ROLES)
def test_it_names_the_role_that_never_beat(missing):
    beat(*(role for role in ROLES if role != missing))

    response = Client().get("/healthz/ready")

    assert response.status_code == 503
    assert list(response.json()["reasons"]) == [missing]
    assert "yet" in response.json()["reasons"][missing]


@pytest.mark.django_db
def test_a_beat_of_31_seconds_ago_is_too_old():
    beat("snapshots", "signals", "requests")
    beat("tick", age=timedelta(seconds=31))

    reasons = Client().get("/healthz/ready").json()["reasons"]

    assert list(reasons) == ["tick"]
    assert "31 s" in reasons["tick"]


@pytest.mark.django_db
def test_a_young_beat_of_another_process_of_the_role_counts():
    beat(*ROLES, age=timedelta(hours=1))
    for role in ROLES:
        WorkerBeat.objects.create(name=f"{role}@here:2", role=role, beat_at=timezone.now())

    assert Client().get("/healthz/ready").status_code == 200


@pytest.mark.django_db
def test_it_says_when_the_broker_does_not_answer(settings):
    beat(*ROLES)
    where = settings.CACHES["default"]["LOCATION"]
    broken = {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
    settings.CACHES = {"default": broken}

    response = Client().get("/healthz/ready")

    settings.CACHES = {"default": {**broken, "LOCATION": where}}
    cache.clear()
    assert response.status_code == 503
    assert list(response.json()["reasons"]) == ["broker"]


@pytest.mark.django_db
def test_it_takes_no_post():
    assert Client().post("/healthz/ready").status_code == 405
