"""The list of a target's jobs."""

from __future__ import annotations

from datetime import time

import pytest
from django.utils import timezone

from dashboard.pages.jobs import JobRow
from monitors.models import Job, JobRun
from tests.people import browser_of, make_target, person
from tests.typed import assert_typed

pytestmark = pytest.mark.django_db


def test_rows_are_what_their_type_says():
    target, owner = make_target(), person("dba", "dba")
    usual = {"target": target, "action": "vacuum", "opens_at": time(22), "open_minutes": 60}
    Job.objects.create(name="fresh", owner=owner, weekdays=[0], **usual)
    ran = Job.objects.create(name="nightly", owner=owner, weekdays=[1], **usual)
    now = timezone.now()
    JobRun.objects.create(job=ran, started_at=now, closes_at=now, state=JobRun.State.DONE)

    rows = browser_of(owner).get(f"/targets/{target.name}/jobs/").context["rows"]

    assert {row["last_at"] for row in rows} == {None, now}
    for row in rows:
        assert_typed(row, JobRow)
