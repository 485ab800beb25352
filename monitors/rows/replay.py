"""Reads a table's recorded course from the history and replays autovacuum over it.

Long, since a replay, its proof and its sentences are read together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from django.db.models import Sum

from monitors.history.counters import read_sums
from monitors.history.freshness import STALE_INTERVALS, interval_of
from monitors.history.window import Window
from monitors.models import HISTORY, ProbeState, Target
from monitors.models.history import Change
from monitors.probe import Reading
from monitors.rules import autovacuum, autovacuum_queue, simulator
from monitors.rules.simulator import PAGE_BYTES, Candidate, Recording, Step

LONGEST = timedelta(days=7)
"""Samples are kept so long."""
FEWEST_STEPS = 3
FEWEST_READS = 1.0
DAY_SECONDS = 86400
UNKNOWN = (Change.BASELINE, Change.RESTARTED, Change.UNKNOWN)
CHANGEABLE: Mapping[str, tuple[float, float]] = {
    "autovacuum_vacuum_threshold": (0, 2**31 - 1),
    "autovacuum_vacuum_scale_factor": (0, 100),
    "autovacuum_vacuum_max_threshold": (-1, 2**31 - 1),  # 18+
    "autovacuum_vacuum_insert_threshold": (-1, 2**31 - 1),
    "autovacuum_vacuum_insert_scale_factor": (0, 100),
    "autovacuum_analyze_threshold": (0, 2**31 - 1),
    "autovacuum_analyze_scale_factor": (0, 100),
    "autovacuum_vacuum_cost_delay": (0, 100),  # ms
    "autovacuum_vacuum_cost_limit": (1, 10000),
}
"""Storage parameters that a replay can change: {name: (least, most)}."""
WHOLE = frozenset(name for name in CHANGEABLE if name.endswith(("threshold", "limit")))

NOTHING_BETTER = (
    f"None of {simulator.CHOICES} choices costs clearly less than what is in force,"
    " without a vacuum at nearly every visit of a worker or more dead rows than now and than"
    f" {100 * simulator.DEAD_SHARE:.0f} % of the live ones: keep it."
)
NOT_TRUSTED = (
    "Nothing is proposed: the replay does not predict this table well. What you try by hand is"
    " replayed by the same rules, so take it with the same doubt."
)

ON_STANDBY = (
    "What autovacuum would do is not known on a standby: the counters of tables that it goes by are "
    "not replicated. Ask for the table on its primary."
)


class NotEnough(Exception):
    """The history can't be replayed; its text says why."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A table's recording, replayed under the parameters in force and under others."""

    recording: Recording
    options: dict[str, str]  # the table's own, in force
    on: dict[str, str]  # what switches autovacuum on for what is tried, where the table has it off
    chosen: dict[str, str]  # with what is tried
    proof: simulator.Proof
    as_is: simulator.Outcome
    tried: simulator.Outcome | None  # None: nothing else is tried


def replay(target: Target, table: Reading, window: Window, changes: Mapping[str, str]) -> Replay:
    """Replay a table's course in a window, as it was and with some parameters changed.

    `table` is a row of the probe `tables` with its `database_id`, `changes` are storage
    parameters as texts (`parse`). A table whose options switch autovacuum off is tried with
    it on. Raises NotEnough where there is too little history, and on a standby.
    """
    if target.in_recovery:
        raise NotEnough(ON_STANDBY)
    recording = recording_of(target, table, window)
    options = autovacuum.parse_options(table["reloptions"])
    on = switched_on(options)
    chosen = {**options, **on, **changes}
    return Replay(
        recording=recording,
        options=options,
        on=on,
        chosen=chosen,
        proof=simulator.prove(recording, target.settings, spell(options)),
        as_is=simulator.simulate(recording, target.settings, spell(options)),
        tried=simulator.simulate(recording, target.settings, spell(chosen)) if changes else None,
    )


def verdict_of(proof: simulator.Proof) -> tuple[str, str]:
    """Return how far the replay can be trusted: a level, and what it was checked against."""
    left = (
        f" {proof.in_gaps:,} more ended in gaps, which are not replayed." if proof.in_gaps else ""
    )
    if not proof.real:
        return "notice", (
            "No autovacuum of this table ended in this window"
            f"{' outside of its gaps' if left else ''},"
            f" so the replay can't be checked against one.{left}"
        )
    said = (
        f"Autovacuum came {times(proof.real)}, by the server's count; the replay under the"
        f" parameters in force comes to {proof.predicted:,}. {timed_words(proof)}{left}"
    )
    if proof.agrees:
        return "good", said
    return "warning", f"{said} It does not predict this table well: nothing is proposed."


def is_trusted(proof: simulator.Proof) -> bool:
    """Tell whether nothing speaks against the replay: what never ran proves nothing."""
    return not proof.real or proof.agrees


def timed_words(proof: simulator.Proof) -> str:
    """Return which of the real autovacuums were met, and of how many that can't be said."""
    within = f"within {proof.within_seconds:.0f} s"
    if proof.recall_pct is not None:
        return f"It has {proof.met:,} of the {proof.real:,} {within}: {proof.recall_pct:.0f} %."
    if not proof.timed:
        return "When they ended is not known."
    return (
        f"When {proof.timed:,} of them ended is known: it has {proof.met:,} of these {within}."
        f" Of the other {proof.real - proof.timed:,} only the number is known."
    )


