"""Whether a row is what its TypedDict says: its keys, and the types of its values."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

UNIONS = (Union, types.UnionType)


def assert_typed(row: Mapping[str, Any], kind: type) -> None:
    """Fail where a row has other keys than its type, or a value of another type."""
    hints = get_type_hints(kind)

    differing = sorted(set(row) ^ set(hints))
    assert not differing, f"{kind.__name__} or its row lacks {', '.join(differing)}"
    wrong = {name: row[name] for name, hint in hints.items() if not fits(row[name], hint)}
    assert not wrong, f"{kind.__name__} says otherwise of {wrong}"


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a plain type, of a union, or a collection of such."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return True
    if origin in UNIONS:
        return any(fits(value, part) for part in parts)
    if hint is float:  # as the type checkers take it
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if is_typeddict(hint):
        return isinstance(value, Mapping) and fits_row(value, hint)
    return isinstance(value, origin or hint) and all_fit(value, parts)


def fits_row(row: Mapping[str, Any], kind: type) -> bool:
    """Tell whether a row within a row has the keys of its type, and their types."""
    hints = get_type_hints(kind)
    return set(row) == set(hints) and all(fits(row[name], hints[name]) for name in hints)


def all_fit(value: Any, parts: tuple[Any, ...]) -> bool:
    """Tell whether what a collection holds fits the types in its brackets."""
    if not parts:
        return True
    if isinstance(value, Mapping):
        return each_fits(value, parts[0]) and each_fits(value.values(), parts[1])
    if isinstance(value, tuple) and Ellipsis not in parts:
        return len(value) == len(parts) and all(map(fits, value, parts))
    return each_fits(value, parts[0])


def each_fits(values: Iterable[Any], hint: Any) -> bool:
    """Tell whether all of some values fit a type."""
    return all(fits(value, hint) for value in values)
