"""The objects of a probe at one moment, counted, ordered and paged by our own database.

A page of ten thousand tables shows fifty. What it counts and which fifty those are the
database says; only what is shown is read.

Conditions and expressions are made by the functions below; columns are those of `latest`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql

from monitors.history.latest import columns_of, fetch_rows, stood_at
from monitors.models import HISTORY
from monitors.rules import autovacuum

Row = dict[str, Any]
Term = sql.Composable
"""A condition or an expression."""


@dataclass(frozen=True)
class Order:
    """What objects are ordered by; those without a value come last either way."""

    by: Term
    greatest_first: bool = False

    @property
    def text(self) -> Term:
        """It, as ORDER BY wants it."""
        direction = "DESC" if self.greatest_first else "ASC"
        return sql.SQL("{} {} NULLS LAST").format(self.by, sql.SQL(direction))


@dataclass(frozen=True)
class Objects:
    """The objects of a probe as last read, or as they stood at a past moment."""

    probe_name: str
    target_id: int
    at: datetime | None = None  # None: now

    @property
    def relation(self) -> Term:
        """What is selected from."""
        history = HISTORY[self.probe_name]
        if self.at is not None:
            return sql.SQL("({}) AS o").format(stood_at(history, self.target_id, self.at))
        return sql.SQL("(SELECT * FROM {} WHERE target_id = {} AND gone_at IS NULL) AS o").format(
            sql.Identifier(history.latest._meta.db_table), sql.Literal(self.target_id)
        )

    def rows(
        self,
        *conditions: Term,
        order: Sequence[Order] = (),
        limit: int | None = None,
        offset: int = 0,
        without: Iterable[str] = (),
    ) -> list[Row]:
        """Return the objects that meet all conditions, as dicts of latest's columns.

        Objects that are equal in `order` stand in the order of their keys, so pages don't overlap.
        """
        history = HISTORY[self.probe_name]
        names = columns_of(history, without)
        ties = [Order(column(name)) for name in ("database_id", *history.sample.key)]
        ordered = sql.SQL(" ORDER BY {}").format(
            sql.SQL(", ").join(one.text for one in (*order, *ties))
        )
        statement = sql.SQL("SELECT {names} FROM {relation} WHERE {where}{order}{page}").format(
            names=sql.SQL(", ").join(map(sql.Identifier, names)),
            relation=self.relation,
            where=all_of(*conditions),
            order=ordered,
            page=sql.SQL(" LIMIT {} OFFSET {}").format(sql.Literal(limit), sql.Literal(offset)),
        )
        return fetch_rows(statement, names)

    def counts(self, **conditions: Term) -> dict[str, int]:
        """Return how many objects meet each condition, by the condition's name."""
        counted = [sql.SQL("count(*) FILTER (WHERE {})").format(one) for one in conditions.values()]
        statement = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(counted), self.relation)
        [found] = fetch_rows(statement, list(conditions))
        return found

    def groups(
        self, by: Sequence[str], sums: Sequence[str] = (), greatest: Sequence[str] = ()
    ) -> list[Row]:
        """Return a row for each combination of values of some columns.

        Keys: the columns, `objects` (how many), of each of `sums` its sum (None: no value
        at all) and `NAME_known` (how many have a value), of each of `greatest` its maximum.
        """
        shown = {name: column(name) for name in by} | {"objects": sql.SQL("count(*)")}
        for name in sums:
            shown[name] = sql.SQL("sum({})::bigint").format(column(name))
            shown[f"{name}_known"] = sql.SQL("count({})").format(column(name))
        for name in greatest:
            shown[name] = sql.SQL("max({})").format(column(name))
        statement = sql.SQL("SELECT {} FROM {} GROUP BY {}").format(
            sql.SQL(", ").join(shown.values()),
            self.relation,
            sql.SQL(", ").join(column(name) for name in by),
        )
        return fetch_rows(statement, list(shown))


def column(name: str) -> Term:
    """Return a column's value."""
    return sql.Identifier(name)


def name_of(schema: str, *names: str) -> Term:
    """Return a schema and the first of some names that there is, in small letters and as Python orders them."""
    return sql.SQL("lower({} || '.' || coalesce({})) COLLATE \"C\"").format(
        column(schema), sql.SQL(", ").join(map(column, names))
    )


def text_of(name: str) -> Term:
    """Return a text in small letters and as Python orders them."""
    return sql.SQL('lower({}::text) COLLATE "C"').format(column(name))


