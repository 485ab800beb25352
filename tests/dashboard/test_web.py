"""The web server as it is started: what it refuses, and what every answer carries."""

from __future__ import annotations

import http.cookiejar
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from dashboard.embedded import processes
from dashboard.embedded.processes import ROOT
from dashboard.logs import JSONFormatter
from tests.people import PASSWORD
from tests.servers import Server

# As bin/up starts it.
WEB = [str(Path(sys.executable).parent / "granian"), "dashboard.wsgi:application"]
WEB += ["--interface", "wsgi", "--host", "127.0.0.1", "--no-ws", "--blocking-threads", "4"]


@pytest.mark.parametrize("key", [None, "", "unset-and-refused-by-the-web-server"])
def test_the_web_refuses_the_key_that_everybody_knows(key: str | None) -> None:
    known = {name: value for name, value in os.environ.items() if name != "SECRET_KEY"}
    done = subprocess.run(
        [*WEB, "--port", str(processes.free_port())],
        cwd=ROOT,
        env=known if key is None else {**known, "SECRET_KEY": key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert "SECRET_KEY is missing" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/login/", "/", "/healthz/live", "/no/such/page"])
def test_no_other_site_may_embed_an_answer(address: str) -> None:
    answer = Client().get(address)

    assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer["Cross-Origin-Opener-Policy"] == "same-origin"


def test_behind_tls_browsers_remember_it_for_two_years() -> None:
    code = (
        "from django.conf import settings as s; print(s.SECURE_HSTS_SECONDS, s.SECURE_HSTS_PRELOAD)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "HOWDAH_TLS": "true"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == [str(2 * 365 * 24 * 3600), "True"]


def names_of_cookies(key: str, **more: str) -> list[str]:
    """Return the names of both cookies of an installation with such a SECRET_KEY."""
    code = "from django.conf import settings as s; print(s.SESSION_COOKIE_NAME, s.CSRF_COOKIE_NAME)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "SECRET_KEY": key, **more},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize(("tls", "prefix"), [("false", ""), ("true", "__Host-")])
def test_cookies_have_a_name_of_their_own_in_each_installation(tls: str, prefix: str) -> None:
    one, again, other = (
        names_of_cookies(key, HOWDAH_TLS=tls) for key in ("a" * 50, "a" * 50, "b" * 50)
    )

    assert one == again
    assert not {*one} & {*other}
    for found in (one, other):
        assert re.fullmatch(
            rf"{prefix}sessionid_([0-9a-f]{{8}}) {prefix}csrftoken_\1", " ".join(found)
        )


@contextmanager
def web(log: Path, ready: str = "/login/", **more: str) -> Iterator[int]:
    """Run the web server with the words of the Dockerfile; gives its port."""
    port = processes.free_port()
    words = json.loads((ROOT / "Dockerfile").read_text().rpartition("CMD ")[2])
    words[0] = str(Path(sys.executable).parent / words[0])
    words[words.index("8000")] = str(port)
    child = processes.start("web", words, log=log, env={**os.environ, **more})
    try:
        assert processes.wait_until(lambda: status_of(port, ready) == 200, seconds=60)
        yield port
    finally:
        child.stop()


def status_of(
    port: int,
    address: str,
    timeout: float = 5,
    host: str = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
) -> int:
    """Return what a GET answers, 0 where nothing does."""
    with suppress(OSError):
        try:
            url = f"http://127.0.0.1:{port}{address}"
            asked = urllib.request.Request(url, headers={"Host": host, **(headers or {})})
            return int(urllib.request.urlopen(asked, timeout=timeout).status)
        except urllib.error.HTTPError as error:
            return error.code
    return 0


@pytest.mark.django_db(transaction=True)
def test_a_header_without_a_hyphen_has_no_other_spelling(embedded: Server, tmp_path: Path) -> None:
    name = str(connection.settings_dict["NAME"])
    more = {
        "DATABASE_URL": f"{embedded.superuser_dsn.removesuffix('/postgres')}/{name}",
        "HOWDAH_TLS": "true",
        "HOWDAH_PROTO_HEADER": "XForwardedProto",
    }
    with web(tmp_path / "web.log", ready="/healthz/live", **more) as port:
        said = {
            header: status_of(port, "/login/", headers={header: "https"})
            for header in ("XForwardedProto", "X-Forwarded-Proto", "X_Forwarded_Proto")
        }

    # Who is not taken for one over TLS is sent on to https, where nobody listens.
    assert said == {"XForwardedProto": 200, "X-Forwarded-Proto": 0, "X_Forwarded_Proto": 0}


@pytest.mark.django_db(transaction=True)
def test_a_sign_of_life_waits_behind_no_viewer(embedded: Server, tmp_path: Path) -> None:
    name = str(connection.settings_dict["NAME"])
    url = f"{embedded.superuser_dsn.removesuffix('/postgres')}/{name}"
    with (
        web(tmp_path / "web.log", DATABASE_URL=url) as port,
        embedded.connect(dbname=name, autocommit=False) as lock,
    ):
        lock.execute("LOCK TABLE monitors_workerbeat IN ACCESS EXCLUSIVE MODE")
        viewers = [
            threading.Thread(target=status_of, args=(port, "/healthz/ready", 60)) for _ in range(12)
        ]
        for viewer in viewers:
            viewer.start()
        assert processes.wait_until(lambda: status_of(port, "/login/", 1) == 0, seconds=10)

        took = []
        for _ in range(20):
            began = time.monotonic()
            assert status_of(port, "/healthz/live") == 200
            took.append(time.monotonic() - began)

        assert max(took) < 1, took
        lock.rollback()
        for viewer in viewers:
            viewer.join()


@pytest.mark.django_db(transaction=True)
def test_a_login_to_one_installation_ends_no_session_of_another(
    embedded: Server, tmp_path: Path
) -> None:
    password = PBKDF2PasswordHasher().encode(PASSWORD, "salt", iterations=1)
    User.objects.create(username="dba", password=password)
    url = f"{embedded.superuser_dsn.removesuffix('/postgres')}/{connection.settings_dict['NAME']}"
    cookies = http.cookiejar.CookieJar()  # as a browser's: by host, not by port
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    with (
        web(tmp_path / "one.log", DATABASE_URL=url, SECRET_KEY="a" * 50) as one,
        web(tmp_path / "other.log", DATABASE_URL=url, SECRET_KEY="b" * 50) as other,
    ):
        for port in (one, other):
            assert log_in(browser, port) == "/"

        seen = [browser.open(f"http://127.0.0.1:{port}/account/").url for port in (one, other)]

    assert [urlsplit(address).path for address in seen] == ["/account/", "/account/"]


def log_in(browser: urllib.request.OpenerDirector, port: int) -> str:
    """Log in as `dba` and return the path that this leads to."""
    address = f"http://127.0.0.1:{port}/login/"
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', browser.open(address).read().decode())
    assert token
    form = {"username": "dba", "password": PASSWORD, "csrfmiddlewaretoken": token[1]}
    answer = browser.open(address, urlencode(form).encode())
    return urlsplit(str(answer.url)).path


def test_every_line_of_the_web_s_log_is_json(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with web(log, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none") as port:
        assert status_of(port, "/healthz/ready") == 503
        status_of(port, "/account/")

    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"at", "level", "logger", "message"} <= set(entries[-1])


def test_a_request_that_is_refused_is_one_line_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with web(log, ALLOWED_HOSTS="127.0.0.1") as port:
        assert status_of(port, "/login/?next=%00") == 400
        assert status_of(port, "/login/", host="elsewhere.example") == 400

    entries = [json.loads(line) for line in log.read_text().splitlines()]
    refused = [
        e for e in entries if "null character" in e["message"] or "HTTP_HOST" in e["message"]
    ]
    assert len(refused) == 2
    assert not [entry for entry in refused if "traceback" in entry]


def test_a_log_entry_is_one_line_whatever_is_in_it() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 0, "two\nlines %s", ("\u2028\x1b\r",), None)
    try:
        raise ValueError("of\nthree\nlines")
    except ValueError:
        record.exc_info = sys.exc_info()

    (line,) = JSONFormatter().format(record).splitlines()

    entry = json.loads(line)
    assert entry["message"] == "two\nlines \u2028\x1b\r"
    assert entry["traceback"].endswith("ValueError: of\nthree\nlines")
