"""The broker's messages: one that is none of ours costs itself, not the worker that takes it.

Source: kombu.transport.redis, whose reading of a queue lets any error out, which ends a worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from kombu.exceptions import SerializationError
from kombu.transport import TRANSPORT_ALIASES, redis, virtual

log = logging.getLogger(__name__)

# Not JSON, not of the shape that Celery writes, or nested beyond reading.
NONE_OF_OURS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    SerializationError,
)
NESTED = {"timelimit": list, "stamped_headers": list, "stamps": dict}
"""The headers of Celery's that are neither a text nor a number."""


class Message(virtual.Message):
    """A message of the shape that Celery gives Howdah's: raises one of NONE_OF_OURS for another.

    What is odd would else be found out by the thread that carries the task out, too late to
    give its place in the worker back.
    """

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        check_envelope(payload)
        super().__init__(payload, channel=channel, **kwargs)  # type: ignore[no-untyped-call]
        args, named, embed = self.decode()  # type: ignore[no-untyped-call]
        if not (isinstance(args, list) and isinstance(named, dict) and isinstance(embed, dict)):
            message = "The body is not [[arguments], {named arguments}, {what follows}]."
            raise TypeError(message)


class Channel(redis.Channel):
    """A channel that drops what it can't read."""

    Message = Message

    def basic_consume(
        self,
        queue: Any,
        no_ack: Any,
        callback: Callable[[Any], Any],
        consumer_tag: Any,
        **kwargs: Any,
    ) -> Any:
        """Take a queue's messages; one that fails to become a task gives its place back."""

        def take(message: Any) -> None:
            try:
                callback(message)
            except NONE_OF_OURS:
                if not message.acknowledged:
                    message.reject()
                raise

        return super().basic_consume(  # type: ignore[no-untyped-call]
            queue, no_ack=no_ack, callback=take, consumer_tag=consumer_tag, **kwargs
        )

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


def check_envelope(payload: Any) -> None:
    """Raise TypeError or LookupError unless all but the body of {"body", "headers", …} is as Celery's."""
    headers, properties = payload["headers"], payload["properties"]
    delivery = properties["delivery_info"]
    texts = [headers["task"], headers["id"], properties["delivery_tag"]]
    texts += [delivery["exchange"], delivery["routing_key"]]
    plain = (
        are_plain({name: told for name, told in headers.items() if name not in NESTED})
        and are_plain(delivery)
        and are_plain(properties | {"delivery_info": None})
    )
    nested = all(isinstance(headers.get(name) or kind(), kind) for name, kind in NESTED.items())
    json = payload["content-type"] == "application/json"
    if not (plain and nested and json and all(isinstance(text, str) for text in texts)):
        message = "A header or property is of another type than Celery's."
        raise TypeError(message)


def are_plain(values: Mapping[str, Any]) -> bool:
    """Whether each value is a text, a number or nothing."""
    return all(isinstance(value, str | int | float | None) for value in values.values())


def use() -> None:
    """Let every redis:// address mean this transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
