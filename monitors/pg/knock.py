"""Whether somebody takes a connection at all, asked of hundreds of addresses at once.

No word of PostgreSQL's protocol is said, so that this tells only who can't be reached: a server
that is stopped, or refuses a login, answers here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from monitors.pg import hosts
from monitors.pg.connect import CONNECT_TIMEOUT_SECONDS
from monitors.pg.errors import NO_ANSWER, Unreachable, libpq_reason

AT_ONCE = 400
"""Sockets that are open at the same time: a process may often have 1,024 files."""
RESOLVERS = 64
"""Names that are looked up at the same time."""

Door = tuple[str, int]
"""Host and port."""


def unanswered(doors: Iterable[Door]) -> dict[Door, str]:
    """Return {door: reason} of those where nobody takes a connection within 3 s; blocks so long.

    400 doors take 3 s at most, and as long again as names are not known. One
    that refuses at once is not among them: trying it costs nothing.
    """
    # A thread of its own: whoever calls may already run a loop (a browser test's thread does).
    with ThreadPoolExecutor(1, "knocks") as own:
        return own.submit(asyncio.run, knock_on_all(list(doors))).result()


async def knock_on_all(doors: list[Door]) -> dict[Door, str]:
    """Knock on all doors, so many at once."""
    free = asyncio.Semaphore(AT_ONCE)
    with ThreadPoolExecutor(RESOLVERS, "knock") as resolvers:

        async def ask(door: Door) -> str:
            async with free:
                return await knock(door, resolvers)

        reasons = await asyncio.gather(*(ask(door) for door in doors))
    return {door: reason for door, reason in zip(doors, reasons, strict=True) if reason}


async def knock(door: Door, resolvers: ThreadPoolExecutor) -> str:
    """Return why a door stays closed, '' where somebody answers, be it with a refusal."""
    host, port = door
    loop = asyncio.get_running_loop()
    try:
        address = await loop.run_in_executor(resolvers, hosts.allowed_address, host)
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except Unreachable as error:
        return str(error)
    except (ConnectionRefusedError, ConnectionResetError):
        return ""
    except TimeoutError:
        return NO_ANSWER
    except OSError as error:  # no route to the host
        return libpq_reason(error.strerror or "")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""
