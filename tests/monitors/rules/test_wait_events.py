"""What a wait event means, in a sentence, on every version."""

from __future__ import annotations

import pytest

from monitors.rules.wait_events import EVENTS, TYPES, explain
from tests import servers
from tests.servers import Server


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("Lock", "transactionid", "the same row to end"),
        ("IPC", "BufferIO", "another backend just reads"),  # as 16 spells BufferIo
        ("IO", "WALSync", "safely on disk"),
        ("IO", "SomethingNew", "a file to be read or written"),
        ("Lock", None, "a lock"),
    ],
)
def test_an_event_is_explained_and_an_unknown_one_by_its_type(
    kind: str, name: str | None, words: str
) -> None:
    assert words in explain(kind, name)


def test_who_waits_for_nothing_or_for_something_unheard_of_is_told_nothing() -> None:
    assert explain(None, None) == explain("Daydream", "Elephants") == ""


@pytest.mark.pg(">=17")
def test_every_event_that_is_named_exists_and_every_type_is_explained(server: Server) -> None:
    with server.connect() as connection:
        rows = connection.execute("SELECT type, name FROM pg_wait_events").fetchall()
    known, kinds = set(rows), {kind for kind, _ in rows}

    missing = {event for event in EVENTS if event not in known}
    assert kinds - {"InjectionPoint"} <= set(TYPES)
    # What only some of these versions have; the rest of EVENTS each of them has.
    assert missing <= {
        ("Buffer", "BufferCleanup"),  # 19
        ("IO", "AioIoCompletion"),  # 18
        ("IO", "CopyFromRead"),  # 19
        ("IO", "CopyToWrite"),  # 19
        ("Timeout", "CommitDelay"),  # 19
        ("LWLock", "BufferContent"),  # up to 18
    }
    if server.major == servers.PREPARED:
        assert missing <= {("LWLock", "BufferContent")}
