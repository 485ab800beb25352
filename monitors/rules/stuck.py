"""When a backend is stuck, by the limits that hold for its application and user."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Generic, Protocol, TypeVar

Row = Mapping[str, Any]

RUNNING, BLOCKED, BLOCKING, IDLE = STATES = (
    "running",
    "blocked",
    "blocking",
    "idle_in_transaction",
)
"""What a backend can be stuck in; of several the first in ORDER is said."""
ORDER = (BLOCKING, IDLE, RUNNING, BLOCKED)
WORDS = {
    RUNNING: "has run one statement",
    BLOCKED: "has waited for a lock",
    BLOCKING: "has kept others waiting",
    IDLE: "has been idle in transaction",
}
"""Said before how long."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds after which a backend is stuck in each of STATES; None: never."""

    running: float | None = None
    blocked: float | None = None
    blocking: float | None = None
    idle_in_transaction: float | None = None

    def of(self, state: str) -> float | None:
        """Return the limit of one of STATES."""
        limit: float | None = getattr(self, state)
        return limit

    @property
    def is_never(self) -> bool:
        """Whether nothing is ever stuck by them: an exception."""
        return all(getattr(self, one.name) is None for one in fields(self))


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Limits for the backends that fit some globs; '' fits all."""

    limits: Limits
    application_name: str = ""
    usename: str = ""
    datname: str = ""
    environment_id: int | None = None
    """The environment it is limited to, None for every one."""
    is_built_in: bool = False
    row_id: int | None = None

    def fits(self, row: Row, environment_id: int | None) -> bool:
        """Tell whether a backend of a target in an environment is meant."""
        if self.environment_id is not None and self.environment_id != environment_id:
            return False
        return all(
            fits_glob(getattr(self, name), row.get(name))
            for name in ("application_name", "usename", "datname")
        )

    @property
    def rank(self) -> tuple[bool, ...]:
        """How telling it is: application, then user, then database, then environment; a team's before ours."""
        return (
            bool(self.application_name),
            bool(self.usename),
            bool(self.datname),
            self.environment_id is not None,
            not self.is_built_in,
        )

    @property
    def words(self) -> str:
        """Return `application reports by user etl in database shop`."""
        parts = (
            ("application", self.application_name),
            ("user", self.usename),
            ("database", self.datname),
        )
        return ", ".join(f"{title} {glob}" for title, glob in parts if glob)


PATIENT_APPLICATIONS = ("pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup", "pg_repack")
"""They run for hours by design, and whoever started them knows."""
BUILT_IN = tuple(
    Definition(limits=Limits(), application_name=name, is_built_in=True)
    for name in PATIENT_APPLICATIONS
)


def fits_glob(glob: str, value: str | None) -> bool:
    """Tell whether a name fits a glob; '' fits all, a name that is not known only that."""
    return not glob or (value is not None and fnmatchcase(value, glob))


def definition_of(
    row: Row, definitions: Iterable[Definition], environment_id: int | None
) -> Definition | None:
    """Return the most telling definition that a backend fits, None where none names it.

    Of two that are alike the one that comes last wins.
    """
    found: Definition | None = None
    for one in (*BUILT_IN, *definitions):
        if one.fits(row, environment_id) and (found is None or one.rank >= found.rank):
            found = one
    return found


class Judged(Protocol):
    """What is asked of a backend."""

    row: Row

    @property
    def is_client(self) -> bool:
        """Whether a client holds it."""

    @property
    def is_ours(self) -> bool:
        """Whether it is a session of Howdah's."""

    @property
    def is_running(self) -> bool:
        """Whether it runs a statement."""

    @property
    def is_in_transaction(self) -> bool:
        """Whether it is idle in a transaction."""

    @property
    def blocked_by(self) -> Sequence[int]:
        """The pids that it waits for."""

    @property
    def query_seconds(self) -> float | None:
        """Since its statement began."""

    @property
    def state_seconds(self) -> float | None:
        """Since its state changed."""

    @property
    def waited_seconds(self) -> float | None:
        """Since it waits for its lock, as far as that is known."""


B = TypeVar("B", bound=Judged)


@dataclass(frozen=True)
class Found(Generic[B]):
    """A backend that is stuck, in what, since how long, and over which limit."""

    backend: B
    state: str
    seconds: float
    limit: float
    definition: Definition | None
    """What names its application, user or database; None: the limits of its target."""

    @property
    def words(self) -> str:
        """Return what it is in, said before how long."""
        return f"{WORDS[self.state].capitalize()} for"

    @property
    def over_seconds(self) -> float:
        """How long over its limit."""
        return self.seconds - self.limit


def judge(
    backends: Iterable[B],
    limits: Limits,
    definitions: Sequence[Definition],
    *,
    environment_id: int | None = None,
    kept_waiting: Mapping[int, float] | None = None,
    maintained: Collection[int] = (),
) -> list[Found[B]]:
    """Return the clients' backends that are stuck, Howdah's own aside.

    `limits` are the target's, `kept_waiting` is {pid: seconds that the one who waits longest
    behind it has waited}, `maintained` are pids whose work has a progress view: they
    may run for long.
    """
    found = []
    for backend in backends:
        if not backend.is_client or backend.is_ours:
            continue
        definition = definition_of(backend.row, definitions, environment_id)
        held = definition.limits if definition else limits
        known = seconds_of(backend, kept_waiting or {}, maintained)
        for state in ORDER:
            limit, seconds = held.of(state), known.get(state)
            if limit is not None and seconds is not None and seconds > limit:
                found.append(Found(backend, state, seconds, limit, definition))
                break
    return found


def judge_by(  # noqa: PLR0913 - what is asked, and what is known
    backends: Iterable[B],
    state: str,
    limit: float,
    definitions: Sequence[Definition],
    *,
    environment_id: int | None,
    kept_waiting: Mapping[int, float],
    maintained: Collection[int],
) -> list[Found[B]]:
    """Return the clients' backends that are in one state for longer than a limit of a rule's own.

    Whom a definition calls never stuck in it is left alone.
    """
    found = []
    for backend in backends:
        if not backend.is_client or backend.is_ours:
            continue
        definition = definition_of(backend.row, definitions, environment_id)
        if definition is not None and definition.limits.of(state) is None:
            continue
        seconds = seconds_of(backend, kept_waiting, maintained).get(state)
        if seconds is not None and seconds > limit:
            found.append(Found(backend, state, seconds, limit, None))
    return found


def seconds_of(
    backend: Judged, kept_waiting: Mapping[int, float], maintained: Collection[int]
) -> dict[str, float | None]:
    """Return for how long a backend has been in each of STATES; what it is not in is missing.

    Who waits itself is not the root of anybody's wait.
    """
    pid = backend.row["pid"]
    known: dict[str, float | None] = {}
    if backend.blocked_by:
        return {BLOCKED: backend.waited_seconds}
    if pid in kept_waiting:
        known[BLOCKING] = kept_waiting[pid]
    if backend.is_in_transaction:
        known[IDLE] = backend.state_seconds
    elif backend.is_running and pid not in maintained:
        known[RUNNING] = backend.query_seconds
    return known


def rank(found: Found[B], blocking: int) -> tuple[int, float]:
    """Return what orders stuck backends worst first: whom they block, then how far over their limit."""
    return -blocking, -found.over_seconds


def reason(state: str, seconds: str, limit: str, name: str) -> str:
    """Return a sentence: `Has waited for a lock for 2 min, over the limit of 30 s`."""
    of = f" of {name}" if name else ""
    return f"{WORDS[state].capitalize()} for {seconds}, over the limit{of} of {limit}."
