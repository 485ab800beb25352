"""A part of the stack that is started again when it dies, later each time that it does not last."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dashboard.embedded.processes import Child, StartFailed

STEADY_SECONDS = 60
"""Who has run for so long counts as well again."""
MOST_SECONDS = 60
"""The longest pause before another start."""


@dataclass
class Watched:
    """A running part, and how to start it again; `due_at` is the monotonic time of that."""

    child: Child
    begin: Callable[[], Child]
    began_at: float = field(default_factory=time.monotonic)
    failures: int = 0
    due_at: float | None = None

    def look(self, say: Callable[[str], None]) -> None:
        """Note that it died, or start it again when it is time to."""
        if self.due_at is None:
            if self.child.died:
                self.child.end_group()
                status = self.child.process.returncode
                self.put_off(f"{self.child.name} ended with status {status}", say)
        elif time.monotonic() >= self.due_at:
            self.start(say)

    def start(self, say: Callable[[str], None]) -> None:
        """Start it again; what keeps it from that is one more failure."""
        self.due_at, self.began_at = None, time.monotonic()
        try:
            self.child = self.begin()
        except (OSError, StartFailed) as error:
            self.put_off(f"{self.child.name} can't be started ({error})", say)
        else:
            say(f"{self.child.name} is started again.")

    def put_off(self, what: str, say: Callable[[str], None]) -> None:
        """Say what happened and when the next start is: after 1 s, 2, 4, to a minute."""
        now = time.monotonic()
        if now - self.began_at > STEADY_SECONDS:
            self.failures = 0
        pause = min(2**self.failures, MOST_SECONDS)
        self.failures += 1
        self.due_at = now + pause
        say(f"{what}. It is started again in {pause} s; {self.child.log} says why.")
