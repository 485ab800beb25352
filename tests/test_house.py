"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard.embedded.processes import ROOT
from dashboard.pages import PAGES
from tests import servers

REGISTRIES = {
    "monitors/probes": "monitors.probes.PROBES",
    "monitors/advisors": "monitors.advisors.ADVISORS",
    "monitors/actions": "monitors.actions.ACTIONS",
}
CODE = sorted(
    path.relative_to(ROOT)
    for folder in ("dashboard", "monitors", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if "migrations" not in path.parts
)
SQL_FOR_TARGETS = ("monitors/probes/", "monitors/actions/", "monitors/pg/")
SQL_FOR_OUR_DATABASE = ("monitors/history/", "dashboard/embedded/")
FOR_PEOPLE = {"SELECT pg_reload_conf();"}
"""What sentences tell people to run."""
LONG = 350
"""Lines; a module with more says why in its docstring."""
LAYOUT = {
    "dashboard",
    "monitors",
    "templates",
    "static",
    "tests",
    "bin",
    "docs",
    ".ci",
    "findings",
}


def tracked_files() -> list[str]:
    """Paths that are in the repository, without those that git would not take."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def strings(tree: ast.Module) -> Iterator[str]:
    """Every string constant of a module that is no docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in docstrings:
            continue
        if isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize(("folder", "registry"), REGISTRIES.items())
def test_every_file_of_a_growing_folder_is_registered(folder: str, registry: str) -> None:
    module_name, _, name = registry.rpartition(".")
    entries = getattr(importlib.import_module(module_name), name)
    members = entries.values() if isinstance(entries, dict) else entries
    files = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}
    registered = {
        getattr(member, "__module__", "").rpartition(".")[2]
        if callable(member)
        else getattr(member, "name")  # noqa: B009 - mypy does not know the entry's type
        for member in members
    }

    assert registered == files


def test_every_page_file_has_an_address() -> None:
    """By the rail's list, or by a line of its own in dashboard/urls.py."""
    urls = (ROOT / "dashboard" / "urls.py").read_text(encoding="utf-8")
    urls += " ".join(page.module or page.name.replace("-", "_") for page in PAGES)
    files = {path.stem for path in (ROOT / "dashboard" / "pages").glob("*.py")} - {"__init__"}

    assert {name for name in files if not re.search(rf"\b{name}\b", urls)} == set()


@pytest.mark.parametrize("folder", ["probes", "advisors", "actions"])
def test_every_file_of_a_growing_folder_has_a_test_of_its_name(folder: str) -> None:
    files = {path.stem for path in (ROOT / "monitors" / folder).glob("*.py")} - {"__init__"}
    tests = {path.stem for path in (ROOT / "tests" / "monitors" / folder).glob("test_*.py")}

    assert {f"test_{name}" for name in files} - tests == set()


@pytest.mark.parametrize("path", CODE, ids=str)
def test_every_module_says_what_it_is_for_in_one_line(path: Path) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    if not source.strip():
        return  # an empty __init__.py
    docstring = ast.get_docstring(ast.parse(source))

    assert docstring, f"{path} has no docstring"
    assert docstring.splitlines()[0].rstrip().endswith((".", ":", "?")), path


@pytest.mark.parametrize("path", [path for path in CODE if path.parts[0] != "tests"], ids=str)
def test_a_long_module_says_why(path: Path) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""

    assert len(source.splitlines()) <= LONG or "Long, since " in docstring


@pytest.mark.parametrize("path", [path for path in CODE if path.parts[0] != "tests"], ids=str)
def test_sql_stands_only_where_it_belongs(path: Path) -> None:
    if str(path).startswith((*SQL_FOR_TARGETS, *SQL_FOR_OUR_DATABASE)):
        return
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    looks_like_sql = re.compile(r"^\s*(SELECT\s|INSERT INTO\s|UPDATE\s\S+\sSET\s|DELETE FROM\s)")

    found = [text for text in strings(tree) if looks_like_sql.match(text)]
    assert [text for text in found if text.strip() not in FOR_PEOPLE] == []


def test_nothing_imports_psycopg_but_the_parts_that_talk_to_servers() -> None:
    allowed = ("monitors/pg/", "monitors/history/", "monitors/actions/", "dashboard/embedded/")
    importers = {
        str(path)
        for path in CODE
        if path.parts[0] == "dashboard"
        and not str(path).startswith(allowed)
        and re.search(r"^\s*(import|from) psycopg", (ROOT / path).read_text(), re.MULTILINE)
    }

    assert importers == set()


def test_no_lock_file_names_a_host() -> None:
    locks = [name for name in tracked_files() if re.search(r"requirements.*\.txt$|\.lock\b", name)]

    assert locks
    assert [name for name in locks if "://" in (ROOT / name).read_text(encoding="utf-8")] == []


def test_every_requirement_is_locked_by_hash() -> None:
    for name in [name for name in tracked_files() if re.search(r"requirements.*\.txt$", name)]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        packages = [line for line in lines if line and not line.startswith((" ", "#"))]

        assert packages, name
        assert [line for line in packages if not line.rstrip().endswith("\\")] == [], name


def test_no_folder_of_code_is_added_at_the_top() -> None:
    folders = {name.split("/", 1)[0] for name in tracked_files() if "/" in name}

    assert folders - LAYOUT <= {".github"}


def test_no_unfinished_business_without_a_number() -> None:
    unfinished = re.compile(r"\b(TODO|FIXME|XXX)\b(?!.*#\d+)")
    found = [
        name
        for name in tracked_files()
        if name.endswith((".py", ".html", ".js", ".css", ".sh"))
        and name != "tests/test_house.py"
        and unfinished.search((ROOT / name).read_text(encoding="utf-8"))
    ]

    assert found == []


def test_no_page_asks_another_host_for_anything() -> None:
    outside = re.compile(r"""(src|href)=["'](https?:)?//|url\(["']?(https?:)?//|@import""")
    found = [
        name
        for name in tracked_files()
        if name.startswith(("templates/", "static/"))
        and name.endswith((".html", ".css", ".js"))
        and any(
            outside.search(line) and "<a " not in line
            for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
        )
    ]

    assert found == []


def test_what_is_to_run_on_19_is_there() -> None:
    assert [path for path in servers.ALSO_ON_19 if not (ROOT / "tests" / path).exists()] == []
