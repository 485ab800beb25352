"""What nobody of ours put into the broker: a worker drops it and goes on."""

from __future__ import annotations

import base64
import copy
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

REAL = GOOD | {
    "headers": {
        "lang": "py",
        "task": "monitors.tasks.snapshot",
        "id": "of-howdah",
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": "1",
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "1@here",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        "compression": None,
    }
}
"""As Celery writes it, for a task of ours, which fails at once since its arguments are missing."""
DEEP: Any = []
for _ in range(900):
    DEEP = [DEEP]
MISSING = object()
VALUES: list[Any] = [MISSING, None, True, 0, -1, 5, 1e308, float("nan"), "", "text", "\ud800"]
VALUES += ["long" * 50_000, "2026-13-45", [], [1], [1, 2, 3], {}, {"a": 1}, {"a": [{}]}, DEEP]
BODIES: list[Any] = [[], {"a": 1}, None, 5, "abc", [[], {}], [[], {}, {}, {}], [{}, [], {}]]
BODIES += [[5, {}, {}], [[], 5, {}], [[], {}, 5], [[], {}, {"chord": 5}], [[], {}, {"errbacks": 5}]]
BODIES += [[[], {}, {"chain": [[]]}], [[], {}, None], {"a": 1, "b": 2, "c": 3}, {"args": 5}, DEEP]
BODIES += [{"task": "monitors.tasks.snapshot"}, {"task": "monitors.tasks.snapshot", "id": []}]


def with_body(message: dict[str, Any], body: Any) -> dict[str, Any]:
    """The message with another body."""
    return message | {"body": base64.b64encode(json.dumps(body).encode()).decode()}


def altered() -> Iterator[dict[str, Any]]:
    """A real message with one field missing or with each value; then with each body."""
    for names in paths(REAL):
        for value in VALUES:
            message = copy.deepcopy(REAL)
            *outer, last = names
            folder: Any = message
            for name in outer:
                folder = folder[name]
            folder.pop(last)
            if value is not MISSING:
                folder[last] = value
            yield message
    nameless = REAL | {"headers": {}}
    yield from (with_body(message, body) for message in (REAL, nameless) for body in BODIES)


def paths(folder: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The names that lead to each field, at every depth."""
    for name, value in folder.items():
        yield (name,)
        if isinstance(value, dict):
            yield from ((name, *more) for more in paths(value))


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


def test_a_message_with_one_odd_field_costs_itself_alone(
    worker: Child, prefix: str, broker_url: str, eventually: Callable[..., None]
) -> None:
    broker: Any = redis.Redis.from_url(broker_url)
    key, taken = f"{prefix}:{QUEUE}", f"{prefix}:unacked"
    for number, message in enumerate(altered()):
        if message.get("properties") == REAL["properties"]:
            message["properties"] = REAL["properties"] | {"delivery_tag": str(number)}  # type: ignore[operator]
        broker.lpush(key, json.dumps(message))

    def is_over() -> bool:
        return worker.died or not (broker.llen(key) or broker.hlen(taken))

    ended = processes.wait_until(is_over, seconds=120, pause=0.3)

    left = [json.loads(message)[0] for message in broker.hvals(taken)]
    assert ended, (broker.llen(key), [str(message)[:600] for message in left])
    assert not worker.died, processes.last_lines(worker.log, 3)
    last = copy.deepcopy(REAL)
    last["headers"] = REAL["headers"] | {"id": "the-last"}  # type: ignore[operator]
    broker.lpush(key, json.dumps(last))
    eventually(lambda: "monitors.tasks.snapshot[the-last]" in worker.log.read_text(), seconds=40)
    dropped = [line for line in worker.log.read_text().splitlines() if "none of Howdah's" in line]
    assert len(dropped) > len(VALUES)
    assert not [line for line in dropped if "traceback" in line]


def test_nobody_commands_a_worker_through_the_broker(
    worker: Child, prefix: str, broker_url: str, eventually: Callable[..., None]
) -> None:
    broker: Any = redis.Redis.from_url(broker_url)
    broker.lpush(f"{prefix}:{QUEUE}", json.dumps(GOOD))
    eventually(lambda: worker.died or not broker.llen(f"{prefix}:{QUEUE}"), seconds=40)

    assert not worker.died, processes.last_lines(worker.log)
    assert broker.pubsub_numpat() == 0
