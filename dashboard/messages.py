"""The broker's messages: one that is none of ours costs itself, not the worker that takes it.

Source: kombu.transport.redis, whose reading of a queue lets any error out, which ends a worker.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis

log = logging.getLogger(__name__)

# Not JSON, not of the shape that kombu writes, or nested beyond reading.
NONE_OF_OURS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class Channel(redis.Channel):
    """A channel that drops what it can't read."""

    def _brpop_read(self, **options: Any) -> Any:
        """Take one message; by the time that reading it fails it is out of the queue."""
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except NONE_OF_OURS as error:
            log.error(
                "A message that is none of Howdah's was dropped (%s). Look for what else writes to"
                " this broker, or give Howdah one of its own.",
                type(error).__name__,
            )
            return True


class Transport(redis.Transport):
    """The transport whose channels drop what they can't read."""

    Channel = Channel


def use() -> None:
    """Let every redis:// address mean this transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
