"""What is registered is wired: a probe reaches whoever names it, an action its button and verdict."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grimp
import pytest

from dashboard.embedded.processes import ROOT
from monitors.action import no_needs
from monitors.actions import ACTIONS
from monitors.advisor import Advisor, Finding, NotRead, Row, Samples, Thresholds
from monitors.advisors import ADVISORS
from monitors.collect import observers
from monitors.collect.rounds import take_now
from monitors.findings import judge, samples, thresholds
from monitors.models import HISTORY, Target
from monitors.people import access
from monitors.probe import Probe
from monitors.probes import PROBES
from monitors.targets import abilities
from tests.servers import Server

NAMES = [probe.name for probe in PROBES]
GIVEN = {"settings"}
"""Probes that advisors know by facts of the target alone."""
PICKED = {"activity", "tables", "bloat", "horizon"}
"""Probes of which advisors get the rows that pass a threshold."""


@pytest.fixture(scope="module")
def symbols() -> set[str]:
    return set(re.findall(r'<symbol id="(?:i-)?([\w-]+)"', (ROOT / "static/icons.svg").read_text()))


@pytest.mark.django_db
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_an_advisor_on_any_probe_gets_its_rows(
    probe: Probe, embedded: Server, watch: Callable[..., Target]
) -> None:
    target = watch(embedded, include=["shop"])
    take_now(target, ["databases", probe.name])
    got: dict[str, list[Row]] = {}

    def advise(given: Samples, _: Thresholds) -> Iterator[Finding]:
        got["now"] = list(given.of(probe.name))
        return iter(())

    known = next(one for one in ADVISORS if not one.kept)
    made = replace(known, reads=(probe.name,), beside=(), advise=advise)
    read = samples.samples_of([target], thresholds.the_fleet(), [made])[target.pk]
    assert list(judge.judge(target, read, [made])) == []

    stored = HISTORY[probe.name].latest._default_manager.filter(target_id=target.pk).count()
    if probe.name not in PICKED | GIVEN:
        assert len(got["now"]) == stored
    assert "now" in got


def test_an_advisor_that_forgets_to_name_a_probe_fails() -> None:
    given = Samples(now=None, rows={"tables": (), "activity": ()})  # type: ignore[arg-type]
    [dead] = [one for one in ADVISORS if one.name == "dead_tuples"]

    with pytest.raises(NotRead):
        given.for_advisor(dead)
    with pytest.raises(NotRead):
        given.for_advisor(replace(dead, beside=())).of("progress")


@pytest.mark.parametrize("advisor", ADVISORS, ids=lambda advisor: advisor.name)
def test_an_advisor_names_probes_that_exist(advisor: Advisor) -> None:
    assert set(advisor.reads) | set(advisor.beside) <= set(NAMES)
    assert not set(advisor.reads) & set(advisor.beside)


def test_each_observer_is_told_by_a_probe_that_exists() -> None:
    assert set(observers.WITHIN) | set(observers.AFTER) <= set(NAMES)


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_has_its_button_its_right_and_somebody_who_may(
    name: str, symbols: set[str]
) -> None:
    spec = ACTIONS[name]

    assert spec.name == name
    assert spec.icon in symbols
    assert spec.verb
    assert spec.right in abilities.NEEDS or (not spec.right and spec.needs is not no_needs)
    assert spec.judged_later or spec.judge({}, {}) is None
    assert any(name in rights for rights in access.ROLES.values())


def test_no_name_of_a_probe_stands_in_the_collector() -> None:
    """But in the list of observers, and where what they write is drawn from."""
    told = {"observers.py", "vacuum_runs.py"}
    for path in (ROOT / "monitors" / "collect").glob("*.py"):
        if path.name not in told:
            named = re.findall(r'== "(\w+)"', path.read_text(encoding="utf-8"))
            assert not set(named) & set(NAMES), path.name


def test_all_rows_are_shown_by_a_page_or_a_command() -> None:
    graph = grimp.build_graph("monitors", "dashboard", cache_dir=None)
    shows = ("dashboard.pages", "dashboard.frame", "monitors.management")
    rows = graph.find_children("monitors.rows")

    silent = {
        name
        for name in rows
        if not any(
            one.startswith(shows) for one in graph.find_downstream_modules(name, as_package=False)
        )
    }
    assert silent == set()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "monitors" / "rows").glob("*.py")), ids=lambda path: path.stem
)
def test_columns_are_those_of_an_export(path: Path) -> None:
    """A page's export and a command's take the list from here: nobody has one of his own."""
    if not re.search(r"^COLUMNS\b", path.read_text(encoding="utf-8"), re.MULTILINE):
        return
    users = [
        *(ROOT / "dashboard/pages").glob("*.py"),
        *(ROOT / "monitors/management").rglob("*.py"),
    ]
    text = "\n".join(user.read_text(encoding="utf-8") for user in users)
    module = rf"monitors\.rows import (?:[^\n(]*|\([^)]*)\b{path.stem}\b"
    direct = rf"monitors\.rows\.{path.stem} import (?:[^\n(]*|\([^)]*)\bCOLUMNS\b"

    assert re.search(direct, text) or (re.search(module, text) and re.search(r"\w+\.COLUMNS", text))


def test_the_checklist_knows_what_is_there() -> None:
    words = ["logins", "--advisor", "password_expires", "--action", "reindex"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "bin" / "checklist"), *words, *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    there, lacking = run("--no-page"), run()

    assert (there.returncode, there.stdout.count("[ ]")) == (0, 0)
    assert lacking.returncode == 1
    assert "[ ] dashboard/pages/logins.py: the page" in lacking.stdout
    assert int(lacking.stdout.splitlines()[-1].split()[0]) <= 18  # files, of a whole capability
