"""What a module says that an export has, its rows have: every column is a key of a row's type."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import is_typeddict

import pytest

ROOT = Path(__file__).resolve().parents[3]
NAMES = sorted(path.stem for path in (ROOT / "monitors" / "rows").glob("[!_]*.py"))


def lists_of(module: ModuleType) -> dict[str, tuple[str, ...]]:
    """Return the lists of columns of a module by name: COLUMNS and those that end so."""
    return {name: value for name, value in vars(module).items() if name.endswith("COLUMNS")}


def types_of(module: ModuleType) -> list[type]:
    """Return the types of rows that a module knows."""
    return [kind for kind in vars(module).values() if is_typeddict(kind)]


def lacking(columns: tuple[str, ...], types: list[type]) -> set[str]:
    """Return the columns that are no key of the type that has most of them."""
    return min(
        (set(columns).difference(kind.__annotations__) for kind in types),
        key=len,
        default=set(columns),
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_column_is_a_key_of_a_row(name: str) -> None:
    module = importlib.import_module(f"monitors.rows.{name}")

    for title, columns in lists_of(module).items():
        assert lacking(columns, types_of(module)) == set(), title


def test_columns_are_found_at_all() -> None:
    modules = [importlib.import_module(f"monitors.rows.{name}") for name in NAMES]

    assert sum(len(lists_of(module)) for module in modules) >= 16
