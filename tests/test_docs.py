"""Documents state what the code does: grants, thresholds, actions, retention, names."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from dashboard.embedded.processes import ROOT
from dashboard.embedded.stack import WORKERS
from monitors.actions import ACTIONS
from monitors.advisors import ADVISORS
from monitors.collect import leases
from monitors.history import freshness, partitions
from monitors.history.source import GAP_FACTOR, HOURS_SPAN, SAMPLES_SPAN
from monitors.models import HISTORY, Action
from monitors.people.access import ROLES
from monitors.probe import NEWEST_MAJOR, OLDEST_MAJOR
from monitors.probes import PROBES
from monitors.targets.grant_script import grant_script

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PICTURES = "docs/screenshots/"


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows_of(name: str, head: str) -> list[list[str]]:
    """Return the rows of the table whose head begins so, cells without backquotes."""
    _, found, rest = text_of(name).partition(f"\n| {head} |")
    assert found, f"{name} has no table | {head} |"
    rows = []
    for line in rest.splitlines()[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_between_documents_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link and not link.startswith(PICTURES)]

    assert [link for link in local if not (path.parent / link).exists()] == []


def test_the_index_lists_every_document() -> None:
    names = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}

    assert {name for name in names if f"]({name})" not in text_of("docs/index.md")} == set()


def test_the_grant_scripts_are_those_that_the_check_shows() -> None:
    scripts = re.findall(r"```sql\n(.*?)```", text_of("docs/targets.md"), re.DOTALL)
    logins = {"collector": "howdah_collector", "operator": "howdah_operator"}
    written = list(
        dict.fromkeys(
            grant_script(major, **logins).replace("PostgreSQL 15 has", "PostgreSQL 14 has")
            for major in range(OLDEST_MAJOR, NEWEST_MAJOR + 1)
        )
    )

    assert scripts == written


def test_the_probes_are_listed_with_their_rhythm() -> None:
    listed = [(row[0], row[1]) for row in rows_of("docs/reference.md", "probe")]

    assert listed == [(probe.name, f"{probe.every.total_seconds():.0f} s") for probe in PROBES]


def test_the_sizes_that_a_snapshot_reads_are_as_many_as_said() -> None:
    assert f"at most {HISTORY['tables'].probe.refine_at_once} tables a snapshot" in text_of(
        "docs/targets.md"
    )


def test_every_option_of_a_target_is_described() -> None:
    command = load_command_class("monitors", "target")
    parser = command.create_parser("manage.py", "target")
    [verbs] = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    options = {
        option
        for verb in ("add", "edit")
        for option in verbs.choices[verb]._option_string_actions
        if option.startswith("--") and option not in {"--help", "--host", "--user"}
    }
    table = " ".join(row[0] for row in rows_of("docs/targets.md", "option of `add` and `edit`"))

    assert options == set(re.findall(r"--[a-z-]+", table))


def test_the_thresholds_are_the_advisors_own() -> None:
    rows = rows_of("docs/reference.md", "advisor | threshold")

    assert [(name, threshold, float(value)) for name, threshold, value in rows] == [
        (advisor.name, name, float(value))
        for advisor in ADVISORS
        for name, value in advisor.defaults.items()
    ]


def test_the_advisors_are_described_in_their_order() -> None:
    listed = [row[0] for row in rows_of("docs/reference.md", "advisor | notice")]

    assert listed == [advisor.name for advisor in ADVISORS]
    hurts = [row[0] for row in rows_of("docs/reference.md", "advisor | it hurts when")]
    assert hurts == listed


def test_the_actions_are_described_as_they_are() -> None:
    listed = {
        row[0]: [row[2], *row[3:]] for row in rows_of("docs/reference.md", "action | statement")
    }

    assert listed == {
        spec.name: [
            spec.lock + (f", at its end {spec.swap_lock}" if spec.swap_lock else ""),
            spec.queue,
            f"{spec.lock_timeout_ms / 1000:.0f} s",
            f"{spec.statement_timeout_ms / 1000:.0f} s",
            "yes" if spec.destructive and not spec.direct else "no",
            "yes" if spec.on_standby else "no",
            ", ".join(str(role) for role, names in ROLES.items() if spec.name in names),
        ]
        for spec in ACTIONS.values()
    }


def test_every_final_state_of_an_action_is_explained() -> None:
    assert {row[0] for row in rows_of("docs/actions.md", "state")} == set(Action.FINAL)


def test_what_is_kept_is_kept_as_long_as_said() -> None:
    history = text_of("docs/history.md")
    kept = [partitions.KEEP_SAMPLES, partitions.KEEP_HOURS, partitions.KEEP_DAYS]

    assert [row[2] for row in rows_of("docs/history.md", "table")] == [
        f"{kept[0].days} days",
        "as long as its history",
        f"{kept[1].days} days",
        f"{kept[2].days} days",
    ]
    hours = SAMPLES_SPAN.total_seconds() / 3600
    assert f"up to {hours:.0f} hours inside the last {kept[0].days} days" in history
    assert f"up to {HOURS_SPAN.days} days from" in history
    assert f"more than {GAP_FACTOR} intervals" in history
    assert f"no good snapshot for {freshness.STALE_INTERVALS} intervals" in history


def test_the_back_off_is_the_schedules() -> None:
    *early, last = leases.BACK_OFF_MINUTES
    words = ", ".join(str(minutes) for minutes in early)

    assert f"{words} and then every {last} minutes" in text_of("docs/history.md")
    assert f"{words}, then every {last} minutes" in text_of("docs/faults.md")


def test_every_test_that_a_fault_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", text_of("docs/faults.md")))
    found = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert named
    assert named - found == set()


@pytest.mark.parametrize("name", ["README.md", "docs/deploy.md", "docs/targets.md"])
def test_every_variable_that_is_named_is_read(name: str) -> None:
    named = set(re.findall(r"`([A-Z][A-Z_]{4,})`", text_of(name))) | set(
        re.findall(r"\b(HOWDAH_[A-Z_]+[A-Z])", text_of(name))
    )
    code = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("dashboard", "monitors")
        for path in (ROOT / folder).rglob("*.py")
    )

    words = {"PUBLIC", "CONNECT", "SELECT"}  # PostgreSQL's
    assert {variable for variable in named - words if variable not in code} == set()


def test_the_processes_are_those_of_bin_up() -> None:
    listed = {
        row[0].removeprefix("worker, HOWDAH_ROLE="): (row[1].replace(" ", ""), int(row[2]))
        for row in rows_of("docs/deploy.md", "process")
        if row[0].startswith("worker")
    }

    assert listed == WORKERS


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_is_shown_exists(path: Path) -> None:
    shown = set(re.findall(r"manage\.py ([a-z_]+)", path.read_text(encoding="utf-8")))

    assert shown - set(get_commands()) == set()


def test_the_changelog_names_every_probe_advisor_and_action() -> None:
    changelog = text_of("CHANGELOG.md")
    names = [*(p.name for p in PROBES), *(a.name for a in ADVISORS), *ACTIONS]

    assert [name for name in names if f"`{name}`" not in changelog] == []


def test_no_fault_has_two_rows() -> None:
    for part in text_of("docs/faults.md").split("\n## ")[1:]:
        faults = re.findall(r"(?m)^\| (.+?) \|", part)
        assert sorted(faults) == sorted(set(faults))


def test_the_table_of_rooms_names_each_room() -> None:
    """Rooms are folders; which may import which stands in pyproject.toml, and nowhere else."""
    named = re.findall(
        r"^\| `((?:monitors|dashboard)/\w+)/?`", text_of("docs/architecture.md"), re.M
    )
    rooms = {
        f"{root}/{path.name}"
        for root in ("monitors", "dashboard")
        for path in (ROOT / root).iterdir()
        if path.is_dir() and any(path.glob("*.py")) and path.name != "migrations"
    }

    assert sorted(named) == sorted(rooms)


def test_every_module_that_the_documents_point_at_exists() -> None:
    example = {
        "monitors/probes/replication_slots.py",
        "monitors/advisors/inactive_slots.py",
        "monitors/actions/drop_replication_slot.py",
        "dashboard/pages/replication_slots.py",
        "monitors/rows/replication_slots.py",
    }  # the recipe's
    named = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"`((?:monitors|dashboard)/[\w/]+\.py)`", path.read_text("utf-8"))
    }

    assert {name for name in named - example if not (ROOT / name).exists()} == set()
