"""What autovacuum would have done to a table under other parameters.

Replays the recorded course of one table: the rows that were written, and from
them the counts that autovacuum looks at, by the server's own rules
(`monitors/rules/autovacuum.py`). What the replay feeds back is what the server feeds
back: a vacuum and an analyze set `reltuples`, by which the next threshold is
computed.

    dead rows   deletes and updates that were not HOT stay until a vacuum;
                rows that a HOT update left behind are also pruned by whoever
                writes to their page: d(hot dead) = hot updates - k * writes * hot dead,
                with k fitted to the recording. What the recording shows beyond that
                (rolled back inserts, an analyze that counted anew) is replayed as it was
    kept rows   what a real vacuum could not remove, the nearest one of the replay can't
    visits      a worker comes to each database once a naptime
    work        pages read and dirtied at the cost limit's pace, if one is set
    costs       bytes a day: what vacuums read and write, and what others read of dead rows

Source: https://www.postgresql.org/docs/current/routine-vacuuming.html#AUTOVACUUM
and https://www.postgresql.org/docs/current/storage-hot.html

Long, since a model of autovacuum with all its states, replayed step by step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from monitors.rules import autovacuum

PAGE_BYTES = 8192
NAPTIME = 60.0  # seconds; the default
BYPASS_SHARE = 0.02  # of pages with dead rows: below it the indexes are left alone (14+)
PRUNING_POWERS = 28  # 1 to 1e-8: from every write pruning the whole table to next to none
NO_DECAY = 1e-12
STAYED_SHARE = 0.5  # of the dead rows that a vacuum found: with more left it could not clean
WITHIN_NAPTIMES = 2  # a real autovacuum that the replay has so near was predicted
COUNT_SLACK = 0.25  # of the real ones: so many more or fewer agree with them
MET_SHARE = 0.8  # of those whose end is known
MISS, DIRTY = 2, 20  # vacuum_cost_page_miss and _dirty


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happened between two snapshots of a table, and how it stood at the second.

    Counts of rows are differences; None in `ins` says that they are not known
    (a gap, a reset): the replay then goes on from what the snapshot says.
    """

    at: float  # epoch seconds of the second snapshot
    seconds: float
    ins: float | None
    upd: float
    hot: float  # of upd
    deleted: float
    live: float  # n_live_tup
    dead: float  # n_dead_tup
    mods: float  # n_mod_since_analyze
    inserted: float  # n_ins_since_vacuum
    reltuples: float
    pages: int
    visible: int  # relallvisible
    frozen: int | None = None  # relallfrozen, 18+
    vacuumed: int = 0  # vacuums that ran between the two, by whomever
    autovacuum_count: int = 0  # autovacuums that did, by the server's count; in a gap too
    size_pages: int = 0  # of the table with its indexes and TOAST
    autovacuums: tuple[float, ...] = ()  # epoch seconds of the ends that are known: the last one's


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The course of one table."""

    start: float  # epoch seconds of the first snapshot
    first: Step  # its state; what happened before it is not used
    steps: Sequence[Step]
    server_version: int | None = None
    index_pages: int = 0
    reads_a_day: float = 1.0  # how often others read a dead row

    @property
    def dead_row_bytes(self) -> float:
        """Return the room that a row takes in the table's pages, at most a page.

        Before its first VACUUM or ANALYZE no pages are counted: then in all that belongs to it.
        """
        pages = sum(step.pages or step.size_pages for step in self.steps)
        rows = sum(step.live + step.dead for step in self.steps)
        return min(PAGE_BYTES * pages / rows, PAGE_BYTES) if rows else 0.0

    @property
    def seconds(self) -> float:
        """How long it is, from end to end."""
        return (self.steps[-1].at if self.steps else self.start) - self.start

    @property
    def known_seconds(self) -> float:
        """How much of that is replayed: all but the gaps."""
        return sum(step.seconds for step in self.steps if step.ins is not None)


@dataclass(frozen=True)
class Vacuum:
    """One run of the replay; epoch seconds."""

    at: float
    ends_at: float
    dead: float  # rows that it removes
    reason: str  # dead rows or inserts
    read_pages: float
    dirtied_pages: float


@dataclass
class Outcome:
    """What a replay came to."""

    seconds: float
    vacuums: list[Vacuum] = field(default_factory=list)
    analyzes: list[float] = field(default_factory=list)  # epoch seconds
    dead: list[tuple[float, float]] = field(default_factory=list)  # (epoch seconds, rows)
    extra_pages: float = 0.0  # that the table had to grow by
    late: int = 0  # visits that found no worker free, since the one before still worked
    naptime: float = NAPTIME
    owed_pages: float = 0.0  # of the next vacuum, as far as its threshold came nearer
    dead_row_bytes_a_day: float = 0.0  # that others read of one dead row

    @property
    def vacuums_a_day(self) -> float:
        """Runs in 24 hours."""
        return 86400 * len(self.vacuums) / self.seconds if self.seconds else 0.0

    @property
    def peak_dead(self) -> float:
        """Most dead rows at any time."""
        return max((rows for _, rows in self.dead), default=0.0)

    @property
    def usual_dead(self) -> float:
        """Dead rows that were exceeded in a twentieth of the time."""
        rows = sorted(rows for _, rows in self.dead)
        return rows[min(int(0.95 * len(rows)), len(rows) - 1)] if rows else 0.0

    @property
    def io_bytes_a_day(self) -> float:
        """Bytes that vacuums read and wrote in 24 hours."""
        pages = sum(run.read_pages + run.dirtied_pages for run in self.vacuums)
        return 86400 * PAGE_BYTES * pages / self.seconds if self.seconds else 0.0

    @property
    def work_bytes_a_day(self) -> float:
        """As `io_bytes_a_day`, with the share of the next vacuum that is due by the end.

        So parameters under which a window is too short for a vacuum don't get it for nothing.
        """
        owed = 86400 * PAGE_BYTES * self.owed_pages / self.seconds if self.seconds else 0.0
        return max(self.io_bytes_a_day + owed, 0.0)

    @property
    def dead_bytes_a_day(self) -> float:
        """Bytes of dead rows that others read in 24 hours, since no vacuum removed them yet."""
        return self.usual_dead * self.dead_row_bytes_a_day

    @property
    def total_bytes_a_day(self) -> float:
        """What dead rows and their removal cost together in 24 hours."""
        return self.work_bytes_a_day + self.dead_bytes_a_day

    @property
    def is_pressed(self) -> bool:
        """Tell whether most vacuums came at the first visit after the one before them.

        Their threshold then decides nothing: the naptime does.
        """
        waits = [later.at - run.ends_at for run, later in pairwise(self.vacuums)]
        return sum(wait < self.naptime + 1e-6 for wait in waits) > len(waits) / 2

    @property
    def busy_share(self) -> float:
        """Share of the time (0 to 1) in which a worker is at this table."""
        busy = sum(run.ends_at - run.at for run in self.vacuums)
        return min(busy / self.seconds, 1.0) if self.seconds else 0.0


@dataclass
class State:
    """What the server would know of the table at a moment of the replay."""

    fixed: float  # dead rows that only a vacuum removes
    hot: float  # dead rows that pruning removes too
    mods: float
    inserted: float
    reltuples: float
    free: float = 0.0  # room for so many rows in the pages that it has

    @property
    def dead(self) -> float:
        """All dead rows."""
        return self.fixed + self.hot


def simulate(
    recording: Recording, settings: Mapping[str, str], reloptions: Sequence[str] | None
) -> Outcome:
    """Replay a recording under the settings of a server and the options of its table.

    `settings` are texts in each setting's own unit, `reloptions` are `name=value`.
    A table whose autovacuum is off, or a server's, is visited and left alone.
    """
    naptime = naptime_of(settings)
    rule = Rule(settings, tuple(reloptions or ()), recording)
    pruning = pruning_of(recording)
    course = list(course_of(recording, pruning))
    kept = [(part.step.at, part.kept) for part in course if part.kept is not None]
    state = state_of(recording.first, 0.0)
    outcome = Outcome(
        recording.known_seconds,
        naptime=naptime,
        dead_row_bytes_a_day=recording.dead_row_bytes * recording.reads_a_day,
    )
    outcome.owed_pages = -owed_pages(state, recording.first, rule)
    busy_until = 0.0
    visit = recording.start + naptime
    before = recording.first
    for part in course:
        step = part.step
        if step.ins is None:
            state = state_of(step, state.hot / state.dead if state.dead else 0.0)
            visit = max(visit, step.at)
            before = step
            continue
        moment = step.at - step.seconds
        while visit <= step.at:
            advance(state, part, visit - moment, pruning, outcome)
            moment = visit
            if moment < busy_until:
                outcome.late += 1
            else:
                live = between(before, step, moment)
                left = kept_near(kept, moment)
                limits = rule.limits(state.reltuples, step)
                ends_at = work(state, Visit(moment, step, live, left), limits, rule, outcome)
                busy_until = ends_at or busy_until
            outcome.dead.append((moment, state.dead))
            visit += naptime
        advance(state, part, step.at - moment, pruning, outcome)
        outcome.dead.append((step.at, state.dead))
        before = step
    outcome.owed_pages += owed_pages(state, before, rule)
    return outcome


@dataclass(frozen=True)
class Part:
    """A step, and what only the recording knows of it."""

    step: Step
    beyond: float  # dead rows that came or went beyond what was written and pruned
    kept: float | None  # dead rows that a real vacuum of this step left; None: none ran


def course_of(recording: Recording, pruning: float) -> Iterator[Part]:
    """Follow the dead rows of the recording and tell what the rule does not explain."""
    known = state_of(recording.first, 0.0)
    for step in recording.steps:
        if step.ins is None:
            known = state_of(step, known.hot / known.dead if known.dead else 0.0)
            yield Part(step, 0.0, None)
            continue
        fixed = step.deleted + step.upd - step.hot
        decay = pruning * ((step.ins or 0) + step.upd + step.deleted)
        if not step.vacuumed:
            known.fixed += fixed
            known.hot = pruned(known.hot, step.hot, decay)
            beyond = step.dead - known.dead
            settle(known, step.dead)
            yield Part(step, beyond, None)
            continue
        # Only what was written after the vacuum, and what it had to leave, is dead now.
        ended = max(step.autovacuums, default=step.at - step.seconds / 2)
        share = min(max((step.at - ended) / step.seconds, 0.0), 1.0) if step.seconds else 0.0
        found = known.dead + (fixed + step.hot) * (1 - share)
        known = State(fixed * share, pruned(0.0, step.hot * share, decay * share), 0.0, 0.0, 0.0)
        kept = max(step.dead - known.dead, 0.0)
        settle(known, step.dead)
        yield Part(step, 0.0, kept if kept > STAYED_SHARE * found else 0.0)


def settle(state: State, dead: float) -> None:
    """Make a state have so many dead rows: the HOT ones give way last."""
    state.fixed = max(dead - state.hot, 0.0)
    state.hot = min(state.hot, dead)


def kept_near(kept: Sequence[tuple[float, float]], moment: float) -> float:
    """Return the dead rows that the real vacuum nearest to a moment left, 0 without one."""
    return min(kept, key=lambda one: abs(one[0] - moment))[1] if kept else 0.0


def state_of(step: Step, hot_share: float) -> State:
    """Return what a snapshot says; how many of its dead rows are HOT it can't say."""
    return State(
        fixed=step.dead * (1 - hot_share),
        hot=step.dead * hot_share,
        mods=step.mods,
        inserted=step.inserted,
        reltuples=step.reltuples,
    )


