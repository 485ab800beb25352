"""How long each page of a target with 10,000 tables and 5,000 statements takes to answer.

Beside the time stands the CPU time of it, ours and the history's: what it would be
with nothing else running.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from monitors.history import partitions
from monitors.models import HISTORY, Target
from tests.bench import wide
from tests.bench.test_collection import FULL, Ours, change_some
from tests.people import person

pytestmark = [pytest.mark.bench, pytest.mark.django_db(transaction=True)]

LIMIT_MS = 200
SNAPSHOTS = 12  # an hour of the tables' rhythm
ROUNDS = 7


def test_every_page_answers_in_time(watch: Callable[..., Target]) -> None:
    report = wide.Report()
    with wide.running("wide") as server:
        wide.fill(server)
        partitions.make_ahead(timezone.now())
        target = watch(server, name="wide", dbname="shop", include=["shop"])
        ours = Ours(target)
        with wide.crowd(server):
            for _ in range(SNAPSHOTS):
                change_some(server)
                ours.run(*FULL)
            ours.run("databases", "horizon", "bloat", "settings", "progress")
        ours.session.close()
        client = Client()
        client.force_login(person("dba", "dba"))
        table = HISTORY["tables"].latest._default_manager.filter(relname="t7").values().get()
        datid = target.database_set.get(pk=table["database_id"]).datid
        pages = {
            name: reverse(name, args=[target.name])
            for name in (
                "overview",
                "activity",
                "vacuum",
                "vacuum-queue",
                "vacuum-runs",
                "horizon",
                "bloat",
                "wraparound",
                "queries",
                "settings",
                "target-findings",
                "jobs",
                "target-actions",
                "batches",
            )
        }
        pages["fleet"] = reverse("fleet")
        pages["vacuum, all"] = pages["vacuum"] + "?filter=all"
        then = (timezone.now() - timedelta(seconds=20)).isoformat(timespec="seconds")
        for name in ("vacuum", "bloat", "wraparound"):
            pages[f"{name}, as it was"] = f"{pages[name]}?{urlencode({'at': then})}"
        for tab in ("indexes", "schemas", "growers"):
            pages[f"bloat, {tab}"] = f"{pages['bloat']}?tab={tab}"
        pages["table"] = reverse("table", args=[target.name, datid, table["relid"]])
        for name, address in pages.items():
            times, spent = [], []
            for _ in range(ROUNDS):
                began, cpu = time.perf_counter(), used_ms()
                assert client.get(address).status_code == 200
                times.append((time.perf_counter() - began) * 1000)
                spent.append(used_ms() - cpu)
            middle = wide.median(times)
            report.add(
                f"page {name}",
                f"{middle:.0f} ms, CPU {wide.median(spent):.0f} ms",
                f"at most {LIMIT_MS} ms",
                reached=middle <= LIMIT_MS,
            )
    print("\n" + report.text())


def used_ms() -> float:
    """Return the CPU time that this process and its session of the history have used, in ms."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
    return time.process_time() * 1000 + wide.cpu_ms(pid)