def times(count: int) -> str:
    """Return how often in words."""
    return "once" if count == 1 else f"{count:,} times"


def switched_on(options: Mapping[str, str]) -> dict[str, str]:
    """Return the option that switches autovacuum on where a table's own ones have it off."""
    is_on = autovacuum.is_on(options.get("autovacuum_enabled", "on"))
    return {} if is_on else {"autovacuum_enabled": "true"}


def trade_off(target: Target, done: Replay) -> list[Candidate]:
    """Return the choices that no other beats, with what the table has otherwise.

    None where real autovacuums show that the replay does not predict the table.
    Their options have what switches autovacuum on too, where that is needed; where nothing
    else is worth it, that alone.
    """
    if not is_trusted(done.proof):
        return []
    own = spell({**done.options, **done.on})
    found = simulator.trade_off(done.recording, target.settings, own)
    if done.on and not found:
        found = [Candidate({}, simulator.simulate(done.recording, target.settings, own))]
    return [replace(one, options={**done.on, **one.options}) for one in found]


def parse(given: Mapping[str, str]) -> dict[str, str]:
    """Return the storage parameters among some texts; raises ValueError that says what to give."""
    found = {}
    for name, (least, most) in CHANGEABLE.items():
        text = given.get(name, "").strip()
        if not text:
            continue
        kind = "whole number" if name in WHOLE else "number"
        try:
            value = int(text) if name in WHOLE else float(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            message = f"{name} is a {kind} from {least:,} to {most:,}, not {text[:20]!r}."
            raise ValueError(message)
        found[name] = text
    return found


def spell(options: Mapping[str, str]) -> list[str]:
    """Return options as `pg_class.reloptions` has them."""
    return [f"{name}={value}" for name, value in options.items()]


def recording_of(target: Target, table: Reading, window: Window) -> Recording:
    """Return a table's course between the snapshots of a window, at most the last 7 days of it.

    Raises NotEnough where fewer than three snapshots of the window saw the table change.
    """
    start = max(window.start, window.end - LONGEST)
    place = {
        "target_id": target.pk,
        "database_id": table["database_id"],
        "relid": table["relid"],
    }
    samples = HISTORY["tables"].samples._default_manager.filter(**place)
    before = samples.filter(taken_at__lt=start).order_by("-taken_at").values().first()
    rows = list(
        samples.filter(taken_at__gte=start, taken_at__lt=window.end).order_by("taken_at").values()
    )
    if before is not None and before["change"] != Change.GONE:
        rows.insert(0, before)
    # While its server was a standby, a table had no counts.
    rows = [
        row for row in rows if row["change"] != Change.GONE and autovacuum_queue.is_counted(row)
    ]
    usual = interval_of(target, "tables")
    steps = list(steps_of(rows, longest=STALE_INTERVALS * usual, start=start, usual=usual))
    last = last_read(target, table, window)
    if steps and last and last - steps[-1].at > usual / 2:
        steps.append(unchanged(steps[-1], steps[-1].at, last))
    if len(steps) < FEWEST_STEPS:
        message = (
            "This window has too little history of the table to replay: choose a longer one,"
            " or wait for some snapshots in which it changes."
        )
        raise NotEnough(message)
    return Recording(
        start=steps[0].at - steps[0].seconds,
        first=step_of(rows[0], rows[0], 0.0),
        steps=steps,
        server_version=target.server_version,
        index_pages=index_pages_of(place),
        reads_a_day=reads_a_day(target, place, rows, steps),
    )


def steps_of(
    rows: Sequence[Reading], *, longest: float, start: datetime, usual: float
) -> Iterator[Step]:
    """Yield what happened between rows; a stretch in which nothing was stored was quiet.

    A difference that spans more than `longest` seconds tells a sum over a gap, not a course.
    """
    for previous, row in pairwise(rows):
        known = step_of(previous, previous, 0.0)
        begin, seconds = previous["target_at"], row["interval_seconds"] or 0.0
        changed_from = row["target_at"] - timedelta(seconds=seconds)
        begin = max(begin, min(start, changed_from))
        quiet = (changed_from - begin).total_seconds()
        if quiet > usual / 2:
            yield unchanged(known, begin.timestamp(), changed_from.timestamp())
        elif quiet > 0:
            seconds += quiet
        step = step_of(previous, row, seconds)
        gap = seconds > longest or row["change"] in UNKNOWN
        yield blank(step) if gap else step


def step_of(before: Reading, row: Reading, seconds: float) -> Step:
    """Return a stored row as a step of the replay."""
    ran = row["last_autovacuum"]
    is_new = ran is not None and ran != before["last_autovacuum"]
    return Step(
        at=row["target_at"].timestamp(),
        seconds=seconds,
        ins=float(row["n_tup_ins"] or 0),
        upd=row["n_tup_upd"] or 0,
        hot=row["n_tup_hot_upd"] or 0,
        deleted=row["n_tup_del"] or 0,
        live=row["n_live_tup"] or 0,
        dead=autovacuum_queue.counted_dead(row) or 0,
        mods=row["n_mod_since_analyze"] or 0,
        inserted=row["n_ins_since_vacuum"] or 0,
        reltuples=row["reltuples"] or 0,
        pages=row["relpages"] or 0,
        visible=row["relallvisible"] or 0,
        frozen=row["relallfrozen"],
        vacuumed=(row["vacuum_count"] or 0) + (row["autovacuum_count"] or 0),
        autovacuum_count=row["autovacuum_count"] or 0,
        size_pages=(row["size_bytes"] or 0) // PAGE_BYTES,
        autovacuums=(ran.timestamp(),) if is_new and row["autovacuum_count"] else (),
    )


def unchanged(step: Step, begin: float, end: float) -> Step:
    """Return a stretch in which nothing happened, epoch seconds."""
    return Step(
        at=end,
        seconds=end - begin,
        ins=0.0,
        upd=0,
        hot=0,
        deleted=0,
        live=step.live,
        dead=step.dead,
        mods=step.mods,
        inserted=step.inserted,
        reltuples=step.reltuples,
        pages=step.pages,
        visible=step.visible,
        frozen=step.frozen,
        size_pages=step.size_pages,
    )


def blank(step: Step) -> Step:
    """Return a stretch of which only the end is known."""
    return Step(**{**vars(step), "ins": None, "vacuumed": 0, "autovacuums": ()})


def last_read(target: Target, table: Reading, window: Window) -> float | None:
    """Return when the table was last read, by the target's clock; None in the past."""
    if not window.is_live or table.get("gone_at"):
        return None
    state = ProbeState.objects.filter(
        target=target, probe="tables", database_id=table["database_id"]
    ).first()
    return state.target_at.timestamp() if state and state.target_at else None


def index_pages_of(place: Mapping[str, int]) -> int:
    """Return the pages of a table's indexes, as last read."""
    found = HISTORY["indexes"].latest._default_manager.filter(**place, gone_at=None)
    return found.aggregate(pages=Sum("relpages"))["pages"] or 0


def reads_a_day(
    target: Target, place: Mapping[str, int], rows: Sequence[Reading], steps: Sequence[Step]
) -> float:
    """Return how often a dead row is read in 24 hours: as often as a live one, and once at least.

    A scan meets a row once at most. The one time is that of a backup.
    """
    start, end = steps[0].at - steps[0].seconds, steps[-1].at
    window = Window(
        datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC), is_live=False
    )
    live = max(sum(step.live for step in steps) / len(steps), 1.0)

    def total(counts: Sequence[Reading], name: str) -> float:
        return float(sum(row[name] or 0 for row in counts))

    of_indexes = index_reads(target, place, window)
    table = min(total(rows[1:], "seq_scan"), total(rows[1:], "seq_tup_read") / live)
    indexes = min(total(of_indexes, "idx_scan"), total(of_indexes, "idx_tup_fetch") / live)
    return max(DAY_SECONDS * (table + indexes) / (end - start), FEWEST_READS)


def index_reads(target: Target, place: Mapping[str, int], window: Window) -> Sequence[Reading]:
    """Return how often each index of a table was scanned in a window, and rows fetched by it."""
    latest = HISTORY["indexes"].latest._default_manager.filter(**place)
    key = {"indexrelid": list(latest.values_list("indexrelid", flat=True))}
    if not key["indexrelid"]:
        return []
    names = ["idx_scan", "idx_tup_fetch"]
    return read_sums("indexes", target.pk, window, names, database_id=place["database_id"], key=key)
