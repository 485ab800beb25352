"""What nobody of ours put into the broker: a worker drops it and goes on."""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from dashboard.embedded import processes
from dashboard.embedded.processes import Child

QUEUE = "odd"
GOOD = {
    "body": base64.b64encode(json.dumps([[], {}, {}]).encode()).decode(),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"task": "monitors.tasks.nothing_of_this_name", "id": "1", "lang": "py"},
    "properties": {
        "correlation_id": "1",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": "1",
    },
}
ODD = [
    b"not JSON",
    b"\xff\xfe\x00",
    b"",
    b"[" * 100_000,
    b"null",
    b"1",
    b"[]",
    b'"text"',
    b"{}",
    b'{"properties": {}}',
    b'{"properties": []}',
    json.dumps(GOOD | {"body": "%%%"}).encode(),
    json.dumps(GOOD | {"body": 5}).encode(),
    json.dumps(GOOD | {"body": base64.b64encode(b"{").decode()}).encode(),
    json.dumps(GOOD | {"headers": None}).encode(),
    json.dumps(GOOD | {"headers": []}).encode(),
    json.dumps(GOOD | {"content-type": "application/x-python-serialize"}).encode(),
    json.dumps(GOOD | {"properties": GOOD["properties"] | {"body_encoding": "rot13"}}).encode(),  # type: ignore[operator]
    json.dumps(GOOD).encode(),
]


@pytest.fixture
def prefix() -> str:
    """Of the keys of one test's queue."""
    return f"odd-{secrets.token_hex(4)}"


@pytest.fixture
def worker(prefix: str, tmp_path: Path) -> Iterator[Child]:
    """A worker as bin/up starts it, on a queue of its own."""
    argv = [sys.executable, "-m", "celery", "-q", "-A", "dashboard", "worker", "-P", "threads"]
    argv += ["-c", "2", "-Q", QUEUE, "-n", f"{prefix}@%h", "--loglevel", "WARNING"]
    argv += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    environment = {**os.environ, "HOWDAH_PREFIX": prefix, "HOWDAH_ROLE": "requests"}
    child = processes.start("worker", argv, log=tmp_path / "worker.log", env=environment)
    yield child
    child.stop()


def test_a_message_that_is_none_of_ours_costs_itself_alone(
    worker: Child, prefix: str, broker_url: str, eventually: Callable[..., None]
) -> None:
    broker: Any = redis.Redis.from_url(broker_url)
    key = f"{prefix}:{QUEUE}"
    for message in ODD:
        broker.lpush(key, message)

        eventually(lambda: worker.died or broker.llen(key) == 0, seconds=40)

        assert not worker.died, (message[:60], processes.last_lines(worker.log))
    broker.lpush(key, json.dumps(GOOD))
    eventually(lambda: worker.died or broker.llen(key) == 0, seconds=40)
    assert not worker.died, processes.last_lines(worker.log)
    assert "nothing_of_this_name" in worker.log.read_text()
    entries = [json.loads(line) for line in worker.log.read_text().splitlines()]
    assert any("none of Howdah's was dropped" in entry["message"] for entry in entries)