def advance(state: State, part: Part, seconds: float, pruning: float, outcome: Outcome) -> None:
    """Let some seconds of a step happen: rows are written evenly over it."""
    step = part.step
    if seconds <= 0 or not step.seconds:
        return
    share = seconds / step.seconds
    ins, upd, hot = (step.ins or 0) * share, step.upd * share, step.hot * share
    deleted = step.deleted * share
    state.fixed = max(state.fixed + deleted + upd - hot + part.beyond * share, 0.0)
    state.hot = pruned(state.hot, hot, pruning * (upd + ins + deleted))
    state.mods += ins + upd + deleted
    state.inserted += ins
    # A HOT update finds its room on the page it is on.
    needed = ins + upd - hot
    taken = min(state.free, needed)
    state.free -= taken
    if step.pages and step.live:
        outcome.extra_pages += (needed - taken) / max(step.live / step.pages, 1.0)


def pruned(hot: float, made: float, decay: float) -> float:
    """Return HOT dead rows after `made` more while a share `decay` of them is pruned, evenly."""
    if decay <= NO_DECAY:
        return hot + made
    settled = made / decay
    return settled + (hot - settled) * math.exp(-decay)


def pruning_of(recording: Recording) -> float:
    """Return the k of `d(hot dead) = hot updates - k * writes * hot dead` that fits best.

    Tried are powers of a half: the one by which the steps without a vacuum show
    least dead rows beyond the rule. 0 where no update is HOT.
    """
    if not any(step.hot for step in recording.steps):
        return 0.0

    def error(k: float) -> float:
        return sum(part.beyond**2 for part in course_of(recording, k))

    return min((0.0, *(2.0**-power for power in range(PRUNING_POWERS))), key=error)


