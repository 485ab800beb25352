"""Many addresses are asked at once whether somebody takes a connection."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dashboard.embedded import processes
from monitors.pg import knock
from monitors.pg.errors import NO_ANSWER
from tests import peers
from tests.servers import Server


def test_it_is_told_of_each_address_whether_somebody_answers(embedded: Server) -> None:
    with peers.dropping() as dropped:
        silent = peers.Peer()  # it takes connections: only a login finds out that it says nothing
        doors = {
            "dropped": ("127.0.0.1", dropped),
            "unknown": ("nobody.invalid", 5432),
            "metadata": ("169.254.169.254", 80),
            "server": (embedded.host, embedded.port),
            "silent": ("127.0.0.1", silent.port),
            "refusing": ("127.0.0.1", processes.free_port()),
        }
        found = knock.unanswered(doors.values())
        silent.close()

    assert {name: found[door] for name, door in doors.items() if door in found} == {
        "dropped": NO_ANSWER,
        "unknown": "The host name does not resolve.",
        "metadata": "169.254.169.254 is a cloud's metadata service: not allowed for a target here"
        " (HOWDAH_ALLOWED_TARGET_NETWORKS).",
    }


def test_it_can_be_asked_from_a_thread_that_runs_a_loop(embedded: Server) -> None:
    async def ask() -> dict[knock.Door, str]:
        return knock.unanswered([(embedded.host, embedded.port)])

    with ThreadPoolExecutor(1) as own:  # its own thread: a browser test's may run a loop already
        assert own.submit(asyncio.run, ask()).result() == {}


def test_hundreds_are_asked_at_once() -> None:
    with peers.dropping() as port:
        began = time.monotonic()
        found = knock.unanswered([("127.0.0.1", port)] * 300)

    assert set(found) == {("127.0.0.1", port)}
    # Sixteen threads would need 56 s.
    assert time.monotonic() - began < 20


def test_the_server_writes_nothing_into_its_log(
    embedded: Server, eventually: Callable[..., None]
) -> None:
    before = embedded.log_size()

    def complaints() -> int:
        return embedded.log_text(since=before).count("incomplete startup packet")

    assert knock.unanswered([(embedded.host, embedded.port)]) == {}
    with socket.create_connection((embedded.host, embedded.port)) as later:
        later.sendall(b"\0\0")  # what is cut off is complained of, and so seen to be logged

    eventually(lambda: complaints() > 0)
    assert complaints() == 1