def place_in(name: str, values: Sequence[int]) -> Term:
    """Return where a column's value stands in a list, from 1; None where it does not."""
    return sql.SQL("array_position({}::bigint[], {}::bigint)").format(
        sql.Literal(list(values)), column(name)
    )


def value_of(values: Mapping[tuple[int, int], float], name: str = "relid") -> Term:
    """Return what {(database id, key): value} says of an object, None where it says nothing."""
    known = {f"{database_id}.{key}": value for (database_id, key), value in values.items()}
    return sql.SQL("({}::jsonb ->> (database_id || '.' || {}))::float8").format(
        sql.Literal(json.dumps(known)), column(name)
    )


def age(name: str, following: int | None, first: int = 1) -> Term:
    """Return how many ids ago a column's 32-bit id was given out, as `autovacuum.xid_age` counts.

    Ids before `first` are older than everything; one that is newer than the server's
    next id is 0 ids old. None where that or the column is not known.
    """
    if following is None:
        return sql.SQL("NULL::bigint")
    return sql.SQL(
        "CASE WHEN {name} >= {first} THEN greatest("
        "mod(mod({next} - {name}, {ids}) + {ids} + {half}, {ids}) - {half}, 0)"
        " WHEN {name} > 0 THEN {oldest} END"
    ).format(
        name=column(name),
        next=sql.Literal(following),
        first=sql.Literal(first),
        ids=sql.Literal(autovacuum.XIDS),
        half=sql.Literal(autovacuum.XIDS // 2),
        oldest=sql.Literal(autovacuum.OLDEST_AGE),
    )


def share(part: str, rest: str) -> Term:
    """Return a count in percent of itself and another, None where either is unknown or both are 0."""
    return sql.SQL("100.0 * {part} / nullif({part} + {rest}, 0)").format(
        part=column(part), rest=column(rest)
    )


def line(base: float, scale: float, name: str, unless: str = "") -> Term:
    """Return base + scale * a column, which counts as 0 where it is less or unknown.

    It counts as 0 too where the column `unless` is greater than 0.
    """
    used = sql.SQL("CASE WHEN {} > 0 THEN 0 ELSE {} END").format(column(unless), column(name))
    return sql.SQL("{} + {} * greatest(coalesce({}, 0), 0)").format(
        sql.Literal(base), sql.Literal(scale), used if unless else column(name)
    )


def above(value: Term, limit: Term | float) -> Term:
    """Return whether a value is known and greater than a limit."""
    other = limit if isinstance(limit, Term) else sql.Literal(limit)
    return sql.SQL("coalesce({} > {}, false)").format(value, other)


def among(name: str, values: Iterable[Any]) -> Term:
    """Return whether a column has one of some values."""
    return sql.SQL("{} = ANY ({})").format(column(name), sql.Literal(list(values)))


def among_keys(keys: Iterable[tuple[int, int]], name: str = "relid") -> Term:
    """Return whether an object is one of (database id, key)."""
    pairs = list(keys)
    return sql.SQL("(database_id, {}) IN (SELECT * FROM unnest({}::int[], {}::bigint[]))").format(
        column(name),
        sql.Literal([database_id for database_id, _ in pairs]),
        sql.Literal([key for _, key in pairs]),
    )


def present(name: str) -> Term:
    """Return whether a column has a value."""
    return sql.SQL("{} IS NOT NULL").format(column(name))


def containing(text: str, *names: str) -> Term:
    """Return whether some columns, put side by side, contain a text, in capitals or not."""
    joined = sql.SQL(", ").join(sql.SQL("{}::text").format(column(name)) for name in names)
    return sql.SQL("position(lower({}) IN lower(concat_ws('.', {}))) > 0").format(
        sql.Literal(text), joined
    )


def all_of(*conditions: Term) -> Term:
    """Return whether all conditions are met; without any, yes."""
    return joined(conditions, " AND ", "true")


def any_of(*conditions: Term) -> Term:
    """Return whether one of the conditions is met; without any, no."""
    return joined(conditions, " OR ", "false")


def joined(conditions: Sequence[Term], word: str, none: str) -> Term:
    """Return conditions joined by AND or OR, in parentheses."""
    if not conditions:
        return sql.SQL(none)
    parts = [sql.SQL("({})").format(one) for one in conditions]
    return sql.SQL("({})").format(sql.SQL(word).join(parts))