def between(before: Step, step: Step, moment: float) -> float:
    """Return the live rows at a moment between two snapshots, drawn straight."""
    share = 1 - (step.at - moment) / step.seconds if step.seconds else 1.0
    return before.live + (step.live - before.live) * share


class Rule:
    """The parameters of a replay; remembers the thresholds that it computed last."""

    def __init__(
        self, settings: Mapping[str, str], reloptions: tuple[str, ...], recording: Recording
    ) -> None:
        self.settings, self.reloptions, self.recording = settings, reloptions, recording
        self.cost_a_second = cost_a_second(settings, reloptions)
        self.known: tuple[float, int, int | None] | None = None
        self.last: autovacuum.Thresholds | None = None

    def limits(self, reltuples: float, step: Step) -> autovacuum.Thresholds:
        """Return the thresholds of a table with so many rows and the pages of a step."""
        wanted = (reltuples, step.pages, step.frozen)
        if self.last is None or wanted != self.known:
            self.known = wanted
            self.last = autovacuum.threshold(
                self.settings,
                self.reloptions,
                reltuples=reltuples,
                relpages=step.pages,
                relallfrozen=step.frozen,
                server_version=self.recording.server_version,
            )
        return self.last


@dataclass(frozen=True)
class Visit:
    """A worker's visit to the table."""

    at: float
    step: Step
    live: float
    left: float  # dead rows that a vacuum can't remove now


