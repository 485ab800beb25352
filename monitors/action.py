"""What an action is: one thing that may be done to a target, declared as data.

`monitors/acting/ask.py` asks for one, `monitors/acting/perform.py` carries it out; the files
in `monitors/actions` only say what it is. An action touches the target in
this order, over one autocommit connection:

    resolve    what the arguments name: oids and names, or a backend's times
    guard      what must hold now; raises Refused or Changed
    measure    numbers before
    statement  the one text that is sent
    settled    until when its outcome is waited for (signals alone)
    leftovers  what a failed one left behind, and what removes it
    measure    numbers after
    inverse    what would undo it

Long, since every field of an action says what it is for.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from monitors.kinds import POSTGRES

if TYPE_CHECKING:
    from monitors.rules.verdict import Verdict

Arguments = Mapping[str, str]
"""As asked and cleaned: only known names, normalised texts, no empty ones."""
Identity = Mapping[str, Any]
"""What the arguments name on the server; JSON."""
Measured = dict[str, Any]
"""Numbers with their units in their names; JSON."""


MAX_PID, MAX_OID = 2**31 - 1, 2**32 - 1
MAX_NAME = 300  # two quoted identifiers of 63 bytes fit


class InvalidArguments(Exception):
    """The request makes no sense as it stands; its text says what to give."""


class Refused(Exception):
    """A rule of Howdah's or the state of the target forbids it; its text says which."""


class Changed(Exception):
    """What was asked for is gone or no longer the same: nothing is sent."""


class Kind(StrEnum):
    """What an argument's text must be."""

    BOOL = "bool"
    INT = "int"
    NUMBER = "number"
    CHOICE = "choice"
    TEXT = "text"
    TIMESTAMP = "timestamp"
    TABLE = "table"
    DATABASE = "database"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One argument of an action."""

    name: str
    kind: Kind
    required: bool = False
    help: str = ""
    default: str = ""
    choices: tuple[str, ...] = ()
    """Of a CHOICE: the words that are offered."""
    spellings: frozenset[str] = frozenset()
    """Of a CHOICE: other words for the same, kept as they are given."""
    minimum: float | None = None
    maximum: float | None = None
    resets: bool = False
    """Whether `reset` stands for "as if never set"."""
    option: bool = False
    """Whether it is one of those that a preview shows folded."""
    since: int = 0
    """The major version that brought it; older servers lack it."""

    def clean(self, text: str) -> str:
        """Return a text in one spelling and inside the bounds; raises InvalidArguments."""
        if self.resets and text.lower() == RESET:
            return RESET
        if self.kind == Kind.CHOICE:
            return clean_choice(self, text)
        if self.kind in NUMBERS:
            return clean_number(self, text)
        return CLEAN[self.kind](self.name, text)

    @property
    def bounds(self) -> str:
        """`0 to 100`, '' where it has none."""
        if self.minimum is None or self.maximum is None:
            return ""
        return f"{self.minimum:,g} to {self.maximum:,.10g}".replace("-", "\N{MINUS SIGN}")


RESET = "reset"


def text_of(statement: sql.Composable) -> str:
    """Return a statement as it is shown; bytes of names that are not UTF-8 become U+FFFD."""
    return statement.as_bytes(None).decode("utf-8", "replace")


@dataclass(frozen=True)
class Leftover:
    """Something that a failed statement left on the server, and what removes it."""

    name: str
    statement: sql.Composed


@dataclass(frozen=True)
class Guarded:
    """What a guard saw that a person should know before asking."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    numbers: Measured = field(default_factory=dict)
    """What `measure` returns of its table as it is: shown once what the history knows is in it."""


def no_result(rows: Sequence[tuple[Any, ...]]) -> Measured:
    """Return nothing of a statement's rows."""
    return {}


def no_needs(connection: psycopg.Connection) -> str:
    """Need nothing beside `right`."""
    return ""


def no_words(arguments: Mapping[str, object]) -> str:
    """Leave the button to the verb."""
    return ""


def no_verdict(before: Measured, after: Measured) -> Verdict | None:
    """Judge nothing."""
    return None


def no_escalation(arguments: Arguments) -> sql.Composed | None:
    """Send nothing more."""
    return None


def no_seconds(arguments: Arguments) -> float:
    """Hold nothing."""
    return 0.0


def no_rule(arguments: Arguments) -> None:
    """Accept any combination of arguments."""


def as_it_is(spec: Action, arguments: Arguments) -> Action:
    """Return the action unchanged: its arguments change nothing of how it is sent."""
    return spec


