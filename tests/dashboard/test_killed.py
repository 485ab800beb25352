"""The web is killed while it answers a click: its row is there whole or not at all."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.test import Client

from dashboard.embedded import processes
from monitors.models import Action, AuditEntry, Target

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "t" * 32
STUCK = """
SELECT count(*) FROM pg_locks
 WHERE NOT granted AND relation = 'monitors_auditentry'::regclass
"""
WEB = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> ALL (%s) AND backend_type = 'client backend'
"""


def url_of(database: dict[str, Any]) -> str:
    """Return the address of Django's test database."""
    login = f"{database['USER']}:{database['PASSWORD']}"
    return f"postgresql://{login}@{database['HOST']}:{database['PORT']}/{database['NAME']}"


@contextmanager
def web() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the web server as bin/up does, on the test database; gives its process and its port."""
    port = processes.free_port()
    program = Path(sys.executable).parent / "granian"
    words = ["--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--no-ws"]
    with subprocess.Popen(
        [program, "dashboard.wsgi:application", *words, "--blocking-threads", "2"],
        cwd=processes.ROOT,
        env={**os.environ, "DATABASE_URL": url_of(connection.settings_dict)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            assert processes.wait_until(lambda: answers(port), seconds=30), "no web"
            yield server, port
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)


def answers(port: int) -> bool:
    caller = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    with suppress(OSError, http.client.HTTPException), closing(caller):
        caller.request("GET", "/healthz/live")
        return status_of(caller) == 200
    return False


def status_of(caller: http.client.HTTPConnection) -> int:
    """Return the answer's status and end the connection."""
    with closing(caller), caller.getresponse() as response:
        return response.status


def click(port: int, client: Client, target: Target, key: uuid.UUID) -> http.client.HTTPConnection:
    """Send the click on a Cancel button and return without its answer."""
    fields = {
        "pid": "4711",
        "backend_start": "2026-01-01 00:00:00.000001+00",
        "query_start": "2026-01-01 00:00:01.000001+00",
        "idempotency_key": str(key),
        "csrfmiddlewaretoken": TOKEN,
    }
    session = client.cookies[settings.SESSION_COOKIE_NAME]
    cookies = f"{session.key}={session.value}; {settings.CSRF_COOKIE_NAME}={TOKEN}"
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookies}
    caller = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    address = f"/targets/{target.name}/actions/cancel_backend/"
    caller.request("POST", address, urlencode(fields), headers)
    return caller


def count(session: psycopg.Connection[Any], query: str, *values: Any) -> int:
    row = session.execute(query, values or None).fetchone()
    assert row is not None
    return int(row[0])


def sessions(eye: psycopg.Connection[Any]) -> list[int]:
    """Return the pids of all who are connected by now: ours, and threads that other tests left."""
    rows = eye.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    return [pid for (pid,) in rows.fetchall()]


def test_a_click_that_the_web_dies_under_leaves_a_whole_row_or_none(
    shop: Target, browse: Callable[[str], Client], eventually: Callable[..., None]
) -> None:
    """It dies between its row and the row's audit: neither may stay."""
    client, key = browse("operator"), uuid.uuid4()
    url = url_of(connection.settings_dict)
    with psycopg.connect(url, autocommit=True) as eye, psycopg.connect(url) as holder:
        others = sessions(eye)
        with web() as (server, port):
            # The audit can't be written for now: the click waits in the middle of its work.
            holder.execute("LOCK TABLE monitors_auditentry IN EXCLUSIVE MODE")
            caller = click(port, client, shop, key)
            eventually(lambda: count(eye, STUCK) == 1)

            os.killpg(server.pid, signal.SIGKILL)
            holder.rollback()
            caller.close()
            eventually(lambda: count(eye, WEB, others) == 0)

    assert not Action.objects.exists()
    assert not AuditEntry.objects.exists()
    # The same click again, as a person repeats it, is one row with its audit.
    with web() as (_, port):
        answered = [status_of(click(port, client, shop, key)) for _ in range(2)]
    assert answered == [302, 302]
    assert [row.idempotency_key for row in Action.objects.all()] == [key]
    assert AuditEntry.objects.count() == 1