def work(
    state: State, visit: Visit, limits: autovacuum.Thresholds, rule: Rule, outcome: Outcome
) -> float | None:
    """Do what a worker would do; returns when it is done, None where it had nothing to do."""
    if not limits.enabled:
        return None
    by_dead = state.dead > limits.vacuum
    by_inserts = limits.insert is not None and state.inserted > limits.insert
    analyzes = limits.analyze is not None and state.mods > limits.analyze
    ends_at = visit.at
    if by_dead or by_inserts:
        read, dirtied = pages_of(state, visit.step, rule.recording.index_pages)
        if rule.cost_a_second:
            ends_at += (read * MISS + dirtied * DIRTY) / rule.cost_a_second
        left = min(visit.left, state.dead)
        removed = state.dead - left
        reason = "dead rows" if by_dead else "inserts"
        outcome.vacuums.append(Vacuum(visit.at, ends_at, removed, reason, read, dirtied))
        state.free += removed
        state.fixed, state.hot, state.inserted = left, 0.0, 0.0
        state.reltuples = visit.live
    if analyzes:
        outcome.analyzes.append(visit.at)
        state.mods = 0.0
        state.reltuples = visit.live
    return ends_at if by_dead or by_inserts or analyzes else None


def owed_pages(state: State, step: Step, rule: Rule) -> float:
    """Return the pages of the next vacuum, by the share of its threshold that is reached."""
    limits = rule.limits(state.reltuples, step)
    if not limits.enabled:
        return 0.0
    shares = [state.dead / limits.vacuum if limits.vacuum else 1.0]
    if limits.insert:
        shares.append(state.inserted / limits.insert)
    return min(max(shares), 1.0) * sum(pages_of(state, step, rule.recording.index_pages))


