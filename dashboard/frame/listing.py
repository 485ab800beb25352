"""A table of a page: what it shows of its rows, by the words of the query.

Rows that are in memory are ordered and paged here (`listing_of`); of very many objects
our own database does both, and only those shown are read (`listing_from`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core.exceptions import BadRequest
from django.http import HttpRequest

from monitors.history.objects import Objects, Order, Term, all_of

PAGE_SIZE = 50

Row = dict[str, Any]
"""As our own database returns it, by the columns of a probe."""
Shown = TypeVar("Shown", bound=Mapping[str, Any])
"""What a table has a line for: the row of a subject."""


@dataclass(frozen=True)
class Listing(Generic[Shown]):
    """All rows that match, in order, and the one page of them that is shown.

    Where the database paged, `matching` is what is shown, of an export all; `total` counts all.
    """

    matching: list[Shown]
    rows: list[Shown]
    total: int
    page: int
    sort: str
    q: str

    @property
    def pages(self) -> int:
        """How many pages they fill, at least one."""
        return max(1, -(-self.total // PAGE_SIZE))

    @property
    def first(self) -> int:
        """The number of the first row shown, from 1."""
        return (self.page - 1) * PAGE_SIZE + 1

    @property
    def last(self) -> int:
        """The number of the last row shown."""
        return self.first - 1 + len(self.rows)

    @property
    def previous(self) -> int:
        """The page before this one."""
        return self.page - 1

    @property
    def next(self) -> int:
        """The page after this one."""
        return self.page + 1


def listing_of(
    request: HttpRequest,
    rows: Iterable[Shown],
    *,
    columns: Sequence[str],
    default: str,
    searched: Callable[[Shown], str],
) -> Listing[Shown]:
    """Return the listing that `sort`, `q` and `page` of the query ask for.

    `columns` may be sorted by, with a hyphen before the name for the greatest
    first; rows without a value come last either way. `searched` is the text
    that `q` is looked for in. Raises BadRequest for another column or page.
    """
    sort, q = sort_of(request, columns, default), sought_in(request)
    sought = q.casefold()
    matching = [row for row in rows if not sought or sought in searched(row).casefold()]
    matching = ordered(matching, sort)
    page = page_of(request, len(matching))
    start = (page - 1) * PAGE_SIZE
    return Listing(matching, matching[start : start + PAGE_SIZE], len(matching), page, sort, q)


def listing_from(
    request: HttpRequest,
    objects: Objects,
    *conditions: Term,
    sort: str,
    orders: Mapping[str, Term],
    complete: Callable[[list[Row]], list[Shown]],
    then: Sequence[Order] = (),
) -> Listing[Shown]:
    """Return the listing that the query asks for, of the objects that meet all conditions.

    `orders` are the expressions by what a sort may name; `sort` is one of them (`sort_of`).
    What is equal in it, or unknown, stands by `then`. `complete` makes of the objects what is shown.
    For an export all rows are read, for a page only those that it shows.
    """
    total = objects.counts(total=all_of(*conditions))["total"]
    page = page_of(request, total)
    of_all = bool(request.GET.get("format"))
    read = objects.rows(
        *conditions,
        order=[Order(orders[sort.removeprefix("-")], sort.startswith("-")), *then],
        limit=None if of_all else PAGE_SIZE,
        offset=0 if of_all else (page - 1) * PAGE_SIZE,
    )
    rows = complete(read)
    return Listing(rows, rows, total, page, sort, sought_in(request))


def sort_of(request: HttpRequest, columns: Iterable[str], default: str) -> str:
    """Return what `sort` of the query asks for; raises BadRequest for another column."""
    sort = request.GET.get("sort") or default
    if sort.removeprefix("-") not in columns:
        message = f"The table can't be sorted by {sort[:40]!r}."
        raise BadRequest(message)
    return sort


def sought_in(request: HttpRequest) -> str:
    """Return the text that `q` of the query looks for, '' for all."""
    return request.GET.get("q", "").strip()


def ordered(rows: Sequence[Shown], sort: str) -> list[Shown]:
    """Return rows by one column, stable, those without a value last."""
    key = sort.removeprefix("-")
    known = [row for row in rows if row.get(key) is not None]
    unknown = [row for row in rows if row.get(key) is None]
    known.sort(key=lambda row: comparable(row[key]), reverse=sort.startswith("-"))
    return known + unknown


def comparable(value: Any) -> Any:
    """Return what orders texts as people do."""
    return value.casefold() if isinstance(value, str) else value


def page_of(request: HttpRequest, total: int) -> int:
    """Return the page that is asked for, the last one where there are fewer."""
    text = request.GET.get("page") or "1"
    if not (text.isascii() and text.isdigit() and len(text) < len("1000000")):
        message = "A page is a number."
        raise BadRequest(message)
    return max(1, min(int(text), -(-total // PAGE_SIZE)))


def chosen(request: HttpRequest, word: str, choices: Mapping[str, Any], default: str) -> str:
    """Return one of the choices for a word of the query; raises BadRequest for another."""
    value = request.GET.get(word) or default
    if value not in choices:
        message = f"{word} is one of {', '.join(choices)}."
        raise BadRequest(message)
    return value