@dataclass(frozen=True, kw_only=True)
class Action:
    """One thing that may be done; its name is its permission."""

    name: str
    kind: str = POSTGRES
    """The kind of target that it is done to."""
    verb: str
    """Text of its button."""
    icon: str
    """The symbol on its button, one of static/icons.svg."""
    worded: Callable[[Mapping[str, object]], str] = no_words
    """What its button says before the object's name with some arguments, '' for the verb."""
    parameters: tuple[Parameter, ...]
    queue: str
    """`signals`: quick and never behind anything; `long`: may take hours."""
    right: str = ""
    """What the operator login needs, '' where `needs` tells: `signal`, `vacuum`, `maintain` (which the owner of the
    database alone does not have), `own` (to be a member of the table's
    owner), `superuser`, `reset`, the right to call pg_stat_statements_reset, or `scan`, that to
    call pgstattuple (`pg/rights.py`)."""
    needs: Callable[[psycopg.Connection], str] = no_needs
    """Asks what gives the operator login a right that no other action takes, '' where it has it:
    the statement, or who may do that. The check asks it in each database, and so does whoever
    words a refusal of the server; it changes nothing."""
    statement_timeout_ms: int
    lock_timeout_ms: int
    tries: int = 1
    """How often it is sent where its lock is not free within lock_timeout_ms: nothing was
    done then, and whoever queues behind it gets through between two tries."""
    lock: str = ""
    """Mode of the lock it takes on the table, '' for none."""
    swap_lock: str = ""
    """Mode of the stronger lock that it takes at its end, for a moment: one that is not free
    then costs all its work. '' where `lock` is all it takes."""
    swap_phase: str = ""
    """The phase of its progress in which it asks for `swap_lock`."""
    destructive: bool = False
    """Asks for a confirmation."""
    second_person: bool = False
    """Waits for another person's approval where the environment is protected."""
    direct: bool = False
    """Asked for without a preview."""
    expires_seconds: int = 120
    before: str = ""
    """The probe whose last snapshot is stored before the statement, else nothing is sent."""
    after: tuple[str, ...] = ()
    """The probes that are read once more when it has succeeded."""
    keeps: str = ""
    """The probe whose history keeps what the statement itself measured (`result`)."""
    partly: bool = False
    """Whether a warning that something was left out means that the rest was done."""
    since: int = 0
    """The major version that brought its command; older servers lack it. Of a pooler: 12400 is 1.24."""
    on_standby: bool = False
    """Whether a hot standby carries it out too: it changes nothing that is replicated."""
    several: bool = False
    """Whether it may be asked for on several tables, or backends, at once."""
    extension: str = ""
    """Where no database is named: it acts in the first one that has this extension."""
    rule: Callable[[Arguments], None] = no_rule
    """Raises InvalidArguments for arguments that don't fit together."""
    object_name: Callable[[Arguments, Identity], str]
    resolve: Callable[[psycopg.Connection, Arguments], dict[str, Any]]
    """Raises Refused for what does not exist; a direct action's arguments say all."""
    guard: Callable[[psycopg.Connection, Arguments, Identity], Guarded]
    statement: Callable[[Arguments, Identity, int], sql.Composed]
    """Builds the text for a server_version (180004); touches nothing."""
    measure: Callable[[psycopg.Connection, Identity, Measured | None], Measured]
    """Given the numbers before, waits a moment until the server shows new ones."""
    effect: Callable[[Measured, Measured], str]
    judge: Callable[[Measured, Measured], Verdict | None] = no_verdict
    """Says by the numbers before and after whether it helped, where that shows at once."""
    judged_later: bool = False
    """Whether its effect shows by and by, in the history (`acting/effect.py`)."""
    result: Callable[[Sequence[tuple[Any, ...]]], Measured] = no_result
    """What the statement's own rows add to the numbers after."""
    settled: Callable[[psycopg.Connection, Identity], str] | None = None
    """After a signal: '' while the backend is as before, else what became of it."""
    escalation: Callable[[Arguments], sql.Composed | None] = no_escalation
    """The guarded signal that follows where the first had no effect within 5 s; None: none does."""
    adapt: Callable[[Action, Arguments], Action] = as_it_is
    """Its locks, limits and whether it destroys, where they depend on the arguments."""
    release: Callable[[Arguments, Identity], sql.Composed] | None = None
    """Of what holds others back as long as it lasts: what ends it. It is sent after `held_seconds`,
    when somebody stops the action, and by the sweep where the worker is gone."""
    held_seconds: Callable[[Arguments], float] = no_seconds
    inverse: Callable[[Arguments, Identity, Measured], dict[str, Any]] | None = None
    """{name, arguments} of what undoes it, from the numbers before."""
    leftovers: Callable[[psycopg.Connection, Identity, Measured], list[Leftover]] | None = None
    """After a failure: what it left that was not there before."""

    def lacks(self, version: int) -> str:
        """Return why a pooler of a version (12601) has no such command, '' where it has."""
        if version >= self.since:
            return ""
        return f"It came with PgBouncer {self.since // 10000}.{self.since // 100 % 100}."

    @property
    def is_signal(self) -> bool:
        """Whether it sends a backend a signal."""
        return self.settled is not None

    @property
    def noun(self) -> str:
        """What it is done to, where it may be done to several."""
        return "backend" if self.is_signal else "table"

    def given(self, arguments: Arguments) -> Action:
        """Return the action as it is with these arguments."""
        return self.adapt(self, arguments)

    @property
    def options(self) -> tuple[Parameter, ...]:
        """The parameters that a preview shows folded."""
        return tuple(parameter for parameter in self.parameters if parameter.option)

    def clean(self, given: Mapping[str, object]) -> dict[str, str]:
        """Return the arguments as texts in one spelling; raises InvalidArguments."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                message = f"{self.name} has no argument {name}: it takes {', '.join(known)}."
                raise InvalidArguments(message)
        cleaned = {}
        for name, parameter in known.items():
            text = str(given.get(name) or "").strip() or parameter.default
            if text:
                cleaned[name] = parameter.clean(text)
            elif parameter.required:
                message = f"{self.name} needs the argument {name}: {parameter.help}."
                raise InvalidArguments(message)
        self.rule(cleaned)
        return cleaned


def clean_bool(name: str, text: str) -> str:
    """Return `true` or `false`."""
    if text.lower() in {"true", "on", "1", "yes"}:
        return "true"
    if text.lower() in {"false", "off", "0", "no"}:
        return "false"
    message = f"{name} is true or false, not {text[:40]!r}."
    raise InvalidArguments(message)


def clean_number(parameter: Parameter, text: str) -> str:
    """Return a number inside its bounds: a whole one, or a decimal one as it was written.

    No exponent, no NaN, no infinity.
    """
    kind, pattern = NUMBERS[parameter.kind]
    low, high = parameter.minimum, parameter.maximum
    is_inside = bool(re.fullmatch(pattern, text)) and not (
        (low is not None and float(text) < low) or (high is not None and float(text) > high)
    )
    if not is_inside:
        kind += f" from {parameter.bounds}" if parameter.bounds else ""
        message = f"{parameter.name} is {kind}, not {text[:40]!r}."
        raise InvalidArguments(message)
    return str(int(text)) if parameter.kind == Kind.INT else text


def clean_choice(parameter: Parameter, text: str) -> str:
    """Return one of the words that a parameter takes."""
    word = text.lower()
    if word in parameter.choices or word in parameter.spellings:
        return word
    if {"on", "off"} <= set(parameter.choices):
        with contextlib.suppress(InvalidArguments):
            return "on" if clean_bool(parameter.name, word) == "true" else "off"
    message = f"{parameter.name} is {' or '.join(parameter.choices)}, not {text[:40]!r}."
    raise InvalidArguments(message)


def clean_text(name: str, text: str) -> str:
    """Return a name of at most a few hundred characters that PostgreSQL can hold."""
    if len(text) > MAX_NAME or "\x00" in text or not encodable(text):
        message = f"{name} is not a name that PostgreSQL can hold."
        raise InvalidArguments(message)
    return text


def encodable(text: str) -> bool:
    """Return whether text is valid Unicode: libpq's quoting trusts its encoding."""
    return text.encode("utf-8", "replace").decode() == text