def pages_of(state: State, now: Step, index_pages: int) -> tuple[float, float]:
    """Return the pages that a vacuum reads and dirties now.

    Heap pages that are not all-visible are read; those with dead rows are
    dirtied, spread evenly over the table. Indexes are read whole, unless so few
    pages have dead rows that the server leaves them alone.
    """
    if now.pages <= 0:
        return 0.0, 0.0
    touched = now.pages * (1 - math.exp(-state.dead / now.pages))
    read = max(float(now.pages - now.visible), touched)
    if touched <= BYPASS_SHARE * now.pages:
        return read, touched
    dirtied_index = index_pages * (1 - math.exp(-state.dead / index_pages)) if index_pages else 0.0
    return read + index_pages, touched + dirtied_index


def naptime_of(settings: Mapping[str, str]) -> float:
    """Return the seconds between two visits to a database."""
    return max(float(settings.get("autovacuum_naptime", NAPTIME)), 1.0)


def cost_a_second(settings: Mapping[str, str], reloptions: Sequence[str] | None) -> float:
    """Return the cost that a worker may spend a second, 0 for as much as it likes.

    The limit is shared by workers; this is that of one that works alone.
    """
    options = autovacuum.parse_options(reloptions)

    def number(name: str, default: float) -> float:
        return float(options.get(name, settings.get(name, default)))

    limit = number("autovacuum_vacuum_cost_limit", -1)
    if limit <= 0:
        limit = float(settings.get("vacuum_cost_limit", 200))
    delay_ms = number("autovacuum_vacuum_cost_delay", 2)
    if delay_ms < 0:
        delay_ms = float(settings.get("vacuum_cost_delay", 0))
    return limit * 1000 / delay_ms if delay_ms > 0 else 0.0


@dataclass(frozen=True)
class Proof:
    """How well the replay under the real parameters met what really ran.

    The server counts every autovacuum, but tells the end of the last one alone: of others
    that ran between the same two snapshots only the number is known.
    """

    real: int  # autovacuums in what is replayed, by the server's count
    timed: int  # of them, those whose end is known
    met: int  # of these, those that the replay has within two naptimes
    predicted: int  # vacuums of the replay
    within_seconds: float
    by_hand: int = 0  # vacuums by hand in what is replayed
    in_gaps: int = 0  # autovacuums in what is not

    @property
    def recall_pct(self) -> float | None:
        """Share of the real ones that were predicted, None where not all their ends are known."""
        return 100 * self.met / self.real if self.real and self.timed == self.real else None

    @property
    def agrees(self) -> bool:
        """Tell whether both number and times are about those of the real ones.

        A vacuum by hand may stand for one of the replay.
        """
        slack = 1 + COUNT_SLACK * self.real
        fewest, most = self.real - slack, self.real + self.by_hand + slack
        return fewest <= self.predicted <= most and self.met >= MET_SHARE * self.timed


def prove(
    recording: Recording, settings: Mapping[str, str], reloptions: Sequence[str] | None
) -> Proof:
    """Replay under the parameters that were in force and compare with what ran.

    Each vacuum of the replay meets one real one at most.
    """
    within = WITHIN_NAPTIMES * naptime_of(settings)
    run = simulate(recording, settings, reloptions)
    predicted = [one.ends_at for one in run.vacuums]
    known = [step for step in recording.steps if step.ins is not None]
    timed = sorted(at for step in known for at in step.autovacuums)
    real = sum(step.autovacuum_count for step in known)
    return Proof(
        real=real,
        timed=len(timed),
        met=len(list(meetings(timed, predicted, within))),
        predicted=len(predicted),
        within_seconds=within,
        by_hand=sum(step.vacuumed for step in known) - real,
        in_gaps=sum(step.autovacuum_count for step in recording.steps if step.ins is None),
    )


def meetings(
    real: Sequence[float], predicted: Sequence[float], within: float
) -> Iterator[tuple[float, float]]:
    """Pair moments of two ordered lists that are at most so far apart, each used once."""
    position = 0
    for at in real:
        while position < len(predicted) and predicted[position] < at - within:
            position += 1
        if position < len(predicted) and predicted[position] <= at + within:
            yield at, predicted[position]
            position += 1


@dataclass(frozen=True)
class Candidate:
    """One choice of parameters and what it would have come to."""

    options: Mapping[str, str]  # storage parameters
    outcome: Outcome

    @property
    def costs(self) -> tuple[float, float]:
        """Dead rows that are usual, and bytes a day of vacuums with what they owe."""
        return self.outcome.usual_dead, self.outcome.work_bytes_a_day


SCALE_FACTORS = ("0", "0.01", "0.02", "0.05", "0.1", "0.2", "0.4")
CLEARLY_LESS = 0.98
WORTHWHILE = 0.9
"""Of what the parameters in force cost: a change that saves less is not worth its making."""
DEAD_SHARE = 0.2
"""Dead rows of live ones, as the server's own scale factor: more are never proposed than there are now.

Bytes of vacuums and of reads don't tell all that they cost: the file grows by them and stays so.
"""
THRESHOLDS = ("50", "1000", "10000", "100000")
CHOICES = len(SCALE_FACTORS) * len(THRESHOLDS)


@dataclass(frozen=True)
class Bound:
    """How many rows may be dead under what is proposed."""

    usual: float
    peak: float

    def allows(self, outcome: Outcome) -> bool:
        """Tell whether an outcome stays within it: one peak must not excuse what lasts."""
        return outcome.usual_dead <= self.usual and outcome.peak_dead <= self.peak


def bound_of(recording: Recording, as_is: Outcome) -> Bound:
    """Return as many dead rows as there are now, or a fifth of the live ones where that is more."""
    live = sum(step.live for step in recording.steps) / max(len(recording.steps), 1)
    share = DEAD_SHARE * live
    return Bound(max(as_is.usual_dead, share), max(as_is.peak_dead, share))


def trade_off(
    recording: Recording, settings: Mapping[str, str], reloptions: Sequence[str] | None
) -> list[Candidate]:
    """Replay every scale factor with every threshold; returns those that are worth it.

    That is those which cost clearly less than `reloptions` do, dead rows and work together,
    which don't let more rows be dead than are now or a fifth of the live ones (`Bound`),
    whose vacuums are not pressed by the naptime, and which no other beats: one beats
    another that has no fewer dead rows and not clearly less work. Ordered from fewest dead
    rows and most work to the opposite. Other parameters stay as they are.
    """
    own = autovacuum.parse_options(reloptions)
    as_is = simulate(recording, settings, reloptions)
    most = WORTHWHILE * as_is.total_bytes_a_day
    bound = bound_of(recording, as_is)
    tried = []
    for factor in SCALE_FACTORS:
        for threshold in THRESHOLDS:
            chosen = {
                "autovacuum_vacuum_scale_factor": factor,
                "autovacuum_vacuum_threshold": threshold,
            }
            options = [f"{name}={value}" for name, value in {**own, **chosen}.items()]
            outcome = simulate(recording, settings, options)
            if (
                outcome.total_bytes_a_day < most
                and not outcome.is_pressed
                and bound.allows(outcome)
            ):
                tried.append(Candidate(chosen, outcome))
    tried.sort(key=lambda one: one.costs)
    best: list[Candidate] = []
    for one in tried:
        if not best or one.costs[1] < CLEARLY_LESS * best[-1].costs[1]:
            best.append(one)
    return best


def balanced(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate that costs least in all, None of none.

    Both costs are bytes a day, so no other candidate changes how two compare.
    """
    return min(candidates, key=lambda one: one.outcome.total_bytes_a_day, default=None)