def clean_timestamp(name: str, text: str) -> str:
    """Return a moment in UTC with all six digits of its microseconds.

    A guard compares it for equality, so a moment without microseconds or
    without its zone would never match, or match the wrong one.
    """
    try:
        given = datetime.fromisoformat(text)
        moment = given.astimezone(UTC) if given.tzinfo else None
    except (ValueError, OverflowError):  # the last hours of the year 9999 are no date in UTC
        moment = None
    if moment is None:
        message = (
            f"{name} is a time as the server writes it, with microseconds and zone"
            f" (2026-01-31 09:30:00.123456+00), not {text[:40]!r}."
        )
        raise InvalidArguments(message)
    return moment.isoformat(" ", "microseconds")


NUMBERS: Mapping[Kind, tuple[str, str]] = {
    Kind.INT: ("a whole number", r"-?[0-9]{1,40}"),
    Kind.NUMBER: ("a number", r"-?[0-9]{1,40}(\.[0-9]{1,40})?"),
}
"""What a number is called, and the texts that are one."""
CLEAN: dict[Kind, Callable[[str, str], str]] = {
    Kind.BOOL: clean_bool,
    Kind.TEXT: clean_text,
    Kind.TIMESTAMP: clean_timestamp,
    Kind.TABLE: clean_text,
    Kind.DATABASE: clean_text,
}
